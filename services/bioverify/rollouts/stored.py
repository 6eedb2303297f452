"""Stored rollouts as lines of JSON, whatever they are stored as: JSONL, Parquet, or the tables that TRL keeps.

A row's number is its place in the file, or over all tables of a folder, in the order of their names (TRL puts the step
into the name, so a longer run only adds rows). TRL's tables say no group: its rows of one step and prompt are one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from bioverify.client.json_form import ItemJson
from bioverify.client.rows import BATCH_ROWS, json_line, json_rows
from bioverify.errors import how_to_install
from bioverify.rollouts.lines import lines_of

_OF_TRL = {"step", "prompt", "completion", "advantage"}


class StoredRollouts:
    """A file of rollouts, or a folder of Parquet files. While it is read, ``done`` of ``total`` (bytes or rows) are."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError where there is nothing to read, or a table and no pyarrow."""
        self.files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not self.files:
            raise ValueError(f"{path} has no .parquet file in it")
        self.is_table = self.files[0].suffix == ".parquet"
        self.done = 0
        self.total = sum(map(_rows, self.files)) if self.is_table else path.stat().st_size

    def lines(self) -> Iterator[bytes]:
        """One item per line. Raises ValueError for a table without completions, and where it is no Parquet file."""
        self.done = 0
        for file in self.files:
            yield from self._table_lines(file) if self.is_table else self._json_lines(file)

    def _json_lines(self, file: Path) -> Iterator[bytes]:
        with file.open("rb") as lines:
            for line in lines_of(lines):
                self.done = lines.tell()
                yield line

    def _table_lines(self, file: Path) -> Iterator[bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if "completion" not in names:
                raise ValueError(f"{file} has no column completion; it has: {', '.join(names)}")
            is_of_trl = set(names) >= _OF_TRL and "group_id" not in names
            wanted = [name for name in (*ItemJson.model_fields, *(["step"] if is_of_trl else [])) if name in names]
            for batch in table.iter_batches(BATCH_ROWS, columns=wanted):
                rows = pa.Table.from_batches([batch])
                steps = rows["step"].to_pylist() if is_of_trl else ()
                for index, fields in enumerate(json_rows(rows)):
                    self.done += 1
                    if is_of_trl:
                        fields["group_id"] = _group(steps[index], fields.get("prompt"))
                    yield json_line(fields)


def _rows(file: Path) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError(f"{file}: Parquet needs pyarrow. {how_to_install('tables')}") from error
    try:
        rows: int = pq.read_metadata(file).num_rows
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} is no Parquet file: {error}") from error
    return rows


def _group(step: int, prompt: Any) -> str:
    return f"{step}/{hashlib.sha256(orjson.dumps(prompt)).hexdigest()[:16]}"
