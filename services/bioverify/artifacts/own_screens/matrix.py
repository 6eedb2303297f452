"""Perturbations × genes in an AnnData file (``.h5ad``), streamed by rows, so that a genome-wide screen needs no memory.

``perturbation``, ``cell_line`` and ``split`` are columns of ``obs``, ``measured_gene`` of ``var`` ("index": their
names); the numbers are layers ("X": the matrix itself). A cell without a number (NaN) was not measured. A layer of
p-values that is stored sparse is refused: what is not stored there would read as p = 0.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.hdf5 import open_hdf5
from bioverify.artifacts.own_screens.forms import INDEX, Taken, find, guess
from bioverify.artifacts.own_screens.numbers import Floats, label_responses
from bioverify.artifacts.own_screens.rows import (
    Block,
    Codes,
    Int8s,
    Int32s,
    Responses,
    refuse_other_kinds,
    what_is_taken,
)
from bioverify.artifacts.own_screens.settings import Columns, OwnScreen

_BLOCK_CELLS = 2_000_000
KIND_COLUMNS = ("perturbation_type", "perturbation_modality", "modality", "crispr_type")
"""In which data sets say whether it was a knockdown; scPerturb has the first."""
UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError, NotImplementedError)
"""What h5py and anndata raise for a damaged file."""


@dataclass(frozen=True)
class _Frame:
    """``obs`` or ``var``. ``column``: its values, None for a missing one."""

    index: Sequence[object]
    columns: Sequence[str]
    column: Callable[[str], Sequence[object]]


class MatrixRows:
    """Opened once for the names and once for the blocks; nothing of the matrices is kept."""

    def __init__(self, screen: OwnScreen) -> None:
        """Raises ArtifactError that names the axis or layer, or one of `UNREADABLE`."""
        self._screen = screen
        if screen.form:
            raise screen.refuse(
                f"is a matrix, and form: {screen.form} is of tables. Name obs, var and layers: columns:"
            )
        self.unread: Counter[str] = Counter()
        with open_hdf5(screen.file) as file:
            obs, var = _frame(file, "obs"), _frame(file, "var")
            self._shape = (len(obs.index), len(var.index))
            layers = [*(["X"] if "X" in file else []), *file.get("layers", {})]
            self.columns = self._take(obs, var, layers)
            self._codes: dict[str, tuple[Codes, Int32s]] = {}
            for meaning in ("perturbation", "measured_gene", "cell_line", "split"):
                names = Codes()
                frame, axis = (var, 1) if meaning == "measured_gene" else (obs, 0)
                if meaning in self.columns.texts:
                    codes = names.of(_texts(frame, self.columns.texts[meaning]))
                else:
                    codes = np.full(self._shape[axis], names.code(getattr(screen, meaning, "train")), np.int32)
                self._codes[meaning] = names, codes
            for column in KIND_COLUMNS:
                if column in obs.columns:
                    kinds = Codes()
                    kinds.of(_texts(obs, column))
                    refuse_other_kinds(screen, f"obs.{column}", kinds.names)
            self.remarks = [f"{self._shape[0]:,} perturbations × {self._shape[1]:,} genes"]
            self._look_at_layers(file)

    @property
    def perturbations(self) -> Sequence[str]:
        return self._codes["perturbation"][0].names

    @property
    def measured_genes(self) -> Sequence[str]:
        return self._codes["measured_gene"][0].names

    @property
    def lines(self) -> Sequence[str]:
        return self._codes["cell_line"][0].names

    @property
    def splits(self) -> Sequence[str]:
        return self._codes["split"][0].names

    @property
    def taken(self) -> Mapping[str, str]:
        return what_is_taken(self._screen, self.columns)

    def blocks(self) -> Iterator[Block]:
        n_rows, n_genes = self._shape
        step = max(1, _BLOCK_CELLS // max(1, n_genes))
        genes = self._codes["measured_gene"][1]
        responses = Responses(self._screen, self.columns)
        try:
            with open_hdf5(self._screen.file) as file:
                read = {name: _reader(file, name) for name in (self.columns.label, *self.columns.numbers) if name}
                for start in range(0, n_rows, step):
                    end = min(start + step, n_rows)
                    matrices = {name: one(start, end) for name, one in read.items()}
                    yield Block(
                        perturbation=np.repeat(self._codes["perturbation"][1][start:end], n_genes),
                        measured_gene=np.tile(genes, end - start),
                        line=np.repeat(self._codes["cell_line"][1][start:end], n_genes),
                        split=np.repeat(self._codes["split"][1][start:end], n_genes),
                        response=self._response(matrices, responses),
                    )
        except UNREADABLE as error:
            raise self._screen.refuse(f"cannot be read to its end ({error}). Copy or download it again") from error
        if not self.columns.label:
            self.remarks += responses.remarks()

    def _response(self, matrices: Mapping[str, Floats], responses: Responses) -> Int8s:
        if self.columns.label:
            numbers = matrices[self.columns.label]
            texts, position = np.unique(numbers, return_inverse=True)
            return np.array([self._response_of[f"{number:g}"] for number in texts], np.int8)[position]
        return responses.of(
            matrices[self.columns.log_fold_change], [matrices[name] for name in self.columns.adjusted_p]
        )

    def _take(self, obs: _Frame, var: _Frame, layers: Sequence[str]) -> Taken:
        named = self._screen.columns

        def column(where: str, there: Sequence[str], wanted: str) -> str:
            found = find(there, wanted)
            if found is None:
                has = "layer" if where == "layers" else f"column of {where} called"
                raise self._screen.refuse(f"has no {has} {wanted}; there are: {', '.join(there) or 'none'}")
            return found

        of_obs, of_var = [INDEX, *obs.columns], [INDEX, *var.columns]
        texts = {
            meaning: column("var", of_var, written) if meaning == "measured_gene" else column("obs", of_obs, written)
            for meaning in ("perturbation", "measured_gene", "cell_line", "split")
            if (written := getattr(named, meaning))
        }
        if named.label:
            return Taken(texts, column("layers", layers, named.label), "", ())
        change = column("layers", layers, named.log_fold_change)
        return Taken(texts, "", change, (column("layers", layers, named.adjusted_p),))

    def _look_at_layers(self, file: Any) -> None:
        """Shapes, sparse p-values, and all labels, which say together what each of them means."""
        for name in (self.columns.label, *self.columns.numbers):
            if not name:
                continue
            node = _node(file, name)
            shape = tuple(
                int(n)
                for n in (node.attrs.get("shape", node.attrs.get("h5sparse_shape")) if _is_sparse(node) else node.shape)
            )
            if shape != self._shape:
                raise self._screen.refuse(f"has {shape} numbers in {name}; obs × var are {self._shape}")
            if _is_sparse(node) and name in self.columns.adjusted_p:
                raise self._screen.refuse(
                    f"stores the p-values of {name} sparse, so those that are not stored would read as p = 0. "
                    f"Store the layer dense, with NaN for what was not tested"
                )
        if self.columns.label:
            read, found = _reader(file, self.columns.label), set()
            step = max(1, _BLOCK_CELLS // max(1, self._shape[1]))
            for start in range(0, self._shape[0], step):
                found |= {
                    f"{number:g}" for number in np.unique(read(start, min(start + step, self._shape[0]))).tolist()
                }
                if len(found) > 100:
                    break
            try:
                self._response_of = label_responses(sorted(found))
            except ArtifactError as error:
                raise self._screen.refuse(f"in {self.columns.label} {error}") from None


def guess_columns(path: Path) -> Columns:
    """What the axes and layers of a matrix say as far as their names tell. Raises one of `UNREADABLE`."""
    with open_hdf5(path) as file:
        obs, var = _frame(file, "obs").columns, _frame(file, "var").columns
        layers = guess([*file.get("layers", {})])[1]
    of_obs = guess([INDEX, *obs])[1]
    return Columns(
        perturbation=guess(obs)[1].perturbation or INDEX,
        measured_gene=guess(var)[1].measured_gene or INDEX,
        cell_line=of_obs.cell_line,
        split=of_obs.split,
        label=layers.label,
        log_fold_change=layers.log_fold_change or ("" if layers.label else "X"),
        adjusted_p=layers.adjusted_p,
    )


def _frame(file: Any, name: str) -> _Frame:
    from anndata.io import read_elem

    if name not in file:
        raise ArtifactError(f"has no {name}: it is no AnnData file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old files that anndata still reads
        read = read_elem(file[name])
    if not isinstance(read, np.ndarray):

        def column(name: str) -> Sequence[object]:
            series = read[name]
            if getattr(series, "ndim", 1) > 1:
                raise ArtifactError(f"has more than one column called {name}")
            values: Sequence[object] = series.astype(object).where(series.notna(), None).tolist()
            return values

        return _Frame(read.index.tolist(), [str(one) for one in read.columns], column)
    # Before anndata 0.7 a table is one compound data set, whose categories are elsewhere.
    index, *columns = read.dtype.names
    categories = {one: file[path][()] for one in columns if (path := f"uns/{one}_categories") in file}

    def old_column(name: str) -> Sequence[object]:
        if name not in categories:
            return list(read[name])
        return [None if code < 0 else categories[name][code] for code in read[name].tolist()]

    return _Frame(read[index].tolist(), columns, old_column)


def _texts(frame: _Frame, column: str) -> pa.Array:
    values = frame.index if column == INDEX and INDEX not in frame.columns else frame.column(column)
    # NaN is not equal to itself.
    return pa.array([None if value is None or value != value else _text(value) for value in values], pa.string())


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _node(file: Any, name: str) -> Any:
    return file["X"] if name == "X" and "X" in file else file["layers"][name]


def _is_sparse(node: Any) -> bool:
    return not hasattr(node, "dtype")


def _reader(file: Any, name: str) -> Callable[[int, int], Floats]:
    """Rows from start to end of a matrix, as one flat array."""
    from anndata.io import sparse_dataset

    node = _node(file, name)
    if not _is_sparse(node):
        if node.dtype.kind not in "fiub":
            raise ArtifactError(f"holds {node.dtype} in {name}; expected numbers")
        return lambda start, end: np.asarray(node[start:end], np.float64).ravel()
    stored = sparse_dataset(node)
    rows = stored.to_memory().tocsr() if stored.format == "csc" else stored
    return lambda start, end: np.asarray(rows[start:end].toarray(), np.float64).ravel()
