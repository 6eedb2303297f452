"""Rows of a table as lines of JSON, the form that everything else reads.

The columns are the fields of an item (`bioverify.client.json_form`); others are left out. Arrow fills what a row does
not have with nulls, down into structs, so nulls are taken for absent, but for the completion's own. Text that a library
keeps as bytes is UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bioverify.client.json_form import ItemJson

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1024


def json_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows, as the fields that an item has."""
    known = table.select([name for name in ItemJson.model_fields if name in table.column_names])
    for batch in known.to_batches(max_chunksize=BATCH_ROWS):
        for row in batch.to_pylist():
            fields = without_nulls(row)
            if "completion" in row:
                fields.setdefault("completion", None)
            yield fields


def without_nulls(value: Any) -> Any:
    """The value without the nulls that Arrow fills in, at any depth."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    if isinstance(value, bytes):
        # What is no UTF-8 stays what it is, and is refused by its name.
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value
