"""From answers to figures, each with an interval.

An answer that could not be read counts as wrong, whichever the label; ``coverage`` says how many could. Intervals come
from a bootstrap of the perturbations: the rows of one perturbation share its biology, so they are drawn together. A
resample is a weight per perturbation, so nothing is sorted or counted again for it.

The ends are percentiles of the resamples, but for per-gene AUC, which the bootstrap serves badly: a gene whose rarer
label has a single row drops out of every third resample, which moves them all (up by .012 on PerturbQA), and if it
stays its one row never varies, so they are too narrow as well. Mirrored percentiles (2 × estimate − percentile) covered
89 % in the simulation of tests/trainer/test_evaluation.py. See `PerGeneAuc.standard_error` for what is done instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bioverify.core.metrics import ReliabilityPoint, brier_score, expected_calibration_error, reliability
from bioverify_trainer.evaluate.answers import CLAIM_SUMS, NO_ANSWER, Answers
from bioverify_trainer.evaluate.questions import Rows

Floats = npt.NDArray[np.float64]

N_RESAMPLES = 1000
NORMAL_95 = 1.96
N_BINS = 10
"""Of belief, for the calibration error."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and the ends of its 95 % interval; NaN if it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """Of one model on some rows. ``genes``: how many the per-gene AUC is a mean of."""

    figures: dict[str, Figure]
    rows: int
    positives: int
    perturbations: int
    genes: int
    reliability: list[ReliabilityPoint]


def measure(rows: Rows, answers: Answers, *, resamples: int = N_RESAMPLES, seed: int = 0) -> Measured:
    """All figures of ``answers``, pooled over the given rows; the same gene in two lines counts as two."""
    _, cluster = np.unique(np.stack([rows.line, rows.perturbation]), axis=1, return_inverse=True)
    n_clusters = int(cluster.max()) + 1
    auc = PerGeneAuc(rows.line * len(rows.screens.genes) + rows.measured_gene, rows.label, answers.belief)
    columns = _columns(rows, answers)
    sums = np.stack([np.bincount(cluster, column, n_clusters) for column in columns.values()], axis=1)

    def figures(weight: Floats) -> dict[str, Any]:
        """Of one weighting (clusters) or of several at once (resamples × clusters)."""
        return _pooled(dict(zip(columns, np.moveaxis(weight @ sums, -1, 0), strict=True)))

    whole = figures(np.ones(n_clusters))
    whole["auc_per_gene"] = auc(np.ones(len(rows)))
    whole["brier"] = brier_score(rows.label, answers.belief)
    whole["ece"] = expected_calibration_error(rows.label, answers.belief, N_BINS)

    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=resamples).astype(np.float64)
    drawn = figures(weights)
    low_high = {name: _ends(values) for name, values in drawn.items()}
    estimate, reach = float(whole["auc_per_gene"]), NORMAL_95 * auc.standard_error(cluster)
    low_high["auc_per_gene"] = max(0.0, estimate - reach), min(1.0, estimate + reach)
    return Measured(
        figures={name: Figure(float(value), *low_high[name]) for name, value in whole.items()},
        rows=len(rows),
        positives=int(rows.label.sum()),
        perturbations=n_clusters,
        genes=auc.n_genes,
        reliability=reliability(rows.label, answers.belief, N_BINS),
    )


class PerGeneAuc:
    """`bioverify.core.metrics.auc_per_gene` with a weight per row, for many weightings of the same rows.

    A gene counts if both its labels have weight. Rows are sorted once; a call is a few running sums.
    """

    def __init__(self, gene: npt.NDArray[np.integer[Any]], label: npt.NDArray[np.integer[Any]], belief: Floats) -> None:
        self._order = np.lexsort((belief, gene))
        genes, beliefs = gene[self._order], belief[self._order]
        self._is_positive = label[self._order].astype(np.float64)
        starts_gene = np.r_[True, genes[1:] != genes[:-1]]
        starts_tie = starts_gene | np.r_[True, beliefs[1:] != beliefs[:-1]]
        self._ties = np.flatnonzero(starts_tie)
        self._genes = np.flatnonzero(starts_gene[self._ties])
        self._ties_of_gene = np.diff(np.r_[self._genes, len(self._ties)])
        self.n_genes = 0
        self(np.ones(len(gene)))

    def __call__(self, weight: Floats) -> float:
        """Mean over genes; NaN if no gene has both labels."""
        ordered = weight[self._order]
        positive = np.add.reduceat(ordered * self._is_positive, self._ties)
        negative = np.add.reduceat(ordered, self._ties) - positive
        positives, negatives = (np.add.reduceat(one, self._genes) for one in (positive, negative))
        below = np.cumsum(negative) - negative
        below -= np.repeat(below[self._genes], self._ties_of_gene)
        in_order = np.add.reduceat(positive * (below + negative / 2), self._genes)
        # Weights are whole numbers, so sums of them are exact.
        has_both = (positives > 0) & (negatives > 0)
        self.n_genes = self.n_genes or int(has_both.sum())
        if not has_both.any():
            return float("nan")
        return float((in_order[has_both] / (positives[has_both] * negatives[has_both])).mean())

    def standard_error(self, cluster: npt.NDArray[np.integer[Any]]) -> float:
        """Of the mean over genes, ``cluster`` (of each row, from 0 on) being what was sampled; NaN without any gene."""
        return standard_error(self.pulls(cluster))

    def pulls(self, cluster: npt.NDArray[np.integer[Any]]) -> Floats:
        """By how much each cluster pulls the mean over genes; NaN without any gene.

        The AUC of a gene is the mean, over its rows of one label, of the share of its rows of the other label that they
        are ranked right against (DeLong et al. 1988). What a row's share is off from the gene's AUC, summed over the
        rows of a cluster, is what the cluster pulls the mean by (Obuchowski 1997, clustered ROC data). A label with n
        rows in a gene is off by too little, by √((n − 1)/n), and with one row by nothing at all: there it is taken from
        the mean over all such genes, as surveys do with strata of one unit (Wolter, Introduction to Variance
        Estimation, on collapsed strata), which rather errs towards the wide.
        """
        influence = self._influence()
        if influence is None:
            return np.full(int(cluster.max()) + 1, np.nan)
        sums: Floats = np.bincount(cluster[self._order], influence).astype(np.float64)
        return sums

    def _influence(self) -> Floats | None:
        """What each row, in sorted order, pulls the mean over genes by; None without any gene."""
        sizes = np.diff(np.r_[self._ties, len(self._order)])
        rows_of_gene = np.add.reduceat(sizes, self._genes)
        gene = np.repeat(np.arange(len(rows_of_gene)), rows_of_gene)
        positives = np.bincount(gene, self._is_positive)
        negatives = rows_of_gene - positives
        has_both = (positives > 0) & (negatives > 0)
        if not has_both.any():
            return None
        influence = np.zeros(len(gene))
        for is_own, own, others in (
            (self._is_positive, positives, negatives),
            (1 - self._is_positive, negatives, positives),
        ):
            # Rows of the other label on the right side of this one: below a positive, above a negative; ties half.
            other = np.add.reduceat(1 - is_own, self._ties)
            before = np.cumsum(other) - other
            before -= np.repeat(before[self._genes], self._ties_of_gene)
            tie = np.repeat(np.arange(len(sizes)), sizes)
            right = (
                (before + other / 2)[tie] if is_own is self._is_positive else others[gene] - (before + other / 2)[tie]
            )
            chosen = (is_own == 1) & has_both[gene]
            share = np.where(chosen, right / np.maximum(others[gene], 1), 0.0)
            mean = np.bincount(gene, share) / np.maximum(own, 1)
            single = has_both & (own == 1)
            centre = np.where(single, mean[single].mean() if single.any() else 0.0, mean)
            too_little = np.sqrt(np.where(own > 1, own / np.maximum(own - 1, 1), 1.0))
            influence += np.where(chosen, too_little[gene] * (share - centre[gene]) / np.maximum(own, 1)[gene], 0.0)
        mean_of: Floats = influence / has_both.sum()
        return mean_of


def standard_error(pulls: Floats) -> float:
    """Of a figure that clusters pull by so much: a per-gene AUC, or a mean or a difference of several on the same rows.

    Rows that two models share make their pulls alike, so the difference of two AUCs is known better than either.
    """
    return float(np.sqrt((pulls**2).sum() * len(pulls) / max(1, len(pulls) - 1)))


def _columns(rows: Rows, answers: Answers) -> dict[str, Floats]:
    """What the pooled figures are sums of, row by row."""
    label, answered = rows.label == 1, answers.answer != NO_ANSWER
    right = answered & (answers.answer == rows.label)
    off = answers.belief - rows.label
    columns = {
        "hits": right & label,
        "misses": ~right & label,
        "rejections": right & ~label,
        "alarms": ~right & ~label,
        "answered": answered,
        "yes": answers.answer == 1,
        "square": off**2,
    }
    if answers.format_score is not None:
        columns["format"] = answers.format_score
    if answers.claims is not None:
        columns |= dict(zip(CLAIM_SUMS, answers.claims.T, strict=True))
    bins = np.minimum((answers.belief * N_BINS).astype(np.int64), N_BINS - 1)
    columns |= {f"off_{one}": np.where(bins == one, off, 0.0) for one in range(N_BINS)}
    return {name: column.astype(np.float64) for name, column in columns.items()}


def _pooled(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of sums of `_columns`: numbers, or arrays with an entry per resample."""
    hits, misses, rejections, alarms = (sums[name] for name in ("hits", "misses", "rejections", "alarms"))
    n = hits + misses + rejections + alarms
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, specificity = hits / (hits + misses), rejections / (rejections + alarms)
        spread = np.sqrt((hits + alarms) * (hits + misses) * (rejections + alarms) * (rejections + misses))
        found = {
            "accuracy": (hits + rejections) / n,
            "balanced_accuracy": (recall + specificity) / 2,
            "precision": np.where(hits + alarms > 0, hits / (hits + alarms), 0.0),
            "recall": recall,
            "f1": 2 * hits / (2 * hits + misses + alarms),
            "specificity": specificity,
            # Without a positive or a negative answer, no correlation.
            "mcc": np.where(spread > 0, (hits * rejections - alarms * misses) / spread, 0.0),
            "coverage": sums["answered"] / n,
            "yes_share": sums["yes"] / sums["answered"],
            "brier": sums["square"] / n,
            "ece": sum(np.abs(sums[f"off_{one}"]) for one in range(N_BINS)) / n,
        }
        if "format" in sums:
            found["format"] = sums["format"] / n
        if "claims_checked" in sums:
            checked = sums["claims_checked"]
            # A completion with nothing to check is no completion with precision 0.
            found["claim_precision"] = sums["claims_precision"] / checked
            found["with_claims"] = checked / sums["claims_applicable"]
            found["contradicted"] = sums["claims_contradicted"] / checked
    return found


def _ends(values: Floats) -> tuple[float, float]:
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)
