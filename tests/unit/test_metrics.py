"""The measures of belief, against their definitions and against laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.core.metrics import (
    auc_per_gene,
    brier_score,
    expected_calibration_error,
    fit_logistic,
    reliability,
    sigmoid,
)


def test_the_metric_is_the_mean_auc_over_genes_with_both_labels() -> None:
    gene = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    label = np.array([1, 0, 1, 0, 1, 1, 1, 0, 1, 0])
    score = np.array([0.9, 0.8, 0.3, 0.1, 0.5, 0.6, 0.7, 0.4, 0.4, 0.1])
    # Gene 0: 3 of 4 pairs in order. Gene 1 has one label only. Gene 2: one pair in order, one tied.
    assert auc_per_gene(gene, label, score) == (pytest.approx((0.75 + 0.75) / 2), 2)
    assert auc_per_gene(gene[4:7], label[4:7], score[4:7])[1] == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=40))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, int, int]]) -> None:
    gene, label, score = (np.array(column) for column in zip(*rows, strict=True))
    expected = []
    for one in np.unique(gene):
        positive, negative = (score[(gene == one) & (label == value)] for value in (1, 0))
        if len(positive) and len(negative):
            difference = positive[:, None] - negative[None, :]
            expected.append(np.mean((difference > 0) + 0.5 * (difference == 0)))
    auc, genes = auc_per_gene(gene, label, score.astype(float))
    assert genes == len(expected)
    assert np.isnan(auc) if not expected else auc == pytest.approx(np.mean(expected))


def test_logistic_regression_finds_the_belief_that_made_the_labels() -> None:
    random = np.random.default_rng(3)
    features = random.standard_normal((40_000, 2))
    truth = sigmoid(features @ np.array([1.5, -0.5]) - 2.0)
    label = (random.random(40_000) < truth).astype(int)
    weights = fit_logistic(features, label)
    assert weights == pytest.approx([1.5, -0.5, -2.0], abs=0.08)
    belief = sigmoid(features @ weights[:-1] + weights[-1])
    assert expected_calibration_error(label, belief) < 0.01
    assert brier_score(label, belief) < brier_score(label, np.full(40_000, label.mean()))
    assert sum(point.rows for point in reliability(label, belief)) == 40_000


def test_a_confident_liar_is_badly_calibrated() -> None:
    label = np.array([0, 0, 0, 1])
    assert expected_calibration_error(label, np.full(4, 0.95)) == pytest.approx(0.7)
    assert brier_score(label, np.full(4, 1.0)) == 0.75
