"""From pointwise mutual information to a belief in [0, 1].

Negative values count as 0. The cutoff is the 99th percentile of all pairs: the top 1 % are "yes". Two min-max pieces
meet at it: 0 … cutoff becomes 0 … 0.5, cutoff … maximum becomes 0.5 … 1.

Source of the formula: rbio's public development history.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

YES_PERCENTILE = 99.0
N_QUANTILES = 10_001

Floats = npt.NDArray[np.float64]
Halves = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Scaling:
    """``cutoff`` and ``maximum`` in nats, 0 < cutoff < maximum; ``quantiles``: evenly spaced, of all distinct pairs."""

    cutoff: float
    maximum: float
    quantiles: Floats

    def beliefs(self, pmi: Floats) -> Floats:
        """P("yes") of each value, non-decreasing in it."""
        clamped = np.clip(pmi, 0.0, self.maximum)
        below = 0.5 * clamped / self.cutoff
        above = 0.5 + 0.5 * (clamped - self.cutoff) / (self.maximum - self.cutoff)
        return np.where(clamped < self.cutoff, below, above)

    def percentiles(self, pmi: Floats) -> Floats:
        """Share of pairs below each value, in percent."""
        below = np.searchsorted(self.quantiles, pmi, side="left") / (len(self.quantiles) - 1)
        ranked: Floats = np.minimum(100.0 * below, 100.0)
        return ranked

    def spread(self) -> list[tuple[int, float]]:
        """Every fourth percentile and the value at it: as much as a picture of the distribution takes."""
        last = len(self.quantiles) - 1
        return [(percent, float(self.quantiles[percent * last // 100])) for percent in range(0, 101, 4)]


def fit_scaling(parts: Iterable[Halves]) -> Scaling:
    """The scaling for the values of all distinct pairs of different genes. Raises ValueError if it has no pieces.

    The values may come in parts: half precision has 65,536 numbers, so counting them gives exact quantiles of any many.
    """
    counts = np.zeros(2**16, np.int64)
    for part in parts:
        counts += np.bincount(np.ascontiguousarray(part).ravel().view(np.uint16), minlength=2**16)
    present = np.flatnonzero(counts)
    numbers = present.astype(np.uint16).view(np.float16).astype(np.float64)
    order = np.argsort(numbers)
    numbers, n_up_to = numbers[order], np.cumsum(counts[present][order])
    if not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError("PMI is to be finite, of at least two genes")
    position = np.linspace(0.0, 1.0, N_QUANTILES) * (n_up_to[-1] - 1)
    low, high = (
        numbers[np.searchsorted(n_up_to, rounded, side="right")] for rounded in (np.floor(position), np.ceil(position))
    )
    quantiles = low + (high - low) * (position - np.floor(position))
    clamped = np.maximum(quantiles, 0.0)
    cutoff = float(clamped[round((N_QUANTILES - 1) * YES_PERCENTILE / 100.0)])
    maximum = float(clamped[-1])
    if not 0.0 < cutoff < maximum:
        raise ValueError(f"PMI has no top 1 % above 0: 99th percentile {cutoff}, maximum {maximum}")
    return Scaling(cutoff, maximum, quantiles)
