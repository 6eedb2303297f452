"""One cell line and kind of question: neighbours, trees on their scores, and what trees' scores mean as a belief.

Perturbations are dealt into folds. Per fold, neighbours are sought among the other folds' rows and trees are fitted to
the other folds' pairs, whose own scores were made the same way. A question about a training perturbation is answered
without its fold, exactly as in the build; any other with all rows and the mean of the trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import lightgbm
import numpy as np
import numpy.typing as npt

from bioverify.core.metrics import sigmoid
from bioverify.verifiers.analogy.neighbours import Floats, Neighbours, Rows, smoothed_rate

BELIEF_DIGITS = 9


@dataclass
class LineModel:
    """``fold``: per gene of the vector table, −1 for no training perturbation. ``unit``, ``components``: per gene."""

    rows: Rows
    fold: npt.NDArray[np.int8]
    unit: Floats
    components: Floats
    trees: Sequence[lightgbm.Booster]
    scale: float = 1.0
    offset: float = 0.0

    @classmethod
    def open(
        cls,
        rows: Rows,
        unit: Floats,
        components: Floats,
        trees: Sequence[lightgbm.Booster],
        scale: float,
        offset: float,
    ) -> Self:
        """With as many folds as there are trees."""
        return cls(rows, folds_of(rows, len(trees), len(unit)), unit, components, trees, scale, offset)

    @cached_property
    def neighbours(self) -> dict[int, Neighbours]:
        """Per fold without it; under −1 with all rows."""
        rate, of_row = smoothed_rate(self.rows, len(self.unit)), self.fold[self.rows.perturbation]
        return {
            one: Neighbours(self.rows.where(of_row != one), self.unit, self.components, rate)
            for one in (-1, *np.unique(of_row).tolist())
        }

    def features(self, pairs: Rows) -> Floats:
        made: Floats | None = None
        folds = self.fold[pairs.perturbation]
        for one in np.unique(folds):
            asked = folds == one
            found = self.neighbours[int(one)].features(pairs.where(asked))
            if made is None:
                made = np.empty((len(pairs), found.shape[1]))
            made[asked] = found
        assert made is not None, "no pairs"
        return made

    def tree_logits(self, pairs: Rows, features: Floats) -> Floats:
        """Each pair by the trees that have not seen its perturbation, or by the mean of all."""
        every = np.stack([np.asarray(trees.predict(features, raw_score=True, num_threads=1)) for trees in self.trees])
        fold = self.fold[pairs.perturbation]
        own = every[np.maximum(fold, 0), np.arange(len(pairs))]
        return np.where(fold >= 0, own, every.mean(axis=0))

    def beliefs(self, pairs: Rows) -> list[float]:
        logits = self.tree_logits(pairs, self.features(pairs))
        beliefs: list[float] = sigmoid(self.scale * logits + self.offset).round(BELIEF_DIGITS).tolist()
        return beliefs


def folds_of(rows: Rows, folds: int, n_genes: int) -> npt.NDArray[np.int8]:
    """Training perturbations, sorted, by index mod folds; −1 for every other gene."""
    perturbations = np.unique(rows.perturbation)
    fold = np.full(n_genes, -1, np.int8)
    fold[perturbations] = np.arange(len(perturbations)) % folds
    return fold
