"""Beliefs about knockdowns: what rests on no training row of the gene is told as a base rate, or is no number."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.build_settings import BuildSettings, read_build_settings
from bioverify.cli.services import build_artifact, open_verifier
from bioverify.core.answers import AnswerProblem
from bioverify.core.consensus import logit
from bioverify.core.knockdowns import asked_of, canary_pair, rates_outside_folds, rows_outside_folds
from bioverify.core.metrics import sigmoid
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import DifferentialExpression, TaskKind
from bioverify.core.verifier import Item, lift
from bioverify.verifiers.analogy.verifier import open_verifier as open_analogy
from tests.fixtures.artifacts import bundled_sources, silent

NOT_APPLICABLE = """
esm_mlp: {base_rate: not_applicable, steps: 3, folds: 3, go_dimensions: 16}
analogy: {base_rate: not_applicable}
"""
LINE, KIND = "rpe1", TaskKind.DIFFERENTIAL_EXPRESSION


def random_questions(store: ArtifactStore) -> tuple[list[Item], list[bool]]:
    """Questions in one line about genes with and without training rows, and whether each has any to rest on."""
    analogy = open_analogy(store)
    model, symbols = analogy._line_models[LINE, KIND], analogy._symbols
    rows = model.rows
    random = np.random.default_rng(8)
    perturbations = random.choice(np.concatenate([np.unique(rows.perturbation), np.arange(len(symbols))]), 300)
    genes = np.concatenate([random.choice(rows.gene, 150), random.integers(len(symbols), size=150)])
    items, rests = [], []
    for perturbation, gene in zip(perturbations, genes, strict=True):
        items.append(Item(DifferentialExpression(symbols[perturbation], symbols[gene], LINE), answer=True))
        is_outside = (model.fold[rows.perturbation] != model.fold[perturbation]) | (model.fold[perturbation] < 0)
        rests.append(bool((is_outside & (rows.gene == gene)).any()))
    assert 50 < sum(rests) < 250
    return items, rests


@pytest.mark.parametrize("name", ["esm_mlp", "analogy"])
def test_a_belief_without_a_training_row_of_the_gene_says_that_it_is_a_base_rate(
    name: str, bundled_store: ArtifactStore
) -> None:
    items, rests = random_questions(bundled_store)
    for item, has_rows, outcome in zip(items, rests, open_verifier(name, bundled_store).score(items), strict=True):
        assert isinstance(outcome, Scored)
        assert isinstance(item.task, DifferentialExpression)
        assert outcome.components.keys() == ({"lift"} if has_rows else {"base_rate"})
        remark = f"base rate: {item.task.measured_gene} has no training row in RPE1"
        assert (remark in outcome.evidence[0].text) == (not has_rows)


@pytest.mark.parametrize("name", ["esm_mlp", "analogy"])
def test_the_lift_is_what_the_belief_adds_to_the_genes_rate_and_follows_the_answer(
    name: str, bundled_store: ArtifactStore
) -> None:
    items, rests = random_questions(bundled_store)
    verifier = open_verifier(name, bundled_store)
    model = open_analogy(bundled_store)._line_models[LINE, KIND]
    row_of = {symbol: row for row, symbol in enumerate(open_analogy(bundled_store)._symbols)}
    folds = 3
    of_row = np.unique(model.rows.perturbation, return_inverse=True)[1] % folds
    perturbations = np.unique(model.rows.perturbation).tolist()
    by_answer = [
        verifier.score([replace(item, answer=answer) for item in items], with_evidence=False)
        for answer in (True, False, AnswerProblem.NO_ANSWER_BLOCK)
    ]
    seen = 0
    for item, has_rows, yes, no, silent_one in zip(items, rests, *by_answer, strict=True):
        assert isinstance(yes, Scored)
        assert isinstance(no, Scored)
        assert isinstance(silent_one, Scored)
        if not has_rows:
            assert "lift" not in {*yes.components, *no.components, *silent_one.components}
            continue
        seen += 1
        assert isinstance(item.task, DifferentialExpression)
        assert yes.belief is not None
        perturbation, gene = row_of[item.task.perturbation], row_of[item.task.measured_gene]
        kept = np.ones(len(model.rows), np.bool_)
        if name == "esm_mlp" and perturbation in perturbations:
            # Its net has not seen the fold, so neither has the rate; analogy counts the rate of all rows.
            kept = of_row != perturbations.index(perturbation) % folds
        label, of_gene = model.rows.label[kept], model.rows.gene[kept] == gene
        usual = (label[of_gene].sum() + 2 * label.mean()) / (of_gene.sum() + 2)
        q = sigmoid(np.array(logit(yes.belief) - logit(usual)))
        assert yes.components["lift"] == pytest.approx(q, abs=1e-5)
        assert no.components["lift"] == pytest.approx(1 - q, abs=1e-5)
        assert silent_one.components["lift"] == 0.0
    assert seen > 50


@pytest.mark.parametrize(("belief", "usual", "q"), [(0.3, 0.3, 0.5), (0.5, 0.2, 0.8), (0.01, 0.01 / 0.06, 0.01 / 0.21)])
def test_a_belief_at_the_usual_rate_has_a_lift_of_one_half(belief: float, usual: float, q: float) -> None:
    odds = belief / (1 - belief) / (usual / (1 - usual))
    assert lift(belief, usual, True) == pytest.approx(odds / (1 + odds))
    assert lift(belief, usual, True) == pytest.approx(q, abs=0.005)
    assert lift(belief, usual, False) == pytest.approx(1 - lift(belief, usual, True))


@pytest.mark.parametrize(("belief", "q"), [(0.0, 0.0), (1.0, 1.0)])
def test_a_certain_belief_has_a_certain_lift(belief: float, q: float) -> None:
    assert (lift(belief, 0.2, True), lift(belief, 0.2, False), lift(belief, 0.2, None)) == (q, 1 - q, 0.0)


@pytest.mark.parametrize("name", ["esm_mlp", "analogy"])
def test_a_model_with_one_rate_for_a_gene_ranks_its_pairs_by_lift_as_by_belief(
    name: str, bundled_store: ArtifactStore
) -> None:
    # A rate without the fold of each pair would be low exactly where that fold's rows are positive.
    model = open_analogy(bundled_store)._line_models[LINE, KIND]
    symbols = open_analogy(bundled_store)._symbols
    gene = int(np.bincount(model.rows.gene).argmax())
    perturbations = np.unique(model.rows.perturbation)[:60]
    items = [Item(DifferentialExpression(symbols[one], symbols[gene], LINE), answer=True) for one in perturbations]
    outcomes = [one for one in open_verifier(name, bundled_store).score(items) if isinstance(one, Scored)]
    assert len(outcomes) == len(items)
    for fold in range(3):
        of_fold = [
            one for one, perturbation in zip(outcomes, perturbations, strict=True) if model.fold[perturbation] == fold
        ]
        by_belief = sorted(of_fold, key=lambda one: one.belief or 0.0)
        assert by_belief == sorted(by_belief, key=lambda one: one.components["lift"])
    by_belief = sorted(outcomes, key=lambda one: one.belief or 0.0)
    same = by_belief == sorted(by_belief, key=lambda one: one.components["lift"])
    assert same == (name == "analogy")


def test_rates_are_of_the_rows_outside_the_fold_and_nothing_for_genes_without_any() -> None:
    fold = np.array([0, 1, -1, -1, -1], np.int8)
    perturbations, genes = np.array([0, 0, 1, 1]), np.array([2, 3, 3, 4])
    labels = np.array([1, 1, 0, 1], np.int8)
    rates = rates_outside_folds(perturbations, genes, labels, fold, 2)
    nan = float("nan")
    assert rates[0] == pytest.approx([nan, nan, nan, (0 + 2 * 0.5) / 3, (1 + 2 * 0.5) / 3], nan_ok=True)
    # Outside of fold 1 every row is positive: nothing can be believed to respond more than usual.
    assert rates[1] == pytest.approx([nan] * 5, nan_ok=True)
    assert rates[2] == pytest.approx([nan, nan, (1 + 1.5) / 3, (1 + 1.5) / 4, (1 + 1.5) / 3], nan_ok=True)


def test_a_build_may_give_no_number_for_a_base_rate(bundled_store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(NOT_APPLICABLE)
    settings = read_build_settings(tmp_path / "settings.yaml")
    store = ArtifactStore(tmp_path / "artifacts")
    shutil.copytree(bundled_store.root / "genes", store.root / "genes")
    items, rests = random_questions(bundled_store)
    for name in ("esm_mlp", "analogy"):
        assert settings.of(name) != BuildSettings().of(name)
        build_artifact(name, store, bundled_sources(tmp_path), silent, settings)
        verifier = open_verifier(name, store)
        assert verifier.description.fingerprint != open_verifier(name, bundled_store).description.fingerprint
        outcomes = verifier.score(items)
        assert [isinstance(outcome, Scored) for outcome in outcomes] == rests
        refused = [outcome for outcome in outcomes if isinstance(outcome, NotApplicable)]
        assert {outcome.reason for outcome in refused} == {"no_training_row"}
        assert all("has no training row in RPE1" in outcome.detail for outcome in refused)
        item, expected = verifier.canary()
        assert verifier.score([item]) == [expected]
        assert isinstance(expected, Scored)


def test_rows_that_all_lie_in_the_perturbations_own_fold_are_none_to_rest_on() -> None:
    fold = np.array([0, 1, -1, -1, -1], np.int8)
    # Gene 2: under the perturbation of fold 0 alone; gene 3: under both; gene 4: under one without a fold.
    has_rows = rows_outside_folds(np.array([0, 0, 1, 2]), np.array([2, 3, 3, 4]), fold, 2)
    assert has_rows.tolist() == [
        [False, False, False, True, True],
        [False, False, True, True, True],
        [False, False, True, True, True],
    ]
    assert canary_pair(fold, has_rows) == (0, 3)


def test_an_artifact_of_an_earlier_version_is_told_how_to_be_mended(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.building("analogy") as folder:
        folder.commit(description="old", license="CC0", sources=[], parameters={"vectors": "GO"})
    artifact = store.open("analogy")
    assert artifact.parameter("vectors") == "GO"
    with pytest.raises(ArtifactError, match=r"no parameter base_rate; .* Run: bioverify data build analogy"):
        artifact.parameter("base_rate")


def test_nets_that_were_built_without_rates_are_told_to_be_built_again(
    bundled_store: ArtifactStore, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path)
    shutil.copytree(bundled_store.root / "genes", store.root / "genes")
    built = bundled_store.open("esm_mlp")
    with store.building("esm_mlp") as folder:
        for name in built.manifest.files:
            shutil.copy(built.path / name, folder.path / name)
        parameters = {key: one for key, one in built.manifest.parameters.items() if key != "rate_prior_rows"}
        folder.commit(description="old", license="CC0", sources=[], parameters=parameters)
    with pytest.raises(ArtifactError, match=r"no parameter rate_prior_rows; .* Run: bioverify data build esm_mlp"):
        open_verifier("esm_mlp", store)


def test_a_misspelt_cell_line_is_told_the_one_that_is_near() -> None:
    outcome = asked_of(DifferentialExpression("AARS1", "ASNS", "K526"), ("k562", "rpe1"))
    assert outcome == NotApplicable("unknown_cell_line", "K526 is not one of k562, rpe1. Is K562 meant?")
    outcome = asked_of(DifferentialExpression("AARS1", "ASNS", "HeLa"), ("k562", "rpe1"))
    assert outcome == NotApplicable("unknown_cell_line", "HeLa is not one of k562, rpe1.")
