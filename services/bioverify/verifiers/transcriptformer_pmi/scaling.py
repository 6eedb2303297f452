"""From pointwise mutual information to a belief in [0, 1].

Negative values count as 0. The cutoff is the 99th percentile of all pairs: the top 1 % are "yes". Two min-max pieces
meet at it: 0 … cutoff becomes 0 … 0.5, cutoff … maximum becomes 0.5 … 1.

Source of the formula: rbio's public development history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

YES_PERCENTILE = 99.0
N_QUANTILES = 10_001

Floats = npt.NDArray[np.float64]


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


def fit_scaling(values: npt.NDArray[np.float16]) -> Scaling:
    """The scaling for the values of all distinct pairs of different genes. Raises ValueError where it has no pieces."""
    quantiles = np.quantile(values.astype(np.float32), np.linspace(0.0, 1.0, N_QUANTILES)).astype(np.float64)
    clamped = np.maximum(quantiles, 0.0)
    cutoff = float(clamped[round((N_QUANTILES - 1) * YES_PERCENTILE / 100.0)])
    maximum = float(clamped[-1])
    if not 0.0 < cutoff < maximum:
        raise ValueError(f"PMI has no top 1 % above 0: 99th percentile {cutoff}, maximum {maximum}")
    return Scaling(cutoff, maximum, quantiles)
