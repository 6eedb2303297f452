"""What another cell line saw under like perturbations: its training rows, as far as they give nothing away.

A line's tested perturbations are left out of the others' rows for it (strict transfer), and so is, for a question about
a training perturbation, its fold. The score is that of `neighbours` for the measured gene alone, with one width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bioverify.core.knockdowns import smoothed_rates
from bioverify.verifiers.analogy.kept import Floats, Ints, Kept, Rows

WIDTH = 0.1
SHRINKAGE = 0.3
STRENGTH_ROWS = 10.0
TOLD = ("score", "rate", "strength")
"""Of a pair: how much more often than usual the gene responded there under like perturbations, how often it does, and
how much more often than usual genes respond to perturbations like this one."""


class _Weights(NamedTuple):
    kernel: Floats
    strength: float


class Elsewhere:
    """The rows of one other line."""

    def __init__(self, rows: Rows, fold: npt.NDArray[np.int8], unit: Floats, kept: Kept) -> None:
        """``rows``: at least one. ``fold``: of the line that is asked about, per gene, −1 for none."""
        self._fold, self._unit, self._kept = fold, unit, kept
        self._rate = smoothed_rates(rows.gene, rows.label, len(unit))
        self._perturbations, of_row = np.unique(rows.perturbation, return_inverse=True)
        order = np.argsort(rows.gene, kind="stable")
        self._starts = np.searchsorted(rows.gene[order], np.arange(len(unit) + 1))
        self._of_row = of_row[order].astype(np.int32)
        residual = rows.label - self._rate[rows.gene]
        self._residual = residual[order].astype(np.float32)
        self._sums = np.bincount(of_row, residual), np.bincount(of_row)

    def features(self, perturbations: Ints, genes: Ints) -> Floats:
        """Of each pair TOLD."""
        asked, of_pair = np.unique(perturbations, return_inverse=True)
        weights = self._weights(asked)
        kernels = np.stack([one.kernel for one in weights])
        counts = self._starts[genes + 1] - self._starts[genes]
        pair = np.repeat(np.arange(len(genes)), counts)
        row = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts - self._starts[genes], counts)
        weight = kernels[of_pair[pair], self._of_row[row]]
        above = np.bincount(pair, weight * self._residual[row], len(genes))
        made = np.empty((len(genes), len(TOLD)))
        made[:, 0] = above / (np.bincount(pair, weight, len(genes)) + SHRINKAGE)
        made[:, 1] = self._rate[genes]
        made[:, 2] = np.array([one.strength for one in weights])[of_pair]
        return made

    def _weights(self, asked: Ints) -> list[_Weights]:
        known = [self._kept.get((id(self), row)) for row in asked.tolist()]
        missing = np.flatnonzero([one is None for one in known])
        if len(missing):
            kernels = np.exp((self._unit[asked[missing]] @ self._unit[self._perturbations].T - 1.0) / WIDTH)
            own = self._fold[asked[missing]]
            kernels[(own[:, None] >= 0) & (own[:, None] == self._fold[self._perturbations])] = 0.0
            strength = (kernels @ self._sums[0]) / (kernels @ self._sums[1] + STRENGTH_ROWS)
            for at, kernel, one in zip(missing.tolist(), kernels, strength.tolist(), strict=True):
                # Copied, or a single one that is kept would keep all that were made with it.
                known[at] = _Weights(kernel.copy(), one)
                self._kept.put((id(self), int(asked[at])), known[at], kernel.nbytes)
        return known
