"""Models that know nothing of the pair. Whoever is not better than these has learned nothing of the biology.

Definitions: docs/evaluation.md. The gene rate alone has a pooled F1 above every published one, and a per-gene AUC of
one half, because within a gene it is constant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bioverify.core.metrics import Floats
from bioverify.core.outcomes import Scored
from bioverify_trainer.evaluate.answers import Answers
from bioverify_trainer.evaluate.questions import Ints, Rows
from bioverify_trainer.evaluate.verifiers import outcomes

NAMES = ("always-yes", "gene-rate", "other-lines", "mlp")
N_FOLDS = 5
THRESHOLDS = np.arange(0.05, 0.951, 0.025)
PRIOR_WEIGHT = 2
"""Rows that the prior counts for."""


def answer(name: str, asked: Rows, *, target: str) -> Answers:
    """The answers of the baseline to ``asked``, line by line. ``target``: the aggregator, for ``mlp`` only."""
    belief = np.empty(len(asked))
    says_yes = np.empty(len(asked), np.int64)
    for code in np.unique(asked.line):
        here = asked.line == code
        line = asked.screens.lines[code]
        training = asked.screens.rows(asked.kind, "train", [line])
        belief[here], threshold = _BASELINES[name](asked.where(here), training, target)
        says_yes[here] = belief[here] >= threshold
    return Answers(says_yes, belief)


def always_yes(asked: Rows, _training: Rows, _target: str) -> tuple[Floats, float]:
    return np.ones(len(asked)), 0.5


def gene_rate(asked: Rows, training: Rows, _target: str) -> tuple[Floats, float]:
    """Rate of the measured gene in the line's training rows; the threshold is the best one out of fold there."""
    # Folds are whole perturbations, as the test split is; codes are in the order of the names.
    _, order = np.unique(training.perturbation, return_inverse=True)
    fold = order % N_FOLDS
    out_of_fold = np.empty(len(training))
    for number in range(N_FOLDS):
        held_out = fold == number
        out_of_fold[held_out] = _rate_of_gene(training.where(~held_out), training.where(held_out).measured_gene)
    return _rate_of_gene(training, asked.measured_gene), best_threshold(training.label, out_of_fold)


def other_lines(asked: Rows, training: Rows, _target: str) -> tuple[Floats, float]:
    """The pair's mean label in other lines, else the perturbation's rate there.

    It reads other lines' test rows of the same perturbation too: the loose form of transfer.
    """
    screens = asked.screens
    others = [line for line in screens.lines if line != screens.lines[training.line[0]]]
    elsewhere = [screens.rows(asked.kind, split, others) for split in ("train", "test")]
    perturbation, gene, label = (
        np.concatenate([getattr(rows, name) for rows in elsewhere])
        for name in ("perturbation", "measured_gene", "label")
    )
    prior = float(training.label.mean())
    size = len(screens.genes)
    rate = _smoothed(perturbation, label, prior, size)
    pairs, of_row = np.unique(perturbation * size + gene, return_inverse=True)
    mean = np.bincount(of_row, label) / np.bincount(of_row)

    def score(rows: Rows) -> Floats:
        wanted = rows.perturbation * size + rows.measured_gene
        place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        return np.where(pairs[place] == wanted, mean[place], rate[rows.perturbation])

    # The line's own labels are in none of these scores, so its training rows are as new to them as its test rows.
    return score(asked), best_threshold(training.label, score(training))


def mlp(asked: Rows, _training: Rows, target: str) -> tuple[Floats, float]:
    """The belief of the verifier ``esm_mlp``, "yes" from one half; one half if a gene has no vector."""
    completion = "<answer>yes</answer>" if "expression" in asked.kind else "<answer>increase</answer>"
    pairs = [(asked.task(row), completion) for row in range(len(asked))]
    said = outcomes("esm_mlp", pairs, target)
    beliefs = (one.belief if isinstance(one, Scored) else None for one in said)
    return np.array([0.5 if belief is None else belief for belief in beliefs]), 0.5


def best_threshold(label: Ints, score: Floats) -> float:
    """The one of `THRESHOLDS` with the best F1."""
    says_yes = score[:, None] >= THRESHOLDS
    hits = (says_yes & (label == 1)[:, None]).sum(axis=0)
    f1 = 2 * hits / np.maximum(1, says_yes.sum(axis=0) + label.sum())
    return float(THRESHOLDS[f1.argmax()])


def _rate_of_gene(training: Rows, gene: Ints) -> Floats:
    prior = float(training.label.mean())
    return _smoothed(training.measured_gene, training.label, prior, len(training.screens.genes))[gene]


def _smoothed(code: Ints, label: Ints, prior: float, size: int) -> Floats:
    positives = np.bincount(code, label, size)
    rates: Floats = (positives + PRIOR_WEIGHT * prior) / (np.bincount(code, minlength=size) + PRIOR_WEIGHT)
    return rates


_BASELINES: dict[str, Callable[[Rows, Rows, str], tuple[Floats, float]]] = {
    "always-yes": always_yes,
    "gene-rate": gene_rate,
    "other-lines": other_lines,
    "mlp": mlp,
}
