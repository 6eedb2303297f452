"""The classifier: trained the same every time, measured by PerturbQA's metric, named for what it was fed."""

from __future__ import annotations

import numpy as np
import pytest

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange
from bioverify.core.verifier import Item
from bioverify.verifiers.esm_mlp.train import Rows, auc_per_gene, logits, train
from bioverify.verifiers.esm_mlp.vectors import go_svd
from bioverify.verifiers.esm_mlp.verifier import EsmMlp, open_verifier


@pytest.fixture(scope="module")
def verifier(bundled_store: ArtifactStore) -> EsmMlp:
    return open_verifier(bundled_store)


def test_the_metric_is_the_mean_auc_over_genes_with_both_labels() -> None:
    rows = Rows(
        np.zeros(10, np.int64),
        np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2]),
        np.array([1, 0, 1, 0, 1, 1, 1, 0, 1, 0], np.int8),
    )
    scores = np.array([0.9, 0.8, 0.3, 0.1, 0.5, 0.6, 0.7, 0.4, 0.4, 0.1])
    # Gene 0: 3 of 4 pairs in order. Gene 1 has one label only. Gene 2: one pair in order, one tied.
    assert auc_per_gene(rows, scores) == (pytest.approx((0.75 + 0.75) / 2), 2)


def test_training_learns_a_rule_and_repeats_itself() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((60, 8)).astype(np.float32)
    perturbation, gene = random.integers(0, 60, (2, 4000))
    label = (vectors[perturbation, 0] + vectors[gene, 1] > 0).astype(np.int8)
    rows = Rows(perturbation, gene, label)
    first, second = (train(rows, vectors, steps=200) for _ in range(2))
    assert ((logits(first, rows, vectors) > 0) == label).mean() > 0.95
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert bool((one == other).all())


def test_vectors_liken_genes_with_shared_rare_terms_and_are_reproducible() -> None:
    random = np.random.default_rng(4)
    # Term 0 is everyone's; each ten genes share three terms of their own; two terms of 15 are chance.
    shared = {number: [1 + 3 * (number // 10) + offset for offset in range(3)] for number in range(150)}
    genes = {f"G{number}": sorted({0, *own, *random.integers(46, 61, 2).tolist()}) for number, own in shared.items()}
    vectors = go_svd(genes, 61, dimensions=20)
    assert (vectors == go_svd(genes, 61, dimensions=20)).all()
    similarity = vectors @ vectors.T / 20
    assert similarity[0, 0] == pytest.approx(1.0, abs=1e-5)
    assert similarity[0, 1:10].mean() > similarity[0, 10:].mean() + 0.3


def test_evidence_says_what_the_net_was_trained_on_and_fed_with(verifier: EsmMlp, bundled_store: ArtifactStore) -> None:
    down, up = verifier.score(
        [
            Item(DifferentialExpression("AARS", "ASNS", "K562"), answer=True),
            Item(DirectionOfChange("AARS", "ASNS", "K562"), answer=False),
        ]
    )
    assert isinstance(down, Scored)
    assert isinstance(up, Scored)
    assert down.value == down.belief
    assert up.belief == pytest.approx(1.0 - up.value)
    assert down.evidence[0].text == (
        f"p(yes) = {down.belief:.2f} (MLP trained on RPE1, HepG2, Jurkat; vectors: GO-SVD 16-d, not ESM2) "
        "(simulated screen, not an experiment)"
    )
    assert up.evidence[0].text.startswith("p(increase) = ")
    manifest = bundled_store.open("esm_mlp").manifest
    assert manifest.parameters["transfer"] == "leave one line out, strict"
    assert 0.0 < manifest.quality["k562.differential_expression.auc_per_gene_shuffled_vectors"] < 1.0


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (DifferentialExpression("NOSUCHGENE", "ASNS", "k562"), "unknown_gene"),
        (DifferentialExpression("AARS1", "ASNS", "hela"), "unknown_cell_line"),
        (DifferentialExpression("ANKRD22", "ASNS", "k562"), "no_vector"),
        (CoExpression("AARS1", "ASNS"), "other_task_kind"),
    ],
)
def test_what_the_net_cannot_be_asked_is_not_applicable(verifier: EsmMlp, task: CoExpression, reason: str) -> None:
    outcome = verifier.score([Item(task, answer=True)])[0]
    assert isinstance(outcome, NotApplicable)
    assert outcome.reason == reason
