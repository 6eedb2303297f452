"""Which gene was detected in which cell: the input of the empirical PMI.

Read from .h5ad by anndata, or from the compact table that ships with the package (one bit per gene and cell).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bioverify.artifacts.arrow import read_parquet, write_parquet
from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError, one_line
from bioverify.artifacts.hdf5 import open_hdf5
from bioverify.artifacts.orthologs import read_orthologs
from bioverify.artifacts.own_screens.matrix import UNREADABLE
from bioverify.artifacts.own_screens.naming import MOUSE_SHARE, share_of_mouse_names
from bioverify.artifacts.own_screens.words import is_missing
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
    layer: str = ""
    """The layer with the counts; without it ``raw``, and without that X."""
    species: Literal["human", "mouse"] | None = None
    """None: human, and a file that looks like another species is refused."""
    orthologs: Path | None = None
    """For mouse: a table of two columns, mouse name and human name."""
    name: Annotated[str, Field(min_length=1, max_length=80)]
    """What evidence calls them, after their number: "hepatocytes"."""
    license: str
    url: str = ""

    @model_validator(mode="after")
    def _mouse_needs_orthologs(self) -> Self:
        if (self.species == "mouse") != (self.orthologs is not None):
            raise ValueError("species: mouse and orthologs: FILE (mouse name, human name) go together")
        return self


def read_detection(sources: Sources, own: OwnCells | None = None) -> Detection:
    """Your own cells, else glioma cells (9,450 genes) if they are to be had, else the bundled blood cells (765).

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
        symbols, detected = read_h5ad(own.file, own.layer)
    except ArtifactError as error:
        raise ArtifactError(f"cells {own.name}: {own.file} {one_line(error)}") from None
    except UNREADABLE as error:
        raise ArtifactError(f"cells {own.name}: {own.file} is no .h5ad file ({one_line(error)})") from error
    share = share_of_mouse_names(symbols)
    if own.species is None and share >= MOUSE_SHARE:
        raise ArtifactError(
            f"cells {own.name}: {own.file} names genes as the mouse's are written ({share:.0%} of the names). Write "
            f"species: mouse and orthologs: FILE (mouse name, human name), or species: human if they are human"
        )
    if own.orthologs:
        orthologs = read_orthologs(own.orthologs)
        symbols = [orthologs.get(symbol, "") for symbol in symbols]
    record = SourceRecord(
        name=f"cells/{own.name}",
        kind="explicit",
        location=str(own.file),
        url=own.url,
        sha256=sha256_of(own.file),
        license=own.license,
    )
    return Detection(symbols, detected, own.name, record)


def read_h5ad(path: Path, layer: str = "") -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Symbols, and cells × genes: whether a count (or its logarithm) is above 0. Raw counts win over scaled ones.

    A word for "nothing" (nan) is no gene's alias, and comes back empty. Raises ArtifactError for numbers that are no
    counts, else one of `UNREADABLE`.
    """
    import anndata  # only builders have it

    open_hdf5(path).close()
    with warnings.catch_warnings():
        # Old files keep the neighbour graph where anndata no longer wants it; it is not read here.
        warnings.simplefilter("ignore")
        cells = anndata.read_h5ad(path)
    if layer and layer not in cells.layers:
        raise ArtifactError(f"has no layer {layer}; there are: {', '.join(cells.layers) or 'none'}")
    if layer:
        matrix, names, where = cells.layers[layer], cells.var_names, f"layer {layer}"
    elif cells.raw is not None:
        matrix, names, where = cells.raw.X, cells.raw.var_names, "raw.X"
    else:
        matrix, names, where = cells.X, cells.var_names, "X"
    if matrix is None:
        raise ArtifactError(f"has no X; name the layer with the counts, layer: one of {', '.join(cells.layers)}")
    stored = np.asarray(matrix.data if hasattr(matrix, "toarray") else matrix)
    if stored.dtype.kind not in "fiub":
        raise ArtifactError(f"holds {stored.dtype} in {where}; expected counts")
    n_missing, n_negative = int(np.isnan(stored).sum()), int((stored < 0).sum())
    if n_missing or n_negative:
        raise ArtifactError(
            f"holds in {where} {n_negative:,} negative and {n_missing:,} missing numbers: these are no counts but "
            f"scaled values, so whether a gene was detected cannot be seen. Name the layer with the counts: layer: NAME"
        )
    counts = matrix.toarray() if hasattr(matrix, "toarray") else stored
    return ["" if is_missing(str(name)) else str(name) for name in names], counts > 0


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
