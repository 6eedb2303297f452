"""Parquet tables, with what pandas and Arrow write into them: nulls, categories, an index without a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_ROWS = 1 << 18


def header(path: Path) -> list[str]:
    with pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def read_blocks(path: Path, columns: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
    """Raises pyarrow's exceptions for a damaged file."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns), use_threads=False):
            yield {column: batch.column(column) for column in columns}
