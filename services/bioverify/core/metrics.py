"""How good beliefs are: in order, per measured gene, and as frequencies.

`auc_per_gene` is PerturbQA's metric. It asks only whether a gene's responders are ranked above its other perturbations,
so knowing which genes often respond is worth nothing. Brier score and expected calibration error ask whether a belief
of .3 comes true three times in ten. `fit_logistic` makes beliefs of scores: one score gives Platt's scaling (a
temperature and an offset), several give a stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def auc_per_gene(gene: Ints, label: Ints, score: npt.NDArray[np.floating]) -> tuple[float, int]:
    """ROC-AUC per measured gene, unweighted mean over genes with both labels, and their number; NaN without one."""
    _, auc = aucs_of_genes(gene, label, score)
    return (float(auc.mean()), len(auc)) if len(auc) else (float("nan"), 0)


def aucs_of_genes(gene: Ints, label: Ints, score: npt.NDArray[np.floating]) -> tuple[Ints, Floats]:
    """The genes with both labels, and the ROC-AUC of each.

    ``gene``: any code per row; ``label``: 0 or 1. AUC is the share of (positive, negative) pairs in order, ties
    counting one half. One gene only: the ordinary AUC.
    """
    if not len(label):
        return np.empty(0, np.int64), np.empty(0)
    order = np.lexsort((score, gene))
    genes, ordered, labels = gene[order], score[order], label[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, genes[1:] != genes[:-1]])
    sizes = np.diff(np.r_[starts, len(genes)])
    tie_starts = np.flatnonzero(np.r_[True, (genes[1:] != genes[:-1]) | (ordered[1:] != ordered[:-1])])
    tie_sizes = np.diff(np.r_[tie_starts, len(genes)])
    mean_position = np.repeat(tie_starts + (tie_sizes - 1) / 2.0, tie_sizes)
    rank = mean_position - np.repeat(starts, sizes) + 1.0
    positives = np.add.reduceat(labels, starts)
    negatives = sizes - positives
    rank_sums = np.add.reduceat(rank * labels, starts)
    both = (positives > 0) & (negatives > 0)
    auc = (rank_sums[both] - positives[both] * (positives[both] + 1) / 2) / (positives[both] * negatives[both])
    return genes[starts[both]], auc


def brier_score(label: Ints, belief: Floats) -> float:
    """Mean squared difference of belief and label: 0 is perfect, p(1 − p) comes of knowing only the base rate p."""
    return float(np.mean((belief - label) ** 2))


def pooled_measures(label: Ints, answer: npt.NDArray[np.bool_]) -> dict[str, float]:
    """F1, Matthews correlation and balanced accuracy of yes-or-no answers, all rows alike; 0 if one is undefined.

    Knowing only how often each measured gene responds is worth a lot here: never report these without the baselines.
    """
    positive = label.astype(np.bool_)
    yes, no = int(np.sum(positive & answer)), int(np.sum(~positive & ~answer))
    false_yes, missed = int(np.sum(~positive & answer)), int(np.sum(positive & ~answer))
    sensitivity, specificity = _share(yes, yes + missed), _share(no, no + false_yes)
    spread = float(yes + false_yes) * (yes + missed) * (no + false_yes) * (no + missed)
    return {
        "f1": _share(2 * yes, 2 * yes + false_yes + missed),
        "mcc": (yes * no - false_yes * missed) / spread**0.5 if spread else 0.0,
        "balanced_accuracy": (sensitivity + specificity) / 2,
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True)
class ReliabilityPoint:
    """One bin of a reliability plot: what was believed on average, how often it was so, in how many rows."""

    belief: float
    frequency: float
    rows: int


def reliability(label: Ints, belief: Floats, bins: int = 10) -> list[ReliabilityPoint]:
    """Bins of equal width over [0, 1], empty ones left out."""
    number = np.minimum((belief * bins).astype(np.int64), bins - 1)
    rows = np.bincount(number, minlength=bins)
    beliefs = np.bincount(number, belief, bins)
    positives = np.bincount(number, label, bins)
    return [
        ReliabilityPoint(float(beliefs[one] / rows[one]), float(positives[one] / rows[one]), int(rows[one]))
        for one in np.flatnonzero(rows)
    ]


def expected_calibration_error(label: Ints, belief: Floats, bins: int = 10) -> float:
    """Mean over rows of the distance between their bin's mean belief and its frequency."""
    points = reliability(label, belief, bins)
    return sum(abs(point.belief - point.frequency) * point.rows for point in points) / len(label)


def calibration_figures(label: Ints, belief: Floats) -> dict[str, float]:
    """What a manifest keeps: Brier score, calibration error, and the reliability plot as one figure per bin."""
    return {
        "brier": brier_score(label, belief),
        "calibration_error": expected_calibration_error(label, belief),
        **{f"frequency_where_belief_is_{point.belief:.2f}": point.frequency for point in reliability(label, belief)},
    }


def fit_logistic(features: Floats, label: Ints, *, penalty: float = 1.0) -> Floats:
    """Weights (features + 1; the last is the offset) of logistic regression, by Newton's method.

    ``features``: rows × features, of about unit scale. ``penalty``: weight of ½‖w‖², offset exempt. Both labels occur.
    """
    design = np.c_[features, np.ones(len(features))]
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 1e-9
    weights = np.zeros(design.shape[1])
    share = float(label.mean())
    weights[-1] = np.log(share / (1.0 - share))
    for _ in range(50):
        belief = sigmoid(design @ weights)
        gradient = design.T @ (belief - label) + ridge * weights
        curvature = (design * (belief * (1.0 - belief))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def fit_within(features: Floats, label: Ints, groups: Ints) -> Floats:
    """Weights of logits that are to rank a gene's rows together, one per feature. Their scale is not a belief's.

    ``groups``: rows × features, each row's gene and the fold that the feature was made without. A model's bias for a
    gene is low exactly where the rows that it did not see have many positives, so rows are only compared within a
    group: each feature counts by its distance from the group's mean. Groups of one label say nothing. Our reading.
    """
    centred = features.copy()
    both = np.ones(len(label), bool)
    for column, group in zip(centred.T, groups.T, strict=True):
        _, number = np.unique(group, return_inverse=True)
        n = np.bincount(number)
        column -= (np.bincount(number, column) / n)[number]
        positive = np.bincount(number, label)[number]
        both &= (positive > 0) & (positive < n[number])
    if len(np.unique(label[both])) < 2:
        return np.ones(features.shape[1])
    weights: Floats = fit_logistic(centred[both], label[both])[:-1]
    return weights


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(−logit)), without overflow."""
    half: Floats = 0.5 * (1.0 + np.tanh(0.5 * logit))
    return half
