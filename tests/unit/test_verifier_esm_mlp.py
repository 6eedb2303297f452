"""The classifier: trained the same every time, measured by PerturbQA's metric, named for what it was fed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.knockdowns import rates_outside_folds, rows_outside_folds
from bioverify.core.metrics import sigmoid
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, TaskKind
from bioverify.core.verifier import Item
from bioverify.verifiers.esm_mlp import build
from bioverify.verifiers.esm_mlp.build import Table, Trained, fit, rates_of
from bioverify.verifiers.esm_mlp.net import RbioNet, TwoTowerNet
from bioverify.verifiers.esm_mlp.served import MAX_KEPT_GENES, LineNets, ServedRbioNet, ServedTwoTowerNet
from bioverify.verifiers.esm_mlp.settings import Form, NetName, Settings
from bioverify.verifiers.esm_mlp.train import Rows, logits, train_rbio, train_two_tower
from bioverify.verifiers.esm_mlp.vectors import go_svd
from bioverify.verifiers.esm_mlp.verifier import EsmMlp, open_verifier


@pytest.fixture(scope="module")
def verifier(bundled_store: ArtifactStore) -> EsmMlp:
    return open_verifier(bundled_store)


def test_both_nets_learn_a_rule_and_repeat_themselves() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((60, 8)).astype(np.float32)
    perturbation, gene = random.integers(0, 60, (2, 4000))
    label = (vectors[perturbation, 0] * vectors[gene, 1] > 0).astype(np.int8)
    rows = Rows(perturbation, gene, label)
    rbio, again = (train_rbio(rows, vectors, epochs=10) for _ in range(2))
    two_tower, once_more = (train_two_tower(rows, vectors, steps=60) for _ in range(2))
    assert ((logits(rbio, rows, vectors) > 0) == label).mean() > 0.85
    assert ((logits(two_tower, rows, vectors) > 0) == label).mean() > 0.75
    for one, other in ((rbio, again), (two_tower, once_more)):
        assert (logits(one, rows, vectors) == logits(other, rows, vectors)).all()


def test_the_two_tower_net_learns_by_the_gradient_of_its_formula_and_drops_the_share_it_is_told() -> None:
    random = np.random.default_rng(2)
    vectors = torch.from_numpy(random.standard_normal((30, 8)))
    # More than one piece, and pairs that come twice.
    perturbation, gene = (torch.from_numpy(random.integers(0, 30, 20_000)) for _ in range(2))
    net = (
        TwoTowerNet(8, torch.arange(30), torch.from_numpy(random.standard_normal(31).astype(np.float32)))
        .double()
        .eval()
    )
    towers = net.perturbed(vectors), net.measured(vectors) + net.free[:30]
    plain = (towers[0] @ towers[1].T / 8 + net.strength(towers[0]) + net.bias[:30])[perturbation, gene]
    weight = torch.from_numpy(random.standard_normal(20_000))
    found = net(vectors, perturbation, gene)
    torch.testing.assert_close(found, plain)
    gradients = (torch.autograd.grad((one * weight).sum(), list(net.parameters())) for one in (found, plain))
    for own, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(own, expected)
    net.train()
    torch.manual_seed(0)
    for layer, share in ((net.perturbed[0], 0.3), (net.measured[3], 0.6)):
        left = layer(torch.ones(400, 251))
        assert (left == 0).float().mean() == pytest.approx(share, abs=0.01)
        assert left.max() == pytest.approx(1 / (1 - share))


def test_nets_that_are_fitted_in_processes_beside_each_other_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 8)).astype(np.float32)
    genes = random.integers(0, 60, (2, 2, 600))
    rows_of = [(Rows(a, b, random.integers(0, 2, 600).astype(np.int8)),) * 2 for a, b in genes]
    found = [list(build.fitted(rows_of, vectors, Settings(steps=3)))]
    monkeypatch.setattr(build, "WORTH_PROCESSES", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    found.append(list(build.fitted(rows_of, vectors, Settings(steps=3))))
    for here, elsewhere in zip(*found, strict=True):
        assert (here.scale, here.offset, here.figures) == (elsewhere.scale, elsewhere.offset, elsewhere.figures)
        for own, other in zip(here.trained.nets, elsewhere.trained.nets, strict=True):
            assert all(torch.equal(*pair) for pair in zip(own.parameters(), other.parameters(), strict=True))


def test_no_belief_is_a_memory_of_the_perturbations_own_rows() -> None:
    random = np.random.default_rng(1)
    vectors = random.standard_normal((40, 6)).astype(np.float32)
    perturbations, measured_genes = random.integers(0, 40, (2, 3000))
    rows = Rows(perturbations, measured_genes, random.integers(0, 2, 3000).astype(np.int8))
    settings = Settings(folds=4, steps=5)
    flipped = Rows(rows.perturbation, rows.measured_gene, np.where(rows.perturbation == 7, 1 - rows.label, rows.label))
    asked = rows.where(rows.perturbation == 7)
    one, other = (fit(some, some, vectors, settings).logits(asked, vectors) for some in (rows, flipped))
    assert (one == other).all()
    elsewhere = rows.where(rows.perturbation == 8)
    one, other = (fit(some, some, vectors, settings).logits(elsewhere, vectors) for some in (rows, flipped))
    assert (one != other).all()


def test_the_strict_form_drops_what_the_line_tests_and_the_loose_one_does_not() -> None:
    kind = "differential_expression"
    table = Table(
        Rows(np.array([0, 1, 1, 2, 3]), np.array([9, 9, 9, 9, 9]), np.array([0, 1, 1, 0, 1], np.int8)),
        line=np.array(["k562", "k562", "rpe1", "rpe1", "rpe1"]),
        kind=np.array([kind] * 5),
        split=np.array(["train", "test", "train", "train", "test"]),
    )

    def perturbations(form: Form) -> list[int]:
        rows = table.training_rows("k562", TaskKind.DIFFERENTIAL_EXPRESSION, form)
        return list(rows.perturbation)

    assert perturbations("own") == [0]
    assert perturbations("strict") == [2]
    assert perturbations("loose") == [1, 2]


def test_a_lines_rates_leave_out_the_fold_that_its_net_has_not_seen_and_nothing_if_it_saw_no_row_of_the_line() -> None:
    own = Rows(np.array([0, 1, 1, 2]), np.array([3, 3, 4, 3]), np.array([1, 0, 1, 0], np.int8))
    fold = np.array([0, 1, 2, -1, -1], np.int8)
    net = RbioNet(2)
    of_own = rates_of(own, Trained([net] * 3, fold), "own")
    assert of_own[0, 3] == pytest.approx((0 + 2 / 3) / 4)
    assert of_own[1, 3] == pytest.approx((1 + 1) / 4)
    assert np.isnan(of_own[1, 4])
    assert of_own[3, 3] == pytest.approx((1 + 1) / 5)
    for form in ("strict", "loose"):
        assert rates_of(own, Trained([net] * 3, fold), form) == pytest.approx(np.tile(of_own[3], (4, 1)), nan_ok=True)


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
    assert down.belief is not None
    # The lift is the belief's odds over the odds of the rate that the sentence tells.
    odds = down.belief / (1 - down.belief) * (1 - down.components["lift"]) / down.components["lift"]
    usual = odds / (1 + odds)
    assert down.evidence[0].text == (
        f"ASNS under knockdown of AARS1 (asked as AARS) in K562: p(yes) = {down.belief:.2f}; usually {usual:.2f} "
        "(two-tower MLP trained on K562 without this perturbation; "
        "vectors: GO-SVD 16-d, not ESM2) "
        "(simulated screen, not an experiment)"
    )
    assert up.evidence[0].text.startswith(
        f"ASNS under knockdown of AARS1 (asked as AARS) in K562: p(increase) = {up.belief:.2f}"
    )
    manifest = bundled_store.open("esm_mlp").manifest
    assert manifest.parameters["form"] == "own"
    assert manifest.quality["k562.differential_expression.calibration_error"] < 0.1
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


@pytest.mark.parametrize("net", ["rbio", "two_tower"])
def test_what_is_served_equals_the_torch_modules_however_often_and_in_whatever_company(net: NetName) -> None:
    random = np.random.default_rng(7)
    vectors = random.standard_normal((MAX_KEPT_GENES + 500, 24)).astype(np.float32)
    perturbations, measured_genes = random.integers(0, 80, (2, 2000))
    rows = Rows(perturbations, measured_genes, random.integers(0, 2, 2000).astype(np.int8))
    trained = fit(rows, rows, vectors, Settings(net=net, steps=4, epochs=0.1))
    perturbations, measured_genes = random.integers(0, len(vectors), (2, 9000))
    asked = Rows(perturbations, measured_genes, np.zeros(9000, np.int8))
    in_double = Trained([one.double() for one in trained.nets], trained.fold)
    expected = sigmoid(1.3 * in_double.logits(asked, vectors.astype(np.float64)) - 0.2)
    served_as = {"rbio": ServedRbioNet, "two_tower": ServedTwoTowerNet}[net]
    nets = [served_as({name: one.numpy() for name, one in own.state_dict().items()}) for own in trained.nets]
    has_rows = rows_outside_folds(rows.perturbation, rows.measured_gene, trained.fold, len(nets))
    rates = rates_outside_folds(rows.perturbation, rows.measured_gene, rows.label, trained.fold, len(nets))
    served = LineNets(nets, vectors, trained.fold, has_rows, rates.astype(np.float32), 1.3, -0.2)
    for some in (slice(0, 1), slice(0, 700), slice(600, 3000), slice(0, 9000), slice(3000, 5000), slice(0, 700)):
        beliefs = served.beliefs(asked.perturbation[some], asked.measured_gene[some])
        np.testing.assert_allclose(beliefs, expected[some], rtol=0, atol=1e-9)
