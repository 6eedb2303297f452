"""Opens the file of a screen: its first bytes say what it is, and whatever is wrong with it is one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from bioverify.artifacts import packed
from bioverify.artifacts.errors import ArtifactError, one_line
from bioverify.artifacts.own_screens import delimited, matrix, parquet
from bioverify.artifacts.own_screens.forms import Taken, find, guess, take
from bioverify.artifacts.own_screens.numbers import Decimal, NumberColumn, decimal_of
from bioverify.artifacts.own_screens.rows import Rows, TableRows
from bioverify.artifacts.own_screens.settings import Columns, FormName, OwnScreen, ScreenError

_PARQUET, _HDF5, _ZIP, _OLD_OFFICE = b"PAR1", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_TABLE_ENDINGS = {".parquet": _PARQUET, ".pq": _PARQUET, ".h5ad": _HDF5, ".h5": _HDF5}
_NAME_OF = {_PARQUET: "Parquet file", _HDF5: "HDF5 file"}


def open_screen(screen: OwnScreen) -> Rows:
    """Raises ArtifactError for a file that cannot be read, or a column that is not there."""
    try:
        return _open(screen)
    except ScreenError:
        raise
    except ArtifactError as error:
        raise screen.refuse(error) from error.__cause__
    except (*packed.UNREADABLE, *matrix.UNREADABLE) as error:
        why = one_line(error) or type(error).__name__
        raise screen.refuse(f"cannot be read ({why}). Is it whole, and what its name says?") from error


def guess_columns(path: Path) -> tuple[FormName | None, Columns]:
    """What a file's columns are by their names, for a first look. Raises ArtifactError for what is no table."""
    try:
        start = _starts(path)
        refuse_office(path, start)
        if start.startswith(_HDF5):
            return None, matrix.guess_columns(path)
        if start.startswith(_PARQUET):
            return guess(parquet.header(path))
        return guess(delimited.see_layout(path, lambda header: False).header)
    except ArtifactError as error:
        raise ArtifactError(f"{path} {one_line(error)}") from error.__cause__
    except (*packed.UNREADABLE, *matrix.UNREADABLE) as error:
        raise ArtifactError(f"{path} cannot be read ({one_line(error)})") from error


def _open(screen: OwnScreen) -> Rows:
    if not screen.file.is_file():
        raise screen.refuse("is no file. Correct file: in the settings")
    start = _starts(screen.file)
    expected = _TABLE_ENDINGS.get(screen.file.suffix.lower())
    if expected and not start.startswith(expected):
        raise screen.refuse(f"is no {_NAME_OF[expected]}, whatever its name says, or it was cut short")
    refuse_office(screen.file, start)
    if start.startswith(_HDF5):
        return matrix.MatrixRows(screen)
    if start.startswith(_PARQUET):
        header = parquet.header(screen.file)
        return _table(screen, header, partial(parquet.read_blocks, screen.file), {}, [])
    layout = delimited.see_layout(screen.file, partial(_fits, screen))
    wanted = take(screen, layout.header)
    decimals = {name: _decimal(screen, layout, name) for name in wanted.numbers}
    remarks = layout.remarks
    if commas := [name for name, sign in decimals.items() if sign == ","]:
        remarks.append(f"decimal commas in {', '.join(commas)}")
    return _table(screen, layout.header, partial(delimited.read_blocks, screen.file, layout), decimals, remarks)


def _table(
    screen: OwnScreen,
    header: Sequence[str],
    blocks: Callable[[Sequence[str]], Iterator[dict[str, pa.Array]]],
    decimals: dict[str, Decimal],
    remarks: list[str],
) -> Rows:
    taken: Taken = take(screen, header)
    kind = next((found for one in matrix.KIND_COLUMNS if (found := find(header, one))), "")
    numbers = {name: NumberColumn(name, decimals.get(name, screen.decimal or ".")) for name in taken.numbers}
    rows = TableRows(screen, taken, numbers, kind, remarks)
    for batch in blocks([*taken.all, kind] if kind and kind not in taken.all else taken.all):
        rows.add(batch)
    return rows.finished()


def _starts(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def refuse_office(file: Path, start: bytes) -> None:
    """Workbooks are not read, because what a spreadsheet made of gene names cannot be seen in them."""
    if start.startswith((_ZIP, _OLD_OFFICE)):
        if file.suffix.lower() in {".zip", ".npz"}:
            raise ArtifactError("is an archive. Unpack it, and name the table that is in it")
        text = os.fspath(file.with_suffix(".csv").name)
        raise ArtifactError(
            f"is a workbook. Write it as text: python -c \"import pandas; pandas.read_excel('{file.name}', dtype=str)"
            f".to_csv('{text}', index=False)\". Look for dates first: Excel turns MARCH1 and SEPT2 into 1-Mar and 2-Sep"
        )


def _fits(screen: OwnScreen, header: Sequence[str]) -> bool:
    try:
        take(screen, header)
    except ArtifactError:
        return False
    return True


def _decimal(screen: OwnScreen, layout: delimited.Layout, column: str) -> Decimal:
    if screen.decimal:
        return screen.decimal
    at = layout.header.index(column)
    texts = [row[at] for row in layout.sample if at < len(row)]
    seen = decimal_of(texts, layout.delimiter)
    if seen is None:
        # One sign serves the whole file.
        others = [
            decimal_of([row[at] for row in layout.sample if at < len(row)], layout.delimiter)
            for at in range(len(layout.header))
        ]
        has_points = any("." in cell and _is_number(cell) for row in layout.sample for cell in row)
        seen = "," if "," in others else "." if has_points else None
    if seen is None:
        example = next(text for text in texts if "," in text)
        raise screen.refuse(
            f'holds {example} in {column}, which may be a decimal comma or not: write decimal: "," or "."'
        )
    return seen


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
