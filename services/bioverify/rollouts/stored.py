"""Stored rollouts line by line, whatever they are stored as: JSONL, one JSON array, Parquet, the tables that TRL keeps.

A row's number is its place in the file, or over all tables of a folder, in the order of their names (TRL puts the step
into the name, so a longer run only adds rows). TRL's tables say no group: its rows of one step and prompt are one.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson

from bioverify.client.json_form import ItemJson
from bioverify.client.rows import BATCH_ROWS, json_rows
from bioverify.errors import how_to_install
from bioverify.rollouts.dialects import WANTED
from bioverify.rollouts.lines import Line, lines_of

_OF_TRL = {"step", "prompt", "completion", "advantage"}


class StoredRollouts:
    """A file of rollouts, or a folder of Parquet files. While it is read, ``done`` of ``total`` (bytes or rows) are.

    What a file is, is read off its first bytes: Parquet, JSON lines, one JSON array, either of these gzipped.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError if there is nothing to read, or a table and no pyarrow."""
        self.files = _tables_in(path) if path.is_dir() else [path]
        self.is_table = path.is_dir() or _first_bytes(path, 4) == _PARQUET or path.suffix.lower() in _TABLE_SUFFIXES
        self.done = 0
        self.total = sum(map(_rows, self.files)) if self.is_table else path.stat().st_size

    def lines(self) -> Iterator[Line]:
        """One item per line. Raises ValueError for a table without completions, and for a file that cannot be read."""
        self.done = 0
        for file in self.files:
            yield from self._table_lines(file) if self.is_table else self._json_lines(file)

    def _json_lines(self, path: Path) -> Iterator[Line]:
        with path.open("rb") as raw:
            is_zipped = raw.read(2) == _GZIP
            raw.seek(0)
            opened: Any = gzip.GzipFile(fileobj=raw) if is_zipped else nullcontext(raw)
            with opened as file:
                try:
                    is_begun = False
                    for line in lines_of(file):
                        if not is_begun and (begins := line.removeprefix(_BOM).strip()):
                            is_begun = True
                            if begins.startswith(b"["):
                                yield from _array(line + file.read(MAX_ARRAY_BYTES + 1), path)
                                self.done = self.total
                                return
                        # Bytes of the file itself, of which a zipped one has read some ahead.
                        self.done = raw.tell()
                        yield line if is_begun else b"\n"
                except (gzip.BadGzipFile, EOFError) as error:
                    raise ValueError(f"{path}: the gzip stream is broken ({error}); is the file whole?") from error

    def _table_lines(self, file: Path) -> Iterator[Line]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if not {"completion", "messages"} & set(names):
                raise ValueError(
                    f"{file} has no column completion; it has: {', '.join(names)}; wanted: {WANTED}. Rename its "
                    "columns: pyarrow's Table.rename_columns, or DataFrame.rename in pandas"
                )
            is_of_trl = set(names) >= _OF_TRL and "group_id" not in names
            wanted = [name for name in (*ItemJson.model_fields, *(["step"] if is_of_trl else [])) if name in names]
            for batch in table.iter_batches(BATCH_ROWS, columns=wanted):
                rows = pa.Table.from_batches([batch])
                steps = rows["step"].to_pylist() if is_of_trl else ()
                for index, fields in enumerate(json_rows(rows)):
                    self.done += 1
                    if is_of_trl:
                        fields["group_id"] = _group(steps[index], fields.get("prompt"))
                    yield fields


_PARQUET, _GZIP, _BOM = b"PAR1", b"\x1f\x8b", b"\xef\xbb\xbf"
_TABLE_SUFFIXES = {".parquet", ".pq"}
MAX_ARRAY_BYTES = 2**29
"""Of one JSON array, which is parsed whole."""


def _tables_in(folder: Path) -> list[Path]:
    """The tables of a folder; of one from the hub, those in its folder data."""
    for place in (folder, folder / "data"):
        if place.is_dir() and (
            found := sorted(path for path in place.iterdir() if path.suffix.lower() in _TABLE_SUFFIXES)
        ):
            return found
    raise ValueError(f"{folder} has no .parquet file in it, nor in a folder data")


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _array(raw: bytes, path: Path) -> Iterator[Line]:
    if len(raw) > MAX_ARRAY_BYTES:
        raise ValueError(f"{path} is one JSON array of more than 512 MiB; make lines of it: jq -c '.[]' {path}")
    try:
        records = orjson.loads(raw.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path} begins like a JSON array and is none ({error.msg}, line {error.lineno})") from error
    yield from (record if isinstance(record, dict) else orjson.dumps(record) for record in records)


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
