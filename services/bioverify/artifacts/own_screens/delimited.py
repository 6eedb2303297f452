"""Text tables as people have them: any delimiter, encoding and compression, comments, R's headers, either decimal sign.

The delimiter is the one under which the header has the columns that the settings name (without settings: under which
the lines have one width); csv.Sniffer breaks ties. Arrow then reads the file as text, block by block.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.packed import open_bytes

_SAMPLE_BYTES = 1 << 20
_DELIMITERS: tuple[str, ...] = (",", "\t", ";", "|", " ")
_N_LINES = 60
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SEP_LINE = re.compile(r"sep=(?P<delimiter>.)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """How a text table is to be read. ``n_skipped``: lines before its first row."""

    delimiter: str
    encoding: str
    header: tuple[str, ...]
    n_skipped: int
    sample: tuple[tuple[str, ...], ...]
    """The first rows."""

    @property
    def remarks(self) -> list[str]:
        names = {"\t": "tabs", ";": "semicolons", "|": "bars", " ": "spaces"}
        told = [f"columns are separated by {names[self.delimiter]}"] if self.delimiter in names else []
        return told + ([f"the text is {self.encoding.upper()}"] if self.encoding not in {"utf-8", "utf-8-sig"} else [])


def see_layout(path: Path, fits: Callable[[Sequence[str]], bool]) -> Layout:
    """``fits``: whether a header has the columns that are wanted. Raises ArtifactError, or one of `UNREADABLE`."""
    with open_bytes(path) as file:
        sample = file.read(_SAMPLE_BYTES)
    if not sample.strip():
        raise ArtifactError("is empty")
    if sample.startswith((b"PAR1", b"\x89HDF", b"RDX", b"X\n")):
        raise ArtifactError("is compressed, and no text. Unpack it; R's own files have to be written by write.csv")
    encoding = _encoding(sample)
    text = sample.decode(encoding, "ignore" if len(sample) == _SAMPLE_BYTES else "strict")
    if "\0" in text:
        raise ArtifactError("is no text table: it holds zero bytes")
    lines = text.splitlines()
    if len(sample) == _SAMPLE_BYTES:
        lines = lines[:-1]
    n_before, delimiters = 0, _DELIMITERS
    comments: list[str] = []
    for line in lines:
        if match := _SEP_LINE.fullmatch(line):
            delimiters = (match["delimiter"],)
        elif line.startswith("#"):
            comments.append(line)
        elif line.strip():
            break
        n_before += 1
    body = lines[n_before:]
    if not body:
        raise ArtifactError("holds comments and no table")
    found = list(_layouts(body, comments, n_before, encoding, (*_sniffed(body, delimiters), *delimiters)))
    if not found:
        raise ArtifactError("is no table: no delimiter parts its lines")
    fitting = [layout for layout in found if fits(layout.header)]
    return next(iter(fitting or sorted(found, key=lambda one: -len(one.header))))


def _encoding(sample: bytes) -> str:
    for bom, name in _BOMS:
        if sample.startswith(bom):
            return name
    # Text of a spreadsheet saved as "Unicode", without its mark: every other byte is 0.
    if sample[1:400:2].count(0) > 0.9 * len(sample[1:400:2]) > 0:
        return "utf-16-le"
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(sample) - error.start > 4 or len(sample) < _SAMPLE_BYTES:
            return "latin-1"
    return "utf-8"


def _sniffed(lines: Sequence[str], delimiters: Sequence[str]) -> Iterator[str]:
    try:
        yield csv.Sniffer().sniff("\n".join(lines[:_N_LINES]), "".join(delimiters)).delimiter
    except csv.Error:
        return


def _layouts(
    body: Sequence[str], comments: Sequence[str], n_before: int, encoding: str, delimiters: Sequence[str]
) -> Iterator[Layout]:
    """One per delimiter, and one more if the last comment is a header; those with lines of one width first."""
    uneven: list[Layout] = []
    for delimiter in dict.fromkeys(delimiters):
        try:
            rows = [row for row in csv.reader(body, delimiter=delimiter) if row]
        except csv.Error:  # a field without an end: not this delimiter
            continue
        if not rows:
            continue
        header, width = rows[0], len(rows[1] if len(rows) > 1 else rows[0])
        if width == len(header) + 1:
            header = ["", *header]  # R's write.table names no row names
        sample = tuple(map(tuple, rows[1:]))
        layout = Layout(delimiter, encoding, tuple(_plain(header)), n_before + 1, sample)
        is_even = width > 1 and all(len(row) == len(header) for row in rows[:_N_LINES])
        if is_even:
            yield layout
        else:
            uneven.append(layout)
        if comments:
            above = next(csv.reader([comments[-1].lstrip("# ")], delimiter=delimiter), [])
            if len(above) == len(rows[0]) > 1:
                yield Layout(delimiter, encoding, tuple(_plain(above)), n_before, tuple(map(tuple, rows)))
    yield from uneven


def _plain(header: Sequence[str]) -> list[str]:
    """Only the first column may lack a name; a delimiter at the end of the lines makes others."""
    names = [name.strip().strip("\ufeff'\"") for name in header]
    return [name or (f"column {number}" if number > 1 else "") for number, name in enumerate(names, 1)]


def read_blocks(path: Path, layout: Layout, columns: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
    """The named columns as texts. Raises ArtifactError for a row of another width, or one of `UNREADABLE`."""
    positions = {column: str(layout.header.index(column)) for column in columns}
    for column in columns:
        if layout.header.count(column) > 1:
            raise ArtifactError(f"has {layout.header.count(column)} columns called {column}")
    wrong: list[str] = []

    def skip(row: pacsv.InvalidRow) -> str:
        if row.text.startswith("#"):
            return "skip"
        at = f"line {row.number}" if row.number is not None else "a line"
        wrong.append(f'{at} has {row.actual_columns} columns, the header {row.expected_columns}: "{row.text[:60]}"')
        return "error"

    names = [str(position) for position in range(len(layout.header))]
    with open_bytes(path) as file:
        try:
            reader = pacsv.open_csv(
                file,
                read_options=pacsv.ReadOptions(
                    column_names=names,
                    skip_rows=layout.n_skipped,
                    use_threads=False,
                    block_size=1 << 22,
                    encoding="utf8" if layout.encoding.startswith("utf-8") else layout.encoding,
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=list(dict.fromkeys(positions.values())),
                    strings_can_be_null=False,
                ),
            )
            for batch in reader:
                yield {column: batch.column(position) for column, position in positions.items()}
        except (pa.ArrowException, StopIteration) as error:
            if wrong:
                raise ArtifactError(wrong[0]) from None
            if "Empty CSV" in str(error):
                return
            raise
