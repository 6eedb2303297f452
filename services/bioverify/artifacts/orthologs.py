"""Orthologs as a person gives them: a table of two columns, the name in the other species and the human one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bioverify.artifacts.errors import ArtifactError, one_line
from bioverify.artifacts.own_screens.delimited import read_blocks, see_layout
from bioverify.artifacts.packed import UNREADABLE


def read_orthologs(path: Path) -> dict[str, str]:
    """Name → human name, of those with one ortholog. Raises ArtifactError for a file that is no such table."""
    if not path.is_file():
        raise ArtifactError(f"orthologs {path}: no such file")
    try:
        pairs = list(_pairs(path))
    except ArtifactError as error:
        raise ArtifactError(f"orthologs {path}: {one_line(error)}") from None
    except UNREADABLE as error:
        raise ArtifactError(f"orthologs {path}: cannot be read ({one_line(error)})") from error
    found: dict[str, set[str]] = {}
    for name, human in pairs:
        found.setdefault(name.strip(), set()).add(human.strip())
    return {name: min(humans) for name, humans in found.items() if len(humans) == 1 and name and "" not in humans}


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    layout = see_layout(path, lambda header: len(header) == 2)
    if len(layout.header) != 2:
        raise ArtifactError(f"has the columns {', '.join(layout.header)}; expected two: mouse name, human name")
    for batch in read_blocks(path, layout, layout.header):
        yield from zip(*(batch[column].to_pylist() for column in layout.header), strict=True)
