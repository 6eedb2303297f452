"""The tables that services open: Arrow IPC streams, uncompressed, read by nanoarrow.

Builders write them with pyarrow (`bioverify.artifacts.arrow`); any Arrow library reads them. nanoarrow takes 4 MB of an
image where pyarrow takes 82, and spares every process pyarrow's 43 MB of memory.
"""

from __future__ import annotations

from typing import Any

import nanoarrow as na
import numpy as np
import numpy.typing as npt

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.names import Texts
from bioverify.artifacts.store import OpenArtifact

Int32s = npt.NDArray[np.int32]


class ServedTable:
    """Columns of one length, without nulls."""

    def __init__(self, columns: na.Array) -> None:
        """``columns``: a struct in one piece, as `bioverify.artifacts.arrow.write_served` writes it."""
        names = [field.name for field in columns.schema.fields]
        self._columns = dict(zip(names, columns.iter_children(), strict=True))

    def texts(self, name: str) -> Texts:
        _, ends, text = self._columns[name].buffers
        # Of a table without rows Arrow leaves out the one end that there is.
        return Texts(bytes(ends) or bytes(4), bytes(text))

    def strings(self, name: str) -> list[str]:
        strings: list[str] = self._columns[name].to_pylist()
        return strings

    def numbers(self, name: str) -> npt.NDArray[Any]:
        return _numbers(self._columns[name])

    def lists(self, name: str) -> tuple[Int32s, npt.NDArray[Any]]:
        """Of a column of lists of numbers: where each begins, and after the last where it ends; all their elements."""
        column = self._columns[name]
        return _numbers(column), _numbers(column.child(0))


def read_served(artifact: OpenArtifact, file_name: str) -> ServedTable:
    """Raises ArtifactError if another version of the code made the artifact, without this table."""
    if file_name not in artifact.manifest.files:
        made = artifact.manifest
        raise ArtifactError(
            f"artifact {made.name}: it has no {file_name}, because another version of bioverify made it. "
            f"Run: bioverify data build {made.name}"
        )
    with na.ArrayStream.from_path(str(artifact.path / file_name)) as stream:
        return ServedTable(stream.read_all())


def _numbers(column: na.Array) -> npt.NDArray[Any]:
    """A view; it keeps its buffer."""
    return np.asarray(column.buffer(1))
