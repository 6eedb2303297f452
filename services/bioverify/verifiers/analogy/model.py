"""One cell line and kind of question: neighbours, kriging, trees, and what they mean together as a belief.

Perturbations are dealt into folds. Per fold, neighbours are sought among the other folds' rows and trees are fitted to
the other folds' pairs, whose own scores were made the same way. A question about a training perturbation is answered
without its fold, exactly as in the build; any other with all rows and the mean of the trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import lightgbm
import numpy as np
import numpy.typing as npt

from bioverify.core.metrics import sigmoid
from bioverify.verifiers.analogy.neighbours import FEATURES, SCORES, Floats, Neighbours, Rows, smoothed_rate

BELIEF_DIGITS = 9


@dataclass
class LineModel:
    """``fold``: per gene of the vector table, −1 for no training perturbation. ``unit``, ``components``: per gene.

    ``solved``: kriging's weights, one row per fold without it and a last one with all; zero outside.
    ``weights``: of gene rate (as a logit), neighbours, kriging and trees in the logit of the belief, and the offset.
    """

    rows: Rows
    fold: npt.NDArray[np.int8]
    unit: Floats
    components: Floats
    solved: npt.NDArray[np.float32]
    trees: Sequence[lightgbm.Booster]
    weights: Sequence[float] = ()

    @cached_property
    def rate(self) -> Floats:
        return smoothed_rate(self.rows, len(self.unit))

    @cached_property
    def neighbours(self) -> dict[int, Neighbours]:
        """Per fold without it; under −1 with all rows."""
        of_row = self.fold[self.rows.perturbation]
        return {
            one: Neighbours(
                self.rows.where(of_row != one),
                self.unit,
                self.components,
                self.rate,
                self.solved[one][of_row != one].astype(np.float64),
            )
            for one in (-1, *np.unique(of_row).tolist())
        }

    def features(self, pairs: Rows) -> tuple[Floats, Floats]:
        """pairs × FEATURES, which trees read, and pairs × SCORES."""
        made, scored = np.empty((len(pairs), len(FEATURES))), np.empty((len(pairs), len(SCORES)))
        folds = self.fold[pairs.perturbation]
        for one in np.unique(folds):
            asked = folds == one
            made[asked], scored[asked] = self.neighbours[int(one)].features(pairs.where(asked))
        return made, scored

    def tree_logits(self, pairs: Rows, features: Floats) -> Floats:
        """Each pair by the trees that have not seen its perturbation, or by the mean of all."""
        every = np.stack([np.asarray(trees.predict(features, raw_score=True, num_threads=1)) for trees in self.trees])
        fold = self.fold[pairs.perturbation]
        own = every[np.maximum(fold, 0), np.arange(len(pairs))]
        return np.where(fold >= 0, own, every.mean(axis=0))

    def design(self, pairs: Rows, features: Floats, scored: Floats) -> Floats:
        """What ``weights`` count, one column each."""
        rate = self.rate[pairs.gene]
        return np.column_stack([np.log(rate / (1.0 - rate)), 10.0 * scored, self.tree_logits(pairs, features)])

    def logits(self, design: Floats) -> Floats:
        made: Floats = design @ np.asarray(self.weights[:-1]) + self.weights[-1]
        return made

    def beliefs(self, pairs: Rows) -> list[float]:
        logits = self.logits(self.design(pairs, *self.features(pairs)))
        beliefs: list[float] = sigmoid(logits).round(BELIEF_DIGITS).tolist()
        return beliefs


def folds_of(rows: Rows, folds: int, n_genes: int) -> npt.NDArray[np.int8]:
    """Training perturbations, sorted, by index mod folds; −1 for every other gene."""
    perturbations = np.unique(rows.perturbation)
    fold = np.full(n_genes, -1, np.int8)
    fold[perturbations] = np.arange(len(perturbations)) % folds
    return fold
