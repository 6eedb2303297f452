"""Which gene was detected in which cell: the input of the empirical PMI.

Read from .h5ad by anndata, or from the compact table that ships with the package (one bit per gene and cell).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from bioverify.artifacts.arrow import read_parquet, write_parquet
from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.sources import BLOOD_CELLS, GLIOMA_CELLS, Sources
from bioverify.artifacts.store import SourceRecord

_CELLS_OF = {GLIOMA_CELLS.name: "oligodendroglioma cells", BLOOD_CELLS.name: "peripheral blood cells (PBMC)"}


@dataclass(frozen=True)
class Detection:
    """``detected``: bool, cells × genes; ``symbols`` as the data set writes them."""

    symbols: list[str]
    detected: npt.NDArray[np.bool_]
    cells: str
    """Whose cells, to be said in evidence after their number: "oligodendroglioma cells"."""
    record: SourceRecord


class OwnCells(BaseModel):
    """Cells of your own, with raw counts or their logarithms, and any names of genes that the resolver knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    """``.h5ad``."""
    name: Annotated[str, Field(min_length=1, max_length=80)]
    """What evidence calls them, after their number: "hepatocytes"."""
    license: str
    url: str = ""


def read_detection(sources: Sources, own: OwnCells | None = None) -> Detection:
    """Your own cells, else glioma cells (9,450 genes) where they are to be had, else the bundled blood cells (765).

    Raises ArtifactError for cells of your own that cannot be read.
    """
    if own is not None:
        return _read_own(own)
    located = sources.find(GLIOMA_CELLS) or sources.locate(BLOOD_CELLS)
    if located.path.suffix == ".parquet":
        symbols, detected = _read_compact(located.path)
    else:
        symbols, detected = read_h5ad(located.path)
    return Detection(symbols, detected, _CELLS_OF[located.source.name], located.record)


def _read_own(own: OwnCells) -> Detection:
    if not own.file.is_file():
        raise ArtifactError(f"cells {own.name}: {own.file} is no file. Correct transcriptformer_pmi.cells.file")
    try:
        symbols, detected = read_h5ad(own.file)
    except (OSError, KeyError, ValueError) as error:
        raise ArtifactError(f"cells {own.name}: {own.file} is no .h5ad file ({error})") from error
    record = SourceRecord(
        name=f"cells/{own.name}",
        kind="explicit",
        location=str(own.file),
        url=own.url,
        sha256=sha256_of(own.file),
        license=own.license,
    )
    return Detection(symbols, detected, own.name, record)


def read_h5ad(path: Path) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Symbols, and cells × genes: whether a count (or its logarithm) is above 0. Raw counts win over scaled ones."""
    import anndata  # only builders have it

    with warnings.catch_warnings():
        # Old files keep the neighbour graph where anndata no longer wants it; it is not read here.
        warnings.simplefilter("ignore")
        cells = anndata.read_h5ad(path)
    matrix, names = (cells.X, cells.var_names) if cells.raw is None else (cells.raw.X, cells.raw.var_names)
    counts = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
    return [str(name) for name in names], counts > 0


def write_compact(symbols: list[str], detected: npt.NDArray[np.bool_], path: Path) -> None:
    n_cells = detected.shape[0]
    bits = [np.packbits(column).tobytes() for column in detected.T]
    table = pa.table({"symbol": symbols, "detected": pa.array(bits, pa.binary())})
    write_parquet(table.replace_schema_metadata({"n_cells": str(n_cells)}), path)


def _read_compact(path: Path) -> tuple[list[str], npt.NDArray[np.bool_]]:
    table = read_parquet(path)
    n_cells = int(table.schema.metadata[b"n_cells"])
    rows = [np.unpackbits(np.frombuffer(bits, np.uint8), count=n_cells) for bits in table["detected"].to_pylist()]
    return table["symbol"].to_pylist(), np.stack(rows, axis=1).astype(bool)
