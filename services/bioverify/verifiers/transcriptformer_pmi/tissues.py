"""The matrix of tissues: two genes are expressed in the same tissues more than others are.

A table of expression (TPM, one column per tissue, named ``data set:tissue``) becomes one vector per gene:
log2(TPM + 1), each tissue's mean over genes and then the gene's mean over tissues taken off, length 1, data set by data
set, so that neither the depth of a tissue nor the difference between two projects makes genes alike. The inner product
of two vectors is the mean of the data sets' correlations. The matrix is never written out: it has 300 million numbers,
the vectors a million.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bioverify.artifacts.errors import ArtifactError
from bioverify.core.genes import GeneResolver
from bioverify.verifiers.transcriptformer_pmi.factors import Singles

LEAST_TPM = 1.0
"""A gene below it in every tissue is not expressed: what is measured of it is noise."""
_NAME_COLUMNS = ("ensembl_gene_id", "symbol")


@dataclass(frozen=True)
class Tissues:
    """``vectors``: one row per symbol. ``n_genes``: of the table, ``data_sets``: by name, in order."""

    symbols: list[str]
    vectors: Singles
    n_genes: int
    n_tissues: int
    data_sets: tuple[str, ...]


def read_tissues(path: Path, resolver: GeneResolver) -> Tissues:
    """The genes with a current symbol, by their Ensembl id, else by their symbol, and a value in every tissue.

    Of two rows of one gene the first counts. Raises ArtifactError for a table that is none.
    """
    try:
        tissues, row_of, n_genes = _rows(path, resolver)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArtifactError(f"{path}: neither text in UTF-8 nor a whole .gz of it ({error})") from error
    try:
        tpm = np.array(list(row_of.values()), np.float64).reshape(len(row_of), len(tissues))
    except ValueError as error:
        raise ArtifactError(f"{path}: a value of expression is no number ({error})") from error
    if not (np.isfinite(tpm) & (tpm >= 0.0)).all():
        raise ArtifactError(f"{path}: a value of expression is negative or not finite; expected TPM, which is neither")
    expressed = tpm.max(axis=1, initial=0.0) >= LEAST_TPM
    if expressed.sum() < 2:
        raise ArtifactError(f"{path}: of {n_genes:,} genes {int(expressed.sum())} are known and expressed")
    of_tissue = np.array([tissue.partition(":")[0] for tissue in tissues])
    data_sets = tuple(dict.fromkeys(of_tissue.tolist()))
    symbols = [symbol for symbol, is_kept in zip(row_of, expressed, strict=True) if is_kept]
    vectors = profiles(tpm[expressed], [of_tissue == one for one in data_sets])
    return Tissues(symbols, vectors, n_genes, len(tissues), data_sets)


def profiles(tpm: npt.NDArray[np.float64], data_sets: Sequence[npt.NDArray[np.bool_]]) -> Singles:
    """One vector of length 1 per gene. ``data_sets``: which columns are whose."""
    level = np.log2(tpm + 1.0)
    parts = []
    for columns in data_sets:
        own = level[:, columns]
        own = own - own.mean(axis=0)
        own -= own.mean(axis=1, keepdims=True)
        parts.append(own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-9))
    joined: Singles = (np.hstack(parts) / np.sqrt(len(parts))).astype(np.float32)
    return joined


def _rows(path: Path, resolver: GeneResolver) -> tuple[list[str], dict[str, list[str]], int]:
    """The columns' tissues, each known gene's values as they are written, and the number of rows."""
    row_of: dict[str, list[str]] = {}
    n_genes = 0
    with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else nullcontext(file) as content:
        lines = (line.decode("utf-8") for line in content)
        rows = csv.reader(lines, delimiter="\t")
        header = next(rows, [])
        tissues = header[len(_NAME_COLUMNS) :]
        if (
            tuple(header[: len(_NAME_COLUMNS)]) != _NAME_COLUMNS
            or len(tissues) < 2
            or not all(":" in t for t in tissues)
        ):
            raise ArtifactError(
                f"{path}: expected tab-separated columns {', '.join(_NAME_COLUMNS)}, then one per tissue, each named "
                f"data set:tissue; found {', '.join(header[:4]) or 'nothing'}"
            )
        for number, row in enumerate(rows, 2):
            n_genes += 1
            if len(row) != len(header):
                raise ArtifactError(f"{path}, line {number}: {len(row)} columns, expected {len(header)}")
            symbol = resolver.resolve(row[0])
            if not isinstance(symbol, str):
                symbol = resolver.resolve(row[1])
            if isinstance(symbol, str) and all(row):
                row_of.setdefault(symbol, row[len(_NAME_COLUMNS) :])
    return tissues, row_of, n_genes
