"""The reward mixtures that ship with the package: rbio-1's eleven and ours, one YAML file each."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from bioverify.core.recipes import Recipe
from bioverify.settings import SettingsError, read_settings


@cache
def names() -> tuple[str, ...]:
    """The names that `load` knows, sorted."""
    return tuple(sorted(Path(entry.name).stem for entry in files(__name__).iterdir() if entry.name.endswith(".yaml")))


@cache
def load(name: str) -> Recipe:
    """The shipped recipe of that name. Raises SettingsError, which lists the known names."""
    if name not in names():
        raise SettingsError("", "", f"recipe {name!r} is not known; there are: {', '.join(names())}")
    return read_settings(Recipe, files(__name__).joinpath(f"{name}.yaml"))


def read(path: Path) -> Recipe:
    """A recipe of the user's own. Raises SettingsError."""
    return read_settings(Recipe, path)
