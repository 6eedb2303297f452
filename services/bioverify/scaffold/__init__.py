"""`bioverify verifier new`: a folder to begin a verifier in, outside of this repository.

The template is a working verifier, `example_verifier`, that is linted, typed and tested as it stands here. Beginning a
new one is copying its files under another name, so nothing is written that has not been run.
"""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from bioverify.core.consensus import CONSENSUS
from bioverify.core.verifier import Verifier
from bioverify.errors import BioverifyError

_TEMPLATE = "example_verifier"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MOST_LETTERS = 40


class ScaffoldError(BioverifyError, ValueError):
    """A name that cannot be taken, or a folder that is not a verifier's; the message says what to do."""


def write(name: str, parent: Path, *, taken: tuple[str, ...] = ()) -> list[Path]:
    """Write the folder ``parent/name``; its files. ``taken``: names of verifiers that there are already.

    Raises ScaffoldError if the name is none or not free, and leaves what exists alone.
    """
    folder = parent / name
    if problem := _problem_of(name, taken):
        raise ScaffoldError(f"{name!r}: {problem}")
    if folder.exists():
        raise ScaffoldError(f"{folder} exists and is left as it is. Take another name, or move it away.")
    if importlib.util.find_spec(name) is not None:
        raise ScaffoldError(f"{name!r}: a Python module is called so, which the folder would hide. Take another name.")
    folder.mkdir()
    written = []
    for source in sorted(files(__name__).joinpath(_TEMPLATE).iterdir(), key=lambda entry: entry.name):
        if source.is_file():
            path = folder / source.name
            path.write_text(_renamed(source.read_text(), name))
            written.append(path.relative_to(parent))
    return written


def _problem_of(name: str, taken: tuple[str, ...]) -> str:
    if not _NAME.fullmatch(name) or len(name) > _MOST_LETTERS:
        return (
            "a verifier's name has at most 40 lower-case letters, digits and single underscores and begins with a "
            "letter, for instance gene_age: it is a folder, a Python package and a word in recipes"
        )
    if name in (*taken, CONSENSUS):
        return "bioverify has a verifier of that name. Take another one."
    if keyword.iskeyword(name) or name in sys.stdlib_module_names:
        return "that is a word or a module of Python itself. Take another name."
    return ""


def _renamed(text: str, name: str) -> str:
    """In the three spellings that occur: the package, its class, its host name."""
    title = "".join(part.capitalize() for part in name.split("_"))
    dashed = name.replace("_", "-")
    return text.replace(_TEMPLATE, name).replace("ExampleVerifier", title).replace("example-verifier", dashed)


def opener(folder: Path) -> Callable[[], Verifier]:
    """What opens the verifier of a folder: `open_verifier` of its verifier.py. Raises ScaffoldError.

    The folder is imported as a package, when it is opened: several workers are forked before anything heavy is loaded.
    """
    folder = folder.resolve()
    if not (folder / "verifier.py").is_file():
        raise ScaffoldError(f"{folder} has no verifier.py. Begin one: bioverify verifier new NAME")
    if not folder.name.isidentifier():
        raise ScaffoldError(f"{folder.name!r} cannot be imported: rename the folder to letters, digits and underscores")

    def open_verifier() -> Verifier:
        sys.path.insert(0, str(folder.parent))
        module = importlib.import_module(f"{folder.name}.verifier")
        if not hasattr(module, "open_verifier"):
            raise ScaffoldError(f"{folder / 'verifier.py'} has no open_verifier(), which is to return the verifier")
        verifier: Verifier = module.open_verifier()
        return verifier

    return open_verifier
