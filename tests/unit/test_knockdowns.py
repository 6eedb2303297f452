"""Beliefs about knockdowns: what rests on no training row of the gene is told as a base rate, or is no number."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.build_settings import BuildSettings, read_build_settings
from bioverify.cli.services import build_artifact, open_verifier
from bioverify.core.knockdowns import asked_of, canary_pair, rows_outside_folds
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import DifferentialExpression, TaskKind
from bioverify.core.verifier import Item
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
        assert outcome.components == ({} if has_rows else {"base_rate": 1.0})
        remark = f"base rate: {item.task.measured_gene} has no training row in RPE1"
        assert (remark in outcome.evidence[0].text) == (not has_rows)


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


def test_a_misspelt_cell_line_is_told_the_one_that_is_near() -> None:
    outcome = asked_of(DifferentialExpression("AARS1", "ASNS", "K526"), ("k562", "rpe1"))
    assert outcome == NotApplicable("unknown_cell_line", "K526 is not one of k562, rpe1. Is K562 meant?")
    outcome = asked_of(DifferentialExpression("AARS1", "ASNS", "HeLa"), ("k562", "rpe1"))
    assert outcome == NotApplicable("unknown_cell_line", "HeLa is not one of k562, rpe1.")
