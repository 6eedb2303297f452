"""The measures of belief, against their definitions and against laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.core.metrics import (
    auc_per_gene,
    brier_score,
    calibration_figures,
    expected_calibration_error,
    fit_logistic,
    fit_within,
    pooled_measures,
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


@pytest.mark.parametrize(
    ("label", "answer", "f1", "mcc", "balanced"),
    [
        ([1, 1, 1, 0, 0], [1, 1, 0, 1, 0], 2 / 3, 1 / 6, (2 / 3 + 1 / 2) / 2),
        ([1, 0], [1, 0], 1.0, 1.0, 1.0),
        ([1, 0], [0, 1], 0.0, -1.0, 0.0),
        ([1, 1, 0], [1, 1, 1], 0.8, 0.0, 0.5),
        ([0, 0], [0, 0], 0.0, 0.0, 0.5),
        ([], [], 0.0, 0.0, 0.0),
    ],
)
def test_answers_are_measured_by_their_definitions(label, answer, f1, mcc, balanced) -> None:
    found = pooled_measures(np.array(label, int), np.array(answer, bool))
    assert found == pytest.approx({"f1": f1, "mcc": mcc, "balanced_accuracy": balanced})


def test_beliefs_fall_into_ten_bins_of_equal_width_and_empty_ones_are_left_out() -> None:
    belief = np.array([0.0, 0.06, 0.1, 0.18, 0.94, 1.0])
    label = np.array([0, 1, 0, 0, 1, 1])
    points = reliability(label, belief)
    assert [point.rows for point in points] == [2, 2, 2]
    assert [point.belief for point in points] == pytest.approx([0.03, 0.14, 0.97])
    assert [point.frequency for point in points] == [0.5, 0.0, 1.0]
    error = (2 * 0.47 + 2 * 0.14 + 2 * 0.03) / 6
    assert expected_calibration_error(label, belief) == pytest.approx(error)
    assert calibration_figures(label, belief) == {
        "brier": brier_score(label, belief),
        "calibration_error": pytest.approx(error),
        "frequency_where_belief_is_0.03": 0.5,
        "frequency_where_belief_is_0.14": 0.0,
        "frequency_where_belief_is_0.97": 1.0,
    }
    assert [point.rows for point in reliability(label, belief, 2)] == [4, 2]
    in_two_bins = (4 * abs(0.085 - 0.25) + 2 * 0.03) / 6
    assert expected_calibration_error(label, belief, 2) == pytest.approx(in_two_bins)


def test_no_rows_have_no_auc_and_one_gene_has_the_ordinary_one() -> None:
    nothing = np.array([], int)
    auc, genes = auc_per_gene(nothing, nothing, nothing.astype(float))
    assert np.isnan(auc)
    assert genes == 0
    assert auc_per_gene(np.zeros(2, int), np.array([1, 0]), np.array([0.5, 0.5])) == (0.5, 1)


def test_groups_of_one_label_say_nothing_and_without_others_all_features_count_alike() -> None:
    features = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])
    groups = np.array([[0, 0], [0, 0], [1, 1]])
    assert fit_within(features, np.array([1, 1, 0]), groups).tolist() == [1.0, 1.0]
    kept = features.copy()
    weights = fit_within(features, np.array([1, 0, 1]), groups)
    assert (weights < 0).all()
    assert (features == kept).all()
    # What all rows of a group share makes no difference.
    shifted = features + np.array([[10.0, -5.0], [10.0, -5.0], [0.0, 0.0]])
    assert fit_within(shifted, np.array([1, 0, 1]), groups) == pytest.approx(weights)


def test_a_greater_penalty_makes_smaller_weights_and_leaves_the_offset() -> None:
    random = np.random.default_rng(4)
    features = random.standard_normal((400, 1))
    label = (random.random(400) < sigmoid(features[:, 0] + 2.0)).astype(int)
    free, bound, none = (fit_logistic(features, label, penalty=penalty) for penalty in (0.0, 50.0, 1e9))
    assert 0 < bound[0] < free[0]
    assert none == pytest.approx([0.0, np.log(label.mean() / (1 - label.mean()))], abs=1e-5)
    # At the optimum the gradient is nought, the penalty included.
    design = np.c_[features, np.ones(400)]
    gradient = design.T @ (sigmoid(design @ bound) - label) + np.array([50.0, 0.0]) * bound
    assert gradient == pytest.approx([0.0, 0.0], abs=1e-6)
