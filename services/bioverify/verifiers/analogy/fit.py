"""Fits one line: kriging, trees on out-of-fold scores (LightGBM, MIT; one thread, fixed seed), weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import lightgbm
import numpy as np
import numpy.typing as npt

from bioverify.core.metrics import fit_logistic, fit_within
from bioverify.verifiers.analogy.kept import Floats, Kept, Rows
from bioverify.verifiers.analogy.model import LineModel, both_forms, folds_of, logit
from bioverify.verifiers.analogy.neighbours import (
    FEATURE_DIGITS,
    GENE_RATE,
    Neighbours,
    krige,
    names_of_features,
)

FOLDS = 3
KEPT_BYTES = 256 * 2**20
"""Every perturbation's weights are asked for again and again, gene by gene."""
ROUNDS = 120
TREE_PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}


def fit(
    rows: Rows, others: Sequence[Rows], unit: Floats, components: Floats, folds: int, seed: int
) -> tuple[LineModel, Floats, Floats]:
    """The model of a line's training rows, and the rows' out-of-fold scores (× SCORES) and logits of belief.

    ``others``: `LineModel.others`. ``folds``: at least three, as trees are fitted to scores that lack two of them.
    """
    fold = folds_of(rows, folds, len(unit))
    of_row = fold[rows.perturbation]
    solved = np.zeros((folds + 1, len(rows)), np.float32)
    for one in (*range(folds), -1):
        solved[one, of_row != one] = krige(rows.where(of_row != one), unit)
    model = LineModel(rows, fold, unit, components, solved, [], Kept(KEPT_BYTES), others)
    features, scored = model.neighbours.features(rows.perturbation, rows.gene)
    without_two = _features_without_two(model)
    plain, beyond = [], []
    for one in range(folds):
        learned = of_row != one
        told = features.copy()
        for other in range(folds):
            if other != one:
                told[of_row == other] = without_two[min(one, other), max(one, other)][other]
        label_alone, beyond_rate = both_forms(told[learned])
        names = names_of_features(len(others))
        start = logit(told[learned, GENE_RATE])
        plain.append(_trees(lightgbm.Dataset(label_alone, rows.label[learned], feature_name=names), seed))
        names.remove("gene_rate")
        data = lightgbm.Dataset(beyond_rate, rows.label[learned], init_score=start, feature_name=names)
        beyond.append(_trees(data, seed))
    model.trees = [*plain, *beyond]
    design = model.design(rows.perturbation, rows.gene, features, scored)
    model.weights = _weights(design, rows, of_row)
    return model, scored, model.logits(design)


def _features_without_two(model: LineModel) -> dict[tuple[int, int], dict[int, Floats]]:
    """Per pair of folds, features of the rows of either that are made without both."""
    rows, of_row = model.rows, model.fold[model.rows.perturbation]
    no_fold = np.full_like(model.fold, -1)
    made: dict[tuple[int, int], dict[int, Floats]] = {}
    for pair in combinations(range(len(model.solved) - 1), 2):
        outside = rows.where(~np.isin(of_row, pair))
        solved = krige(outside, model.unit)[None, :]
        elsewhere = [one.where(~np.isin(model.fold[one.perturbation], pair)) for one in model.others]
        without = Neighbours(outside, no_fold, model.unit, model.components, solved, Kept(KEPT_BYTES), elsewhere)
        made[pair] = {}
        for one in pair:
            asked = rows.where(of_row == one)
            features, _ = without.features(asked.perturbation, asked.gene)
            # Within a gene the rate has to be constant (`Neighbours`).
            features[:, GENE_RATE] = model.neighbours.rate[asked.gene].round(FEATURE_DIGITS)
            made[pair][one] = features
    return made


def _trees(data: lightgbm.Dataset, seed: int) -> lightgbm.Booster:
    return lightgbm.train({**TREE_PARAMETERS, "seed": seed}, data, num_boost_round=ROUNDS)


def _weights(design: Floats, rows: Rows, fold: npt.NDArray[np.int8]) -> list[float]:
    """The parts by how they rank a gene's rows; then their sum, the gene's rate and the offset together."""
    rate, parts = design[:, :1], design[:, 1:]
    group = rows.gene.astype(np.int64) * 128 + fold
    ranking = fit_within(parts, rows.label, np.column_stack([group] * parts.shape[1]))
    of_rate, scale, offset = fit_logistic(np.column_stack([rate, parts @ ranking]), rows.label).tolist()
    return [of_rate, *(scale * ranking).tolist(), offset]
