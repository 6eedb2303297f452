"""Makes the ``transcriptformer_pmi`` artifact: a gene × gene matrix in half precision, its symbols and its scaling.

This builder makes an *empirical* matrix from real cells, not TranscriptFormer's: two genes are detected together more
often than by chance, or less often,

    PMI(a, b) = log((n_ab + s·e/N) / (e·(1 + s/N))),   e = n_a·n_b/N

with n_ab of N cells in which both are detected, and s pseudo-cells that are distributed as if the genes were
independent, which draws rare pairs towards 0. Genes detected in less than a tenth of the cells are left out, and of the
rest those are kept whose detection varies most: a gene seen in every cell says nothing about any other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bioverify.artifacts.cells import read_detection
from bioverify.artifacts.genes import open_genes
from bioverify.artifacts.prompts import CO_EXPRESSION_FILE
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.artifacts.tables import write_table
from bioverify.core.genes import GeneResolver
from bioverify.verifiers.transcriptformer_pmi.scaling import N_QUANTILES, YES_PERCENTILE, Scaling, fit_scaling

NAME = "transcriptformer_pmi"
MATRIX_FILE = "pmi.npy"
SYMBOLS_FILE = "symbols.parquet"
SCALING_FILE = "scaling.npy"
"""Quantiles of all pairs; the cutoff and the maximum are parameters in the manifest."""
MAX_PAIRS_PER_LABEL = 20_000

MIN_DETECTED_SHARE = 0.1
MAX_GENES = 5_400  # 58 MB
PSEUDO_CELLS = 5.0


def build(store: ArtifactStore, sources: Sources, *, progress: Callable[[str], None]) -> Manifest:
    """Make the artifact from single cells: glioma where they are to be had, else the bundled blood cells."""
    resolver, genes = open_genes(store)
    data = read_detection(sources)
    n_cells = data.detected.shape[0]
    progress(f"transcriptformer_pmi: {n_cells} {data.cells}, {len(data.symbols):,} genes ({data.record.kind})")
    symbols, detected = informative_genes(data.symbols, data.detected, resolver)
    matrix = pmi_matrix(detected)
    scaling = fit_scaling(matrix[np.triu_indices(len(symbols), k=1)])
    progress(f"transcriptformer_pmi: {len(symbols):,} genes, 99th percentile of PMI {scaling.cutoff:.2f}")
    with store.building(NAME) as folder:
        np.save(folder.path / MATRIX_FILE, matrix, allow_pickle=False)
        np.save(folder.path / SCALING_FILE, scaling.quantiles, allow_pickle=False)
        write_table(pa.table({"symbol": symbols}), folder.path / SYMBOLS_FILE)
        write_table(training_pairs(symbols, matrix, scaling), folder.path / CO_EXPRESSION_FILE)
        return folder.commit(
            description=f"Empirical PMI of {n_cells} {data.cells}, not TranscriptFormer.",
            license=data.record.license,
            sources=[data.record],
            inputs=[genes],
            parameters={
                "origin": f"empirical PMI of {n_cells} {data.cells}, not TranscriptFormer",
                "cutoff": scaling.cutoff,
                "maximum": scaling.maximum,
                "pseudo_cells": PSEUDO_CELLS,
                "min_detected_share": MIN_DETECTED_SHARE,
                "max_genes": MAX_GENES,
            },
            counts={"cells": n_cells, "genes_of_data_set": len(data.symbols), "genes": len(symbols)},
        )


def training_pairs(symbols: list[str], matrix: npt.NDArray[np.float16], scaling: Scaling) -> pa.Table:
    """Pairs to ask about: of the top 1 % as "yes" (label 1), as many of the bottom 1 % as "no" (label 0).

    Source of the shares: rbio's public development history, whose script took the top for both by mistake.
    """
    first, second = np.triu_indices(len(symbols), k=1)
    values = matrix[first, second]
    bottom = scaling.quantiles[round((N_QUANTILES - 1) * (1 - YES_PERCENTILE / 100))]
    chosen = [np.flatnonzero(values <= bottom), np.flatnonzero(values >= scaling.cutoff)]
    n_pairs = min(MAX_PAIRS_PER_LABEL, *map(len, chosen))
    rng = np.random.default_rng(0)
    rows = np.concatenate([np.sort(rng.choice(indices, n_pairs, replace=False)) for indices in chosen])
    names = pa.array(symbols)
    return pa.table(
        {
            "gene_a": names.take(pa.array(first[rows])),
            "gene_b": names.take(pa.array(second[rows])),
            "label": pa.array(np.repeat([0, 1], n_pairs), pa.int8()),
        }
    )


def informative_genes(
    symbols: list[str], detected: npt.NDArray[np.bool_], resolver: GeneResolver
) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Current symbols in order, and their columns. Of two columns of one gene, the one detected more often stays."""
    n_detected = detected.sum(axis=0)
    column_of: dict[str, int] = {}
    for column in np.argsort(-n_detected, kind="stable").tolist():
        symbol = resolver.resolve(symbols[column])
        if isinstance(symbol, str) and n_detected[column] >= MIN_DETECTED_SHARE * len(detected):
            column_of.setdefault(symbol, column)
    share = n_detected / len(detected)
    by_variance = sorted(
        column_of, key=lambda symbol: (-share[column_of[symbol]] * (1 - share[column_of[symbol]]), symbol)
    )
    kept = sorted(by_variance[:MAX_GENES])
    return kept, detected[:, [column_of[symbol] for symbol in kept]]


def pmi_matrix(detected: npt.NDArray[np.bool_]) -> npt.NDArray[np.float16]:
    """Symmetric, in nats. ``detected``: cells × genes; each gene in at least one cell."""
    n_cells = len(detected)
    counts = detected.astype(np.float32)
    together = counts.T @ counts  # whole numbers below 2²⁴, so exact
    n_detected = counts.sum(axis=0)
    expected = np.outer(n_detected, n_detected) / np.float32(n_cells)
    together += np.float32(PSEUDO_CELLS / n_cells) * expected
    together /= expected * np.float32(1.0 + PSEUDO_CELLS / n_cells)
    pmi: npt.NDArray[np.float16] = np.log(together).astype(np.float16)
    return pmi
