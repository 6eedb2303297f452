"""The tree of exceptions at the head of `bioverify.errors` is the tree that there is."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bioverify import errors

ROOT = Path(__file__).parents[2]
BUILTIN = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)}


def exceptions() -> Iterator[tuple[str, str, list[str]]]:
    """Module, name and bases of every exception class in services and trainer, read without importing anything."""
    for root in (ROOT / "services", ROOT / "trainer"):
        for package in ("bioverify", "bioverify_trainer"):
            for path in sorted((root / package).rglob("*.py")):
                module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
                for node in ast.walk(ast.parse(path.read_text())):
                    if isinstance(node, ast.ClassDef):
                        bases = [ast.unparse(base) for base in node.bases]
                        if {"BioverifyError", *BUILTIN} & set(bases):
                            yield module.removeprefix("bioverify."), node.name, bases


def test_the_tree_names_every_exception_and_where_it_is() -> None:
    printed = re.findall(r"^[├└]── (\S+) +(\S+)", errors.__doc__ or "", re.MULTILINE)
    written = [(name, module) for module, name, _ in exceptions() if name != "BioverifyError"]
    assert sorted(printed) == sorted(written)
    assert len(written) > 20


@pytest.mark.parametrize(("module", "name", "bases"), list(exceptions()))
def test_an_exception_of_ours_is_a_bioverify_error(module: str, name: str, bases: list[str]) -> None:
    assert bases[0] == ("Exception" if name == "BioverifyError" else "BioverifyError"), module
