"""Analogy: the formula against its definition, no memory of the question itself, and evidence that can be read."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange
from bioverify.core.verifier import Item
from bioverify.verifiers.analogy.fit import fit
from bioverify.verifiers.analogy.model import folds_of
from bioverify.verifiers.analogy.neighbours import (
    FEATURES,
    GENE_WIDTHS,
    KRIGING_GENE_SHARE,
    KRIGING_NOISE,
    KRIGING_WIDTH,
    N_NEIGHBOUR_SCORES,
    PERTURBATION_WIDTHS,
    SHRINKAGE,
    Floats,
    Neighbours,
    Rows,
    krige,
    leading_components,
    smoothed_rate,
    unit_vectors,
)
from bioverify.verifiers.analogy.verifier import Analogy, open_verifier

N_GENES, N_PERTURBATIONS = 60, 36


@pytest.fixture(scope="module")
def verifier(bundled_store: ArtifactStore) -> Analogy:
    return open_verifier(bundled_store)


@pytest.fixture(scope="module")
def unit() -> Floats:
    """Six families of ten like genes."""
    random = np.random.default_rng(0)
    centres = np.repeat(random.standard_normal((6, 12)), 10, axis=0)
    return unit_vectors((centres + 0.4 * random.standard_normal((N_GENES, 12))).astype(np.float32))


def screen(unit: Floats, seed: int = 1) -> Rows:
    """Whether a gene responds depends on the two families alone, but for noise."""
    random = np.random.default_rng(seed)
    pairs = np.array([(p, g) for p in range(N_PERTURBATIONS) for g in range(N_GENES) if random.random() < 0.5])
    rule = random.random((6, 6)) < 0.3
    label = rule[pairs[:, 0] // 10, pairs[:, 1] // 10] ^ (random.random(len(pairs)) < 0.05)
    return Rows(pairs[:, 0], pairs[:, 1], label.astype(np.int8))


def test_neighbour_scores_are_what_the_formula_says(unit: Floats) -> None:
    rows = screen(unit)
    rate = smoothed_rate(rows, N_GENES)
    asked = Rows(np.array([50, 3, 50]), np.array([7, 7, 21]), np.zeros(3, np.int8))
    solved = krige(rows, unit).astype(np.float64)
    made, scored = Neighbours(rows, unit, leading_components(unit), rate, solved).features(asked)
    assert made.shape == (3, len(FEATURES))
    residual, mask = np.zeros((2, N_GENES, N_GENES))
    residual[rows.perturbation, rows.gene] = rows.label - rate[rows.gene]
    mask[rows.perturbation, rows.gene] = 1.0
    cosine = unit @ unit.T
    for row, (perturbation, gene) in enumerate(zip(asked.perturbation, asked.gene, strict=True)):
        expected = []
        for tau_g in GENE_WIDTHS:
            v = np.exp((cosine[gene] - 1) / tau_g) if tau_g else np.eye(N_GENES)[gene]
            for tau_p in PERTURBATION_WIDTHS:
                w = np.exp((cosine[perturbation] - 1) / tau_p)
                expected.append((w @ residual @ v) / (w @ mask @ v + SHRINKAGE))
        assert made[row, :N_NEIGHBOUR_SCORES] == pytest.approx(expected, abs=1e-8)
        assert scored[row, 0] == pytest.approx(np.mean(expected), abs=1e-8)


def test_kriging_is_gaussian_process_regression_at_the_measured_pairs(unit: Floats) -> None:
    rows = screen(unit)
    rate = smoothed_rate(rows, N_GENES)
    asked = Rows(np.array([50, 3, 50]), np.array([7, 7, 21]), np.zeros(3, np.int8))
    solved = krige(rows, unit).astype(np.float64)
    _, scored = Neighbours(rows, unit, leading_components(unit), rate, solved).features(asked)
    alike = np.exp((unit @ unit.T - 1) / KRIGING_WIDTH)
    same = KRIGING_GENE_SHARE * alike + np.eye(N_GENES)

    def kernel(one: Rows, other: Rows) -> Floats:
        made: Floats = alike[np.ix_(one.perturbation, other.perturbation)] * same[np.ix_(one.gene, other.gene)]
        return made

    residual = rows.label - rate[rows.gene]
    exact = kernel(asked, rows) @ np.linalg.solve(kernel(rows, rows) + KRIGING_NOISE * np.eye(len(rows)), residual)
    assert scored[:, 1] == pytest.approx(exact, abs=0.02)
    assert np.abs(exact).max() > 0.1


def test_a_training_perturbation_is_answered_without_its_own_rows(unit: Floats) -> None:
    rows = screen(unit)
    flipped = Rows(rows.perturbation, rows.gene, np.where(rows.perturbation == 4, 1 - rows.label, rows.label))
    asked = rows.where(rows.perturbation == 4)
    components = leading_components(unit)
    one, other = (fit(some, unit, components, 3, 1)[0].features(asked) for some in (rows, flipped))
    differs = {name for name, column in zip(FEATURES, (one[0] != other[0]).any(axis=0), strict=True) if column}
    assert differs == {"gene_rate"}
    assert (one[1] == other[1]).all()


def test_trees_learn_who_is_like_whom_and_repeat_themselves(unit: Floats) -> None:
    rows, components = screen(unit), leading_components(unit)
    model, _, out_of_fold = fit(rows, unit, components, 3, 1)
    assert np.mean((out_of_fold > 0) == rows.label) > 0.85
    perturbations, genes = np.mgrid[40:60, 0:N_GENES].reshape(2, -1)
    fresh = Rows(perturbations, genes, np.zeros(20 * N_GENES, np.int8))
    beliefs = model.beliefs(fresh)
    assert beliefs == fit(rows, unit, components, 3, 1)[0].beliefs(fresh)
    alone = [model.beliefs(fresh.where(np.arange(len(fresh)) == row))[0] for row in range(0, len(fresh), 97)]
    assert alone == beliefs[::97]
    assert (model.fold == folds_of(rows, 3, N_GENES)).all()
    assert set(model.fold[N_PERTURBATIONS:]) == {-1}


def test_evidence_names_the_likest_perturbations_and_counts_responses(verifier: Analogy) -> None:
    item, _ = verifier.canary()
    assert isinstance(item.task, DifferentialExpression)
    named = verifier.score(
        [Item(DifferentialExpression("AARS1", gene, "k562"), answer=True) for gene in ("ASNS", "ACTB", "CD74", "RPL3")]
    )
    texts = [outcome.evidence[0].text for outcome in named if isinstance(outcome, Scored)]
    pattern = r"p\(yes\) = \d\.\d\d; .+ \(cosine [^)]+\): \S+ responded in \d of \d \(K562, GO-SVD 16-d, not ESM2\)"
    unmeasured = "was not measured under any other perturbation"
    assert texts
    assert all(re.match(pattern, text) or unmeasured in text for text in texts)
    outcome = verifier.score([Item(DirectionOfChange("AARS1", "ASNS", "K562"), answer=False)])[0]
    assert isinstance(outcome, Scored)
    assert outcome.belief == pytest.approx(1.0 - outcome.value)
    assert outcome.evidence[0].text.startswith("p(increase) = ")


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (DifferentialExpression("NOSUCHGENE", "ASNS", "k562"), "unknown_gene"),
        (DifferentialExpression("AARS1", "ASNS", "hela"), "unknown_cell_line"),
        (DifferentialExpression("ANKRD22", "ASNS", "k562"), "no_vector"),
        (CoExpression("AARS1", "ASNS"), "other_task_kind"),
    ],
)
def test_what_has_no_analogy_is_not_applicable(verifier: Analogy, task: CoExpression, reason: str) -> None:
    outcome = verifier.score([Item(task, answer=True)])[0]
    assert isinstance(outcome, NotApplicable)
    assert outcome.reason == reason
