"""Fits one line: kriging, trees on out-of-fold neighbour scores (LightGBM, MIT; one thread, fixed seed), weights."""

from __future__ import annotations

import lightgbm
import numpy as np
import numpy.typing as npt

from bioverify.core.metrics import fit_logistic, fit_within
from bioverify.verifiers.analogy.model import LineModel, folds_of
from bioverify.verifiers.analogy.neighbours import FEATURES, Floats, Kept, Rows, krige

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


def fit(rows: Rows, unit: Floats, components: Floats, folds: int, seed: int) -> tuple[LineModel, Floats, Floats]:
    """The model of a line's training rows, and the rows' out-of-fold scores (× SCORES) and logits of belief."""
    fold = folds_of(rows, folds, len(unit))
    of_row = fold[rows.perturbation]
    solved = np.zeros((folds + 1, len(rows)), np.float32)
    for one in (*range(folds), -1):
        solved[one, of_row != one] = krige(rows.where(of_row != one), unit)
    model = LineModel(rows, fold, unit, components, solved, [], Kept(KEPT_BYTES))
    features, scored = model.neighbours.features(rows.perturbation, rows.gene)
    model.trees = [
        lightgbm.train(
            {**TREE_PARAMETERS, "seed": seed},
            lightgbm.Dataset(features[of_row != one], rows.label[of_row != one], feature_name=list(FEATURES)),
            num_boost_round=ROUNDS,
        )
        for one in range(folds)
    ]
    design = model.design(rows.perturbation, rows.gene, features, scored)
    model.weights = _weights(design, rows, of_row)
    return model, scored, model.logits(design)


def _weights(design: Floats, rows: Rows, fold: npt.NDArray[np.int8]) -> list[float]:
    """The parts by how they rank a gene's rows; then their sum, the gene's rate and the offset together."""
    rate, parts = design[:, :1], design[:, 1:]
    group = rows.gene.astype(np.int64) * 128 + fold
    ranking = fit_within(parts, rows.label, np.column_stack([group] * parts.shape[1]))
    of_rate, scale, offset = fit_logistic(np.column_stack([rate, parts @ ranking]), rows.label).tolist()
    return [of_rate, *(scale * ranking).tolist(), offset]
