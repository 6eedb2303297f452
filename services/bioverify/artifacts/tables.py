"""Reading Parquet files with little memory: one thread, no data set layer, nothing kept of the file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Arrow's own allocator keeps what was freed; the tables here become Python objects and are then let go.
pa.set_memory_pool(pa.system_memory_pool())


def read_table(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read(use_threads=False)


def write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=9)
