"""Fits the trees of one line on out-of-fold neighbour scores (LightGBM, MIT; one thread, fixed seed)."""

from __future__ import annotations

import lightgbm

from bioverify.core.metrics import fit_logistic
from bioverify.verifiers.analogy.model import LineModel, folds_of
from bioverify.verifiers.analogy.neighbours import FEATURES, Floats, Rows

FOLDS = 3
ROUNDS = 120
TREE_PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
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
    """The model of a line's training rows, and the rows' out-of-fold features and tree logits."""
    fold = folds_of(rows, folds, len(unit))
    model = LineModel(rows, fold, unit, components, [])
    features = model.features(rows)
    of_row = fold[rows.perturbation]
    model.trees = [
        lightgbm.train(
            {**TREE_PARAMETERS, "seed": seed},
            lightgbm.Dataset(features[of_row != one], rows.label[of_row != one], feature_name=list(FEATURES)),
            num_boost_round=ROUNDS,
        )
        for one in range(folds)
    ]
    logits = model.tree_logits(rows, features)
    model.scale, model.offset = fit_logistic(logits[:, None], rows.label).tolist()
    return model, features, logits
