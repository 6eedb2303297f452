"""The reward mixtures that ship with the package: rbio-1's eleven and ours, one YAML file each."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import ValidationError

from bioverify.core.recipes import Recipe


class RecipeError(ValueError):
    """A recipe that cannot be read; the message names the file and the key."""


@cache
def names() -> tuple[str, ...]:
    """The names that `load` knows, sorted."""
    return tuple(sorted(Path(entry.name).stem for entry in files(__name__).iterdir() if entry.name.endswith(".yaml")))


@cache
def load(name: str) -> Recipe:
    """The shipped recipe of that name. Raises RecipeError, which lists the known names."""
    if name not in names():
        raise RecipeError(f"recipe {name!r} is not known; there are: {', '.join(names())}")
    return parse(files(__name__).joinpath(f"{name}.yaml").read_text(), where=f"{name}.yaml")


def read(path: Path) -> Recipe:
    """A recipe of the user's own. Raises RecipeError, which names the file and the key."""
    return parse(path.read_text(), where=str(path))


def parse(text: str, *, where: str) -> Recipe:
    """A recipe from YAML text; ``where`` stands in the message of a RecipeError."""
    try:
        return Recipe.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not YAML ({error})") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors()]
        raise RecipeError(f"{where}: {'; '.join(problems)}") from error
