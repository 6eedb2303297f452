"""Your own screen: a table of differential expression (CSV, TSV, Parquet) or an AnnData file (``.h5ad``).

A `OwnScreen` names the columns. What a row says is either a label (1 responds, 0 does not) or a log fold change with an
adjusted p-value: the gene responds where the p-value is at most ``max_adjusted_p`` and the log fold change at least
``min_abs_log_fold_change`` in size, and its sign is the direction. A row without a number there (a gene that the test
left out) was not measured. In an AnnData file rows are perturbations and columns are genes: ``perturbation`` and
``cell_line`` are columns of ``obs``, ``measured_gene`` of ``var`` (or "index" for their names), and ``label``,
``log_fold_change`` and ``adjusted_p`` are layers (or "X").
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.screens import screen_rows
from bioverify.artifacts.store import SourceRecord
from bioverify.core.tasks import TaskKind, canonical_cell_line

_TEXTS = ("perturbation", "measured_gene", "cell_line", "split")
_NUMBERS = ("label", "log_fold_change", "adjusted_p")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Strict):
    """Names in the file; empty: the file has no such column. Without ``split`` every row is a training row."""

    perturbation: str
    measured_gene: str
    cell_line: str = ""
    label: str = ""
    log_fold_change: str = ""
    adjusted_p: str = ""
    split: str = ""

    @model_validator(mode="after")
    def _says_what_was_seen(self) -> Self:
        has_both = bool(self.log_fold_change and self.adjusted_p)
        if bool(self.label) == has_both or (self.label and (self.log_fold_change or self.adjusted_p)):
            raise ValueError("name either the column label, or the columns log_fold_change and adjusted_p")
        return self


class OwnScreen(_Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,47}$")]
    """What evidence calls it."""
    file: Path
    columns: Columns
    cell_line: str = ""
    """Of the whole file, where no column says it."""
    max_adjusted_p: float = Field(default=0.05, gt=0, le=1)
    min_abs_log_fold_change: float = Field(default=0.0, ge=0)
    license: str
    url: str = ""

    @model_validator(mode="after")
    def _has_one_cell_line(self) -> Self:
        if bool(self.cell_line) == bool(self.columns.cell_line):
            raise ValueError("name either cell_line, or the column cell_line")
        return self

    @property
    def record(self) -> SourceRecord:
        return SourceRecord(
            name=f"screen/{self.name}",
            kind="explicit",
            location=str(self.file),
            url=self.url,
            sha256=sha256_of(self.file),
            license=self.license,
        )


def read_own_screen(screen: OwnScreen) -> pa.Table:
    """Rows in the form of `screen_rows`. Raises ArtifactError for a file or column that is not there."""
    if not screen.file.is_file():
        raise ArtifactError(f"screen {screen.name}: {screen.file} is no file. Correct file: in the settings")
    table = _read_h5ad(screen) if screen.file.suffix == ".h5ad" else _read_table(screen)
    if screen.columns.label:
        label = table["label"]
        wrong = pc.unique(label.filter(pc.invert(pc.is_in(label, value_set=pa.array([0.0, 1.0]))))).to_pylist()
        if any(value is not None for value in wrong):
            raise ArtifactError(
                f"screen {screen.name}: {screen.columns.label} of {screen.file} holds {wrong[0]}; expected 0 or 1"
            )
        table = table.filter(pc.is_valid(label))
        responds, increases = table["label"].to_numpy() == 1.0, None
    else:
        is_tested = pc.and_(pc.is_finite(table["log_fold_change"]), pc.is_finite(table["adjusted_p"]))
        table = table.filter(pc.fill_null(is_tested, fill_value=False))
        change = table["log_fold_change"].to_numpy()
        is_large = np.abs(change) >= screen.min_abs_log_fold_change
        responds = (table["adjusted_p"].to_numpy() <= screen.max_adjusted_p) & is_large & (change != 0.0)
        increases = change > 0.0
    kinds = [_rows_by_line(screen, table, TaskKind.DIFFERENTIAL_EXPRESSION, responds)]
    if increases is not None:
        changed = pa.array(responds)
        kinds.append(_rows_by_line(screen, table.filter(changed), TaskKind.DIRECTION_OF_CHANGE, increases[responds]))
    return pa.concat_tables(kinds).unify_dictionaries()


def _rows_by_line(screen: OwnScreen, table: pa.Table, kind: TaskKind, label: np.ndarray) -> pa.Table:
    n_rows = table.num_rows
    label_column = pa.chunked_array([pa.array(label.astype(np.int8))])
    split = table["split"] if screen.columns.split else pa.chunked_array([pa.repeat(pa.scalar("train"), n_rows)])
    tables = []
    written = pc.unique(table["cell_line"]).to_pylist() if screen.columns.cell_line else [screen.cell_line]
    for line in written:
        chosen = pc.equal(table["cell_line"], line) if screen.columns.cell_line else pa.repeat(pa.scalar(True), n_rows)
        tables.append(
            screen_rows(
                canonical_cell_line(line),
                kind,
                perturbation=table["perturbation"].filter(chosen),
                measured_gene=table["measured_gene"].filter(chosen),
                label=label_column.filter(chosen),
                split=split.filter(chosen),
            )
        )
    return pa.concat_tables(tables).unify_dictionaries()


def _named(screen: OwnScreen, names: tuple[str, ...]) -> dict[str, str]:
    """Meaning → name in the file, of those that the file has."""
    return {name: written for name in names if (written := getattr(screen.columns, name))}


def _read_table(screen: OwnScreen) -> pa.Table:
    texts, numbers = _named(screen, _TEXTS), _named(screen, _NUMBERS)
    written = [*texts.values(), *numbers.values()]
    try:
        if screen.file.suffix == ".parquet":
            table = pq.read_table(screen.file, columns=written)
        else:
            # A gene may be named NA, so no text is read as a missing value; a number may well be missing.
            types = {**dict.fromkeys(texts.values(), pa.string()), **dict.fromkeys(numbers.values(), pa.float64())}
            table = pacsv.read_csv(
                screen.file,
                parse_options=pacsv.ParseOptions(delimiter="\t" if ".tsv" in screen.file.suffixes else ","),
                convert_options=pacsv.ConvertOptions(
                    column_types=types, include_columns=written, strings_can_be_null=False
                ),
            )
        columns = {name: table[column].cast(pa.string()) for name, column in texts.items()}
        columns |= {name: table[column].cast(pa.float64()) for name, column in numbers.items()}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
        raise ArtifactError(
            f"screen {screen.name}: {screen.file} is no table with the columns {', '.join(written)}: {error}"
        ) from error
    return pa.table(columns)


def _read_h5ad(screen: OwnScreen) -> pa.Table:
    import anndata  # only builders have it

    cells = anndata.read_h5ad(screen.file)
    n_perturbations, n_genes = cells.shape

    def texts(frame: Any, where: str, written: str) -> np.ndarray:
        if written != "index" and written not in frame.columns:
            raise ArtifactError(
                f"screen {screen.name}: {where} of {screen.file} has no column {written}; "
                f"there are: index, {', '.join(map(str, frame.columns))}"
            )
        return np.asarray(frame.index if written == "index" else frame[written], dtype=str)

    columns: dict[str, pa.Array] = {}
    for name, written in _named(screen, _TEXTS).items():
        if name == "measured_gene":
            columns[name] = pa.array(np.tile(texts(cells.var, "var", written), n_perturbations))
        else:
            columns[name] = pa.array(np.repeat(texts(cells.obs, "obs", written), n_genes))
    for name, written in _named(screen, _NUMBERS).items():
        if written != "X" and written not in cells.layers:
            raise ArtifactError(
                f"screen {screen.name}: {screen.file} has no layer {written}; there are: X, {', '.join(cells.layers)}"
            )
        matrix = cells.X if written == "X" else cells.layers[written]
        dense = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
        columns[name] = pa.array(dense.astype(np.float64).ravel(), from_pandas=True)  # NaN: not measured
    return pa.table(columns)
