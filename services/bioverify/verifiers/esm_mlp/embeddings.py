"""Vectors per gene from files: protein language models, text models, any table of one's own.

Accepted forms, by ending: ``.h5`` as TranscriptFormer keeps its protein embeddings (a data set ``keys`` of gene ids and
a group ``arrays`` with one vector per id; TF-Sapiens' ``homo_sapiens_gene.h5`` holds ESM2-3B under Ensembl ids);
``.npz`` with the arrays ``symbols`` and ``vectors``; ``.safetensors`` with a tensor ``vectors`` and the symbols as a
JSON list in its metadata; ``.parquet`` with a column ``symbol`` and a list column ``vector``. Any name that the gene
resolver knows may stand for a gene. Several tables become one: each is centred, brought to the length √weight per gene,
and put beside the others; a gene that one of them lacks has zeros there. The whole is then of mean square 1.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bioverify.artifacts.arrow import read_parquet
from bioverify.artifacts.errors import ArtifactError, one_line
from bioverify.artifacts.hdf5 import open_hdf5
from bioverify.artifacts.own_screens.words import is_missing
from bioverify.artifacts.vectors import Vectors, leading
from bioverify.core.genes import GeneResolver

SOURCE_NAME = "gene_vectors"
"""`bioverify data build esm_mlp --source gene_vectors.NAME=FILE`; NAME is how evidence calls the vectors."""


UNREADABLE = (
    *(KeyError, ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError),
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
)
"""What the libraries raise for a file that is damaged, or of another form."""


@dataclass(frozen=True)
class GeneVectors:
    """``vectors``: one row per symbol, in order. ``name`` as evidence says it."""

    name: str
    symbols: list[str]
    vectors: Vectors


def read_vectors(path: Path) -> tuple[list[str], Vectors]:
    """Names as the file writes them, and one vector each. Raises ArtifactError for any other form."""
    try:
        names, vectors = _read(path)
        single = np.asarray(vectors, dtype=np.float32)
    except UNREADABLE as error:
        why = one_line(error) or type(error).__name__
        raise ArtifactError(f"gene vectors {path}: not in the form that its ending says ({why})") from error
    if single.ndim != 2 or len(names) != len(single) or not len(names):
        raise ArtifactError(f"gene vectors {path}: {len(names)} names, vectors of shape {single.shape}")
    if not np.isfinite(single).all():
        raise ArtifactError(f"gene vectors {path}: some values are not finite")
    return [_text(name) for name in names], single


def _read(path: Path) -> tuple[Sequence[object], npt.ArrayLike]:
    match path.suffix.lower():
        case ".h5":
            return _read_h5(path)
        case ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return arrays["symbols"].tolist(), arrays["vectors"]
        case ".safetensors":
            return _read_safetensors(path)
        case ".parquet":
            columns = read_parquet(path)
            return columns["symbol"].to_pylist(), np.array(columns["vector"].to_pylist())
    raise ArtifactError(f"gene vectors {path}: expected .h5, .npz, .safetensors or .parquet")


def _text(name: object) -> str:
    """Names are texts, bytes in many files of NumPy and HDF5, or numbers. One that says nothing comes back empty."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else "" if name is None else str(name)
    return "" if is_missing(text) else text


def write_vectors(path: Path, symbols: Sequence[str], vectors: Vectors) -> None:
    """The ``.safetensors`` form."""
    from safetensors.numpy import save_file

    save_file({"vectors": np.ascontiguousarray(vectors)}, path, metadata={"symbols": json.dumps(list(symbols))})


def beside(tables: Sequence[GeneVectors], weights: Sequence[float] | None = None) -> GeneVectors:
    """One table of all genes of all tables, sorted; see the module's head for scaling and gaps.

    ``weights``: how much each table counts in the likeness of two genes, whatever its number of dimensions; equal
    without.
    """
    weights = weights or [1.0] * len(tables)
    total = sum(table.vectors.shape[1] for table in tables) / sum(weights)
    symbols = sorted(set().union(*(table.symbols for table in tables)))
    row = {symbol: index for index, symbol in enumerate(symbols)}
    parts = []
    for table, weight in zip(tables, weights, strict=True):
        centred = table.vectors.astype(np.float64) - table.vectors.mean(axis=0, dtype=np.float64)
        lengths = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
        part = np.zeros((len(symbols), centred.shape[1]), np.float32)
        part[[row[symbol] for symbol in table.symbols]] = np.sqrt(weight * total) * centred / lengths
        parts.append(part)
    return GeneVectors(" + ".join(table.name for table in tables), symbols, np.concatenate(parts, axis=1))


def reduced(table: GeneVectors, dimensions: int | None) -> GeneVectors:
    """The table in its ``dimensions`` leading principal directions (`leading`); narrower ones as they are."""
    vectors = leading(table.vectors, dimensions)
    if vectors is table.vectors:
        return table
    return GeneVectors(f"{table.name}, PCA {dimensions}-d", table.symbols, vectors)


def _read_h5(path: Path) -> tuple[list[str], Vectors]:
    try:
        file = open_hdf5(path)
    except ArtifactError as error:
        raise ArtifactError(f"gene vectors {path}: {error}") from None
    with file:
        names = [_text(key) for key in file["keys"][:]]
        return names, np.stack([file["arrays"][name][()] for name in names]).astype(np.float32)


def _read_safetensors(path: Path) -> tuple[list[str], Vectors]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = json.loads((file.metadata() or {})["symbols"])
            return names, file.get_tensor("vectors")
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def under_current_symbols(
    name: str, written: list[str], vectors: Vectors, resolver: GeneResolver, path: Path
) -> GeneVectors:
    """The first vector of each gene; names that are unknown or ambiguous are left out."""
    first: dict[str, int] = {}
    for index, one in enumerate(written):
        symbol = resolver.resolve(one)
        if isinstance(symbol, str):
            first.setdefault(symbol, index)
    if not first:
        raise ArtifactError(f"gene vectors {path}: no name is that of a human gene; the first is {written[0]!r}")
    return GeneVectors(name, list(first), vectors[list(first.values())])


def mean_per_gene(names: Mapping[str, Sequence[int]], vectors: Vectors) -> tuple[list[str], Vectors]:
    """Several sequences or texts of a gene become their mean, as TranscriptFormer does with proteins of one gene."""
    return list(names), np.stack([vectors[list(rows)].mean(axis=0) for rows in names.values()])
