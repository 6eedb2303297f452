"""The consensus over real sockets: composed of what the members said in the same call, and never of a fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bioverify.client import Client, ClientError
from bioverify.core.consensus import Consensus, Stack
from bioverify.core.outcomes import Failed, NotApplicable, Scored
from bioverify.core.rewards import MISSING, MISSING_IN_GROUP
from bioverify.core.tasks import TaskKind
from tests.fixtures import servers
from tests.fixtures.rewards import item, optional, recipe, required
from tests.fixtures.verifiers import Lookup, belief_of

MEMBERS = {"lookup": Lookup(), "second": Lookup(name="second", version="2")}
STACK = Stack(
    cell_line="k562",
    task_kind=TaskKind.DIFFERENTIAL_EXPRESSION,
    weights={"lookup": 0.7, "second": 0.5},
    offset=-0.2,
)
CONSENSUS = Consensus(members={name: one.description.fingerprint for name, one in MEMBERS.items()}, stacks=(STACK,))
BOTH = recipe(required("lookup"), required("second"))


def config(consensus: Consensus = CONSENSUS) -> Mapping[str, Any]:
    return {"consensus": consensus.model_dump(mode="json")}


@pytest.fixture(scope="module")
def verifiers() -> Iterator[dict[str, str]]:
    second = servers.verifier("Lookup", parameters={"name": "second", "version": "2"})
    with servers.verifier("Lookup") as lookup, second as other:
        yield {"lookup": lookup.target, "second": other.target}


@pytest.fixture(scope="module")
def client(verifiers: dict[str, str]) -> Iterator[Client]:
    with servers.aggregator(verifiers, **config()) as running, Client(running.target) as opened:
        yield opened


def expected(perturbation: str, measured_gene: str) -> float:
    beliefs = {name: belief_of(perturbation, measured_gene, one.version) for name, one in MEMBERS.items()}
    belief = CONSENSUS.belief(item("x", perturbation, measured_gene).task, beliefs)
    assert belief is not None
    return belief


def test_a_reply_tells_what_the_beliefs_amount_to_together(client: Client) -> None:
    first, second = client.score([item("a", "A", "B", "yes"), item("b", "C", "D", "no")], BOTH).rewards
    assert isinstance(first.consensus, Scored)
    assert isinstance(second.consensus, Scored)
    assert first.consensus.belief == pytest.approx(expected("A", "B"))
    assert first.consensus.value == first.consensus.belief
    assert second.consensus.value == pytest.approx(1.0 - expected("C", "D"))
    [evidence] = first.consensus.evidence
    assert evidence.text.startswith(
        f"B under knockdown of A in K562: consensus p(yes) = {expected('A', 'B'):.2f} of lookup 0."
    )
    assert evidence.simulated
    assert [part.term.label for part in first.parts] == ["lookup", "second"], "the field adds nothing to the reward"


def test_a_recipe_may_name_the_consensus_which_asks_its_members(client: Client) -> None:
    batch = client.score([item("a", "A", "B", "no")], recipe(required("consensus", 2.0)))
    [reward] = batch.rewards
    assert reward.reward == pytest.approx(2.0 * (1.0 - expected("A", "B")))
    assert [report.verifier for report in batch.verifiers] == ["lookup", "second"]
    assert reward.parts[0].outcome == reward.consensus


def test_it_is_absent_where_a_recipe_asks_one_member_only(client: Client) -> None:
    [reward] = client.score([item("a")], recipe(required("lookup"))).rewards
    assert reward.consensus is None


def test_members_that_have_nothing_to_say_leave_too_few_beliefs(client: Client) -> None:
    [reward] = client.score([item("a", "UNKNOWN", "B")], recipe(required("consensus"))).rewards
    assert isinstance(reward.consensus, NotApplicable)
    assert reward.consensus.reason == "too_few_beliefs"
    assert reward.reward is None
    assert "consensus is not applicable: too_few_beliefs" in reward.unscorable_because


def test_a_consensus_that_a_member_of_the_group_lacks_is_dropped_for_the_group(verifiers: dict[str, str]) -> None:
    asked = [item("a", "A", "B", group_id="g"), item("b", "UNKNOWN", "B", group_id="g")]
    with servers.aggregator(verifiers, **config()) as running, Client(running.target) as client:
        mixed = recipe(optional("consensus"), optional("lookup"))
        has, lacks = client.score(asked, mixed).rewards
    assert has.parts[0].dropped_because == MISSING_IN_GROUP
    assert lacks.parts[0].dropped_because == MISSING


def test_a_member_that_failed_makes_the_consensus_fail_and_not_weaker(verifiers: dict[str, str]) -> None:
    gone = {"lookup": verifiers["lookup"], "second": "127.0.0.1:1"}
    with servers.aggregator(gone, **config()) as running, Client(running.target) as client:
        [reward] = client.score([item("a")], recipe(required("consensus")), deadline_s=5).rewards
    assert isinstance(reward.consensus, Failed)
    assert reward.consensus.reason == "member_failed"
    assert reward.consensus.detail.startswith("second failed: ")
    assert reward.reward is None
    assert "consensus failed: member_failed" in reward.unscorable_because


def test_weights_of_other_versions_are_not_used(verifiers: dict[str, str]) -> None:
    other = CONSENSUS.model_copy(update={"members": {**CONSENSUS.members, "second": "another fingerprint"}})
    with servers.aggregator(verifiers, **config(other)) as running, Client(running.target) as client:
        [reward] = client.score([item("a")], BOTH).rewards
    assert isinstance(reward.consensus, Failed)
    assert reward.consensus.reason == "outdated_weights"
    assert not reward.consensus.retryable
    assert "bioverify data build consensus" in reward.consensus.detail
    assert reward.reward is not None


def test_without_weights_a_recipe_that_names_it_is_refused(verifiers: dict[str, str]) -> None:
    with servers.aggregator(verifiers) as running, Client(running.target) as client:
        with pytest.raises(ClientError, match="asks consensus; this aggregator is configured with lookup, second"):
            client.score([item("a")], recipe(required("consensus")))
        assert client.score([item("a")], BOTH).rewards[0].consensus is None
