"""The consensus: a logistic stack of beliefs, fitted to what the verifiers say of perturbations they did not see."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bioverify.artifacts.consensus import MEMBERS, fit_stack
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.weights import FILE, open_consensus
from bioverify.cli.services import open_verifier
from bioverify.core.consensus import Consensus, Stack, logit
from bioverify.core.metrics import fit_logistic, fit_within, sigmoid
from bioverify.core.outcomes import Evidence, Failed, NotApplicable, Outcome, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, Task, TaskKind
from bioverify.core.verifier import Item

DE = TaskKind.DIFFERENTIAL_EXPRESSION
ASKED = DifferentialExpression("AARS1", "ASNS", "K-562")


def made(**weights: float) -> Consensus:
    stacks = (Stack(cell_line="k562", task_kind=DE, weights=weights, offset=-0.5),)
    return Consensus(members=dict.fromkeys(weights, "fingerprint"), stacks=stacks)


def test_the_consensus_is_the_weighted_sum_of_logits() -> None:
    belief = made(net=0.6, trees=0.7).belief(ASKED, {"net": 0.8, "trees": 0.4, "somebody_else": 0.01})
    total = 0.6 * math.log(0.8 / 0.2) + 0.7 * math.log(0.4 / 0.6) - 0.5
    assert belief == pytest.approx(1 / (1 + math.exp(-total)))


@pytest.mark.parametrize(
    ("task", "beliefs"),
    [
        (ASKED, {"net": 0.8}),
        (ASKED, {}),
        (DirectionOfChange("AARS1", "ASNS", "k562"), {"net": 0.8, "trees": 0.4}),
        (DifferentialExpression("AARS1", "ASNS", "rpe1"), {"net": 0.8, "trees": 0.4}),
        (CoExpression("AARS1", "ASNS"), {"net": 0.8, "trees": 0.4}),
        (None, {"net": 0.8, "trees": 0.4}),
    ],
)
def test_where_too_little_is_known_there_is_no_consensus(task: Task | None, beliefs: dict[str, float]) -> None:
    assert made(net=0.6, trees=0.7).belief(task, beliefs) is None


def test_certain_beliefs_stay_finite() -> None:
    belief = made(net=1.0, trees=1.0).belief(ASKED, {"net": 1.0, "trees": 0.0})
    assert belief == pytest.approx(1 / (1 + math.exp(0.5)))


def test_members_that_say_the_same_share_their_weight_and_noise_gets_none() -> None:
    random = np.random.default_rng(0)
    truth = random.standard_normal(20_000)
    label = (random.random(20_000) < sigmoid(truth - 1.0)).astype(np.int8)
    logits = {"one": truth, "same": truth.copy(), "noise": random.standard_normal(20_000)}
    logits["noise"][:100] = np.nan
    groups = dict.fromkeys(logits, np.arange(20_000) % 50)
    stack, is_known = fit_stack("k562", DE, logits, label, groups)
    assert stack.weights == pytest.approx({"one": 0.5, "same": 0.5, "noise": 0.0}, abs=0.06)
    assert stack.offset == pytest.approx(-1.0, abs=0.08)
    assert not is_known[:100].any()
    assert is_known[100:].all()
    with pytest.raises(ArtifactError, match="no training rows of both labels"):
        fit_stack("k562", DE, logits, np.zeros(20_000, np.int8), groups)


def test_a_member_is_weighed_by_how_it_ranks_a_genes_rows_within_a_fold() -> None:
    # A model's bias for a gene is learnt from the other folds, so it is low where this fold has many positives.
    random = np.random.default_rng(1)
    gene, fold = np.arange(30_000) % 300, np.arange(30_000) // 300 % 5
    truth, shift = random.standard_normal(30_000), random.standard_normal((300, 5))[gene, fold]
    label = (random.random(30_000) < sigmoid(truth + shift)).astype(np.int8)
    logits = {"net": 0.7 * truth - 2.0 * shift, "noise": random.standard_normal(30_000)}
    groups = dict.fromkeys(logits, gene * 128 + fold)
    columns = np.column_stack(list(logits.values()))
    misled, _, _ = fit_logistic(columns, label)
    weighed, of_noise = fit_within(columns, label, np.column_stack(list(groups.values())))
    assert misled < 0 < 1.0 < weighed
    assert abs(of_noise) < 0.05
    stack, _ = fit_stack("k562", DE, logits, label, groups)
    assert stack.weights["noise"] / stack.weights["net"] == pytest.approx(of_noise / weighed)


def test_the_artifact_is_fitted_to_what_its_members_say_and_names_them(bundled_store: ArtifactStore) -> None:
    consensus, artifact = open_consensus(bundled_store)
    members = {name: open_verifier(name, bundled_store) for name in MEMBERS}
    assert consensus.members == {name: one.description.fingerprint for name, one in members.items()}
    assert set(artifact.manifest.inputs) == set(MEMBERS)
    assert artifact.manifest.simulated
    assert json.loads((artifact.path / FILE).read_text())["stacks"]
    task = DifferentialExpression("AARS1", "ASNS", "k562")
    beliefs = {}
    for name, verifier in members.items():
        outcome = verifier.score([Item(task, answer=True)])[0]
        assert isinstance(outcome, Scored)
        assert outcome.belief is not None
        beliefs[name] = outcome.belief
    stack = next(one for one in consensus.stacks if (one.cell_line, one.task_kind) == ("k562", DE))
    total = sum(weight * logit(beliefs[name]) for name, weight in stack.weights.items()) + stack.offset
    assert consensus.belief(task, beliefs) == pytest.approx(1 / (1 + math.exp(-total)))
    assert artifact.manifest.quality["k562.differential_expression.calibration_error"] < 0.05


@pytest.mark.parametrize("without_rows", [(), ("net",), ("net", "trees")])
def test_the_consensus_says_which_members_only_know_a_base_rate(without_rows: tuple[str, ...]) -> None:
    consensus = made(net=0.6, trees=0.7)
    told = {
        name: Scored(belief, {"base_rate": 1.0} if name in without_rows else {}, belief=belief)
        for name, belief in {"net": 0.1, "trees": 0.2}.items()
    }
    outcome = consensus.outcome(ASKED, True, told, dict.fromkeys(told, "fingerprint"), with_evidence=True)
    assert isinstance(outcome, Scored)
    start = f"ASNS under knockdown of AARS1 in K562: consensus p(yes) = {outcome.belief:.2f} of "
    assert [one.text for one in outcome.evidence] == [
        start
        + {
            (): "net 0.10, trees 0.20",
            ("net",): "net 0.10 (base rate), trees 0.20",
            ("net", "trees"): "net 0.10, trees 0.20, base rate: none of them has a training row of ASNS to answer from",
        }[without_rows]
    ]
    assert outcome.components == ({"base_rate": 1.0} if len(without_rows) == 2 else {})
    silent = consensus.outcome(ASKED, True, told, dict.fromkeys(told, "fingerprint"), with_evidence=False)
    assert isinstance(silent, Scored)
    assert (silent.components, silent.belief, silent.evidence) == (outcome.components, outcome.belief, ())


NET, TREES = Scored(0.1, belief=0.1), Scored(0.2, belief=0.2)


def said(told: dict[str, Outcome], task: Task | None = ASKED, **fingerprints: str) -> Outcome:
    known = dict.fromkeys(told, "fingerprint") | fingerprints
    return made(net=0.6, trees=0.7).outcome(task, True, told, known, with_evidence=True)


@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("member", ["net", "trees"])
def test_a_member_that_failed_makes_the_consensus_fail_and_may_pass_if_it_may(member: str, retryable: bool) -> None:
    told: dict[str, Outcome] = {"net": NET, "trees": TREES, member: Failed("away", "Gone.", retryable)}
    assert said(told) == Failed("member_failed", f"{member} failed: away. Gone.", retryable)


def test_weights_of_another_version_give_no_number_and_say_how_they_are_made_again() -> None:
    detail = "the weights were fitted to another version of trees. Run: bioverify data build consensus"
    assert said({"net": NET, "trees": TREES}, trees="another") == Failed("outdated_weights", detail, retryable=False)


@pytest.mark.parametrize(
    ("net", "trees", "task", "holders"),
    [
        (NET, NotApplicable("unknown_gene", ""), ASKED, "net"),
        (NotApplicable("unknown_gene", ""), TREES, ASKED, "trees"),
        (Scored(0.5), TREES, ASKED, "trees"),
        (Scored(0.5), NotApplicable("unknown_gene", ""), ASKED, "no verifier"),
        (NET, TREES, CoExpression("AARS1", "ASNS"), "net, trees"),
        (NET, TREES, None, "net, trees"),
    ],
)
def test_where_too_few_hold_a_belief_it_says_who_does(net: Outcome, trees: Outcome, task: Task, holders: str) -> None:
    detail = f"Of net, trees, {holders} holds a belief here."
    assert said({"net": net, "trees": trees}, task) == NotApplicable("too_few_beliefs", detail)


@pytest.mark.parametrize("simulated", [False, True])
def test_evidence_of_a_simulated_member_makes_the_consensus_simulated(simulated: bool) -> None:
    told = {"net": NET, "trees": Scored(0.2, evidence=(Evidence("seen", "x", simulated),), belief=0.2)}
    outcome = said(told)
    assert isinstance(outcome, Scored)
    assert [(one.source, one.simulated) for one in outcome.evidence] == [("consensus", simulated)]


def test_a_belief_is_rounded_to_nine_digits_and_kept_a_millionth_from_certainty() -> None:
    assert logit(0.0) == math.log(1e-6 / (1 - 1e-6)) == pytest.approx(-logit(1.0))
    assert logit(0.5) == 0.0
    assert logit(2e-6) == math.log(2e-6 / (1 - 2e-6))
    belief = made(net=0.6, trees=0.7).belief(ASKED, {"net": 0.3, "trees": 0.4})
    assert belief is not None
    assert belief == round(belief, 9) != round(belief, 8)
