"""What a perturbation and its analogues have in common: complexes and processes of the Gene Ontology.

Only small ones tell why two genes are alike, so a set has at most `MOST_MEMBERS` genes. Complexes come before
processes, and the smaller before the larger (`telling_sets` of the build).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MOST_MEMBERS = 50
MOST_TOLD = 2


class GeneSets(NamedTuple):
    """``starts``: per gene where its own begin in ``sets``, and after the last where they end."""

    names: Sequence[str]
    starts: npt.NDArray[np.int32]
    sets: npt.NDArray[np.int32]

    def of(self, gene: int) -> set[int]:
        return set(self.sets[self.starts[gene] : self.starts[gene + 1]].tolist())

    def shared(self, gene: int, others: Sequence[int]) -> dict[str, list[int]]:
        """Name of a set → those of ``others`` whose first common set with ``gene`` it is; `MOST_TOLD` at most."""
        own = self.of(gene)
        told: dict[str, list[int]] = {}
        for other in others:
            if common := own & self.of(other):
                told.setdefault(self.names[min(common)], []).append(other)
        return dict(list(told.items())[:MOST_TOLD])
