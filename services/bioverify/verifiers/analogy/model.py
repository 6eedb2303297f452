"""One cell line and kind of question: neighbours, kriging, trees, and what they mean together as a belief.

Perturbations are dealt into folds. Per fold, neighbours are sought among the other folds' rows and trees are fitted to
the other folds' pairs, whose own scores were made without that fold too: trees that have seen a fold's labels only
through their neighbours have seen them. A question about a training perturbation is answered without its fold, exactly
as in the build; any other with all rows and the mean of the trees.

Trees are fitted twice, to the label, and to what it is beyond the gene's rate, whose logit they start from; their logit
is the mean of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import lightgbm
import numpy as np
import numpy.typing as npt

from bioverify.core.knockdowns import rows_outside_folds
from bioverify.core.metrics import sigmoid
from bioverify.verifiers.analogy.kept import Floats, Ints, Kept, Rows
from bioverify.verifiers.analogy.neighbours import GENE_RATE, Neighbours

BELIEF_DIGITS = 9


@dataclass
class LineModel:
    """``fold``: per gene of the vector table, −1 for no training perturbation. ``unit``, ``components``: per gene.

    ``solved``: kriging's weights, one row per fold without it and a last one with all; zero outside.
    ``kept``: profiles of genes and perturbations, for all lines together.
    ``others``: of other lines, one each, without what this line tests (`Elsewhere`).
    ``trees``: per fold, and again per fold those that start from the gene's rate.
    ``weights``: of gene rate (as a logit), neighbours, kriging and trees in the logit of the belief, and the offset.
    """

    rows: Rows
    fold: npt.NDArray[np.int8]
    unit: Floats
    components: Floats
    solved: npt.NDArray[np.float32]
    trees: Sequence[lightgbm.Booster]
    kept: Kept
    others: Sequence[Rows] = ()
    weights: Sequence[float] = ()

    @cached_property
    def neighbours(self) -> Neighbours:
        return Neighbours(self.rows, self.fold, self.unit, self.components, self.solved, self.kept, self.others)

    @cached_property
    def has_rows(self) -> npt.NDArray[np.bool_]:
        return rows_outside_folds(self.rows.perturbation, self.rows.gene, self.fold, len(self.solved) - 1)

    def tree_logits(self, perturbations: Ints, features: Floats) -> Floats:
        """Each pair by the trees that have not seen its perturbation, or by the mean of all."""
        fold = self.fold[perturbations]
        folds = len(self.trees) // 2
        logits = logit(features[:, GENE_RATE]) / 2.0
        for number in range(folds):
            asked = (fold == number) | (fold < 0)
            if asked.any():
                share = np.where(fold[asked] < 0, 0.5 / folds, 0.5)
                for trees, told in zip(self.trees[number::folds], both_forms(features[asked]), strict=True):
                    logits[asked] += share * np.asarray(trees.predict(told, raw_score=True, num_threads=1))
        return logits

    def design(self, perturbations: Ints, genes: Ints, features: Floats, scored: Floats) -> Floats:
        """What ``weights`` count, one column each."""
        trees = self.tree_logits(perturbations, features)
        return np.column_stack([logit(self.neighbours.rate[genes]), 10.0 * scored, trees])

    def rates(self, perturbations: Ints, genes: Ints) -> Floats:
        """The rate that ``weights`` and trees count, which is of all rows; NaN if the answer is made without any."""
        known = self.has_rows[self.fold[perturbations], genes]
        rates: Floats = np.where(known, self.neighbours.rate[genes], np.nan)
        return rates

    def logits(self, design: Floats) -> Floats:
        made: Floats = design @ np.asarray(self.weights[:-1]) + self.weights[-1]
        return made

    def beliefs(self, perturbations: Ints, genes: Ints) -> list[float]:
        features, scored = self.neighbours.features(perturbations, genes)
        logits = self.logits(self.design(perturbations, genes, features, scored))
        beliefs: list[float] = sigmoid(logits).round(BELIEF_DIGITS).tolist()
        return beliefs


def both_forms(features: Floats) -> tuple[Floats, Floats]:
    """What trees are told that are fitted to the label, and to what it is beyond the gene's rate."""
    return features, np.delete(features, GENE_RATE, axis=1)


def logit(rate: Floats) -> Floats:
    made: Floats = np.log(rate / (1.0 - rate))
    return made


def folds_of(rows: Rows, folds: int, n_genes: int) -> npt.NDArray[np.int8]:
    """Training perturbations, sorted, by index mod folds; −1 for every other gene."""
    perturbations = np.unique(rows.perturbation)
    fold = np.full(n_genes, -1, np.int8)
    fold[perturbations] = np.arange(len(perturbations)) % folds
    return fold
