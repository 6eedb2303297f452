"""The empirical matrix: two genes are detected in one cell more often than by chance, or less often.

    PMI(a, b) = log((n_ab + s·e/N) / (e·(1 + s/N))),   e = n_a·n_b/N

with n_ab of N cells in which both are detected, and s pseudo-cells that are distributed as if the genes were
independent, which draws rare pairs towards 0. NPMI divides it by −log of the pair's probability: −1 never together, 0
independent, 1 only together. Genes detected in less than a tenth of the cells are left out, and of the rest those are
kept whose detection varies most: a gene seen in every cell says nothing about any other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bioverify.core.genes import GeneResolver
from bioverify.verifiers.transcriptformer_pmi.scaling import Halves

MIN_DETECTED_SHARE = 0.1
PSEUDO_CELLS = 5.0


def informative_genes(
    symbols: list[str], detected: npt.NDArray[np.bool_], resolver: GeneResolver, max_genes: int
) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Current symbols in order, and their columns. Of two columns of one gene, the one detected more often stays."""
    n_detected = detected.sum(axis=0)
    column_of: dict[str, int] = {}
    resolver = resolver.of_column(symbols)
    for column in np.argsort(-n_detected, kind="stable").tolist():
        symbol = resolver.resolve(symbols[column])
        if isinstance(symbol, str) and n_detected[column] >= MIN_DETECTED_SHARE * len(detected):
            column_of.setdefault(symbol, column)
    share = n_detected / len(detected)
    by_variance = sorted(
        column_of, key=lambda symbol: (-share[column_of[symbol]] * (1 - share[column_of[symbol]]), symbol)
    )
    kept = sorted(by_variance[:max_genes])
    return kept, detected[:, [column_of[symbol] for symbol in kept]]


def pmi_matrix(detected: npt.NDArray[np.bool_], *, normalised: bool = False) -> Halves:
    """Symmetric, in nats, or from −1 to 1. ``detected``: cells × genes; each gene in at least one cell."""
    n_cells = len(detected)
    counts = detected.astype(np.float32)
    together = counts.T @ counts  # whole numbers below 2²⁴, so exact
    n_detected = counts.sum(axis=0)
    expected = np.outer(n_detected, n_detected) / np.float32(n_cells)
    together += np.float32(PSEUDO_CELLS / n_cells) * expected
    surprise = -np.log(together / np.float32(n_cells + PSEUDO_CELLS)) if normalised else None
    together /= expected * np.float32(1.0 + PSEUDO_CELLS / n_cells)
    pmi = np.log(together)
    if surprise is not None:
        # Two genes that are in every cell are independent, 0 over 0.
        pmi = np.divide(pmi, surprise, out=np.zeros_like(pmi), where=surprise > 1e-6)
    halves: Halves = pmi.astype(np.float16)
    return halves
