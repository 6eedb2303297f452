"""Tables as builders read and write them, by pyarrow: Parquet for people, Arrow streams for services."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

# Arrow's own allocator keeps what was freed.
pa.set_memory_pool(pa.system_memory_pool())


def read_parquet(path: Path) -> pa.Table:
    """With little memory: one thread, no data set layer, nothing kept of the file."""
    with pq.ParquetFile(path) as file:
        return file.read(use_threads=False)


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=9)


def write_served(table: pa.Table, path: Path) -> None:
    """As `bioverify.artifacts.tables` reads it: one batch, no compression. Raises ValueError for a null."""
    for name in table.column_names:
        if missing := table[name].null_count:
            raise ValueError(f"{path.name}: {missing} of {table.num_rows} values of {name} are missing")
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table.combine_chunks())
