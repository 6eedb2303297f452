"""What a verifier says is bounded, and so is a reply: no call is lost because somebody is wordy."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.client import Client, ScoreItem, messages
from bioverify.core.outcomes import Failed, NotApplicable, Scored
from bioverify.core.recipes import Recipe
from bioverify.transport.channels import CHANNEL_OPTIONS, MAX_MESSAGE_BYTES
from bioverify.v1 import reward_pb2, reward_pb2_grpc, types_pb2, verifier_pb2
from bioverify.wire.outcomes import MAX_EVIDENCE, MAX_OUTCOME_BYTES, bound_outcome
from tests.fixtures import servers
from tests.fixtures.rewards import item, numbers, optional, outcome_of, recipe, required
from tests.fixtures.verifiers import COMPONENTS, belief_of
from tests.integration.test_aggregator_policies import Scripted, served

BY_MANY_TERMS = recipe(required("verbose"), *(optional("verbose", component=name) for name in COMPONENTS))
ITEMS = [item(str(number), f"G{number}", "B") for number in range(1024)]


class Foreign(Scripted):
    """A verifier that is not hosted by our runtime, and says all that it has to say."""

    def Describe(self, request, context):  # noqa: N802
        described = super().Describe(request, context)
        described.limits.max_items = 64
        return described

    def ScoreBatch(self, request, context):  # noqa: N802
        response = verifier_pb2.VerifierServiceScoreBatchResponse(fingerprint="f")
        for one in request.items:
            scored = response.outcomes.add(item_id=one.id).scored
            scored.value = 0.5
            for number in range(100):
                scored.evidence.add(text=f"{number} " + "x" * 5000, source="y" * 5000)
        return response


@pytest.fixture(scope="module")
def service() -> Iterator[servers.Service]:
    with (
        servers.verifier("Verbose") as verbose,
        servers.verifier("Lookup") as lookup,
        served(Foreign(), 4) as scripted,
        servers.aggregator({"verbose": verbose.target, "lookup": lookup.target, "scripted": scripted}) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def client(service: servers.Service) -> Iterator[Client]:
    with Client(service.target) as opened:
        yield opened


def reply_to(
    service: servers.Service, items: list[ScoreItem], by: Recipe, *, evidence_once: bool
) -> reward_pb2.RewardServiceScoreBatchResponse:
    request = messages.score_request(
        [messages.item_to_wire(one) for one in items], by, with_evidence=True, evidence_once=evidence_once
    )
    with grpc.insecure_channel(service.target, options=CHANNEL_OPTIONS) as channel:
        return reward_pb2_grpc.RewardServiceStub(channel).ScoreBatch(request, timeout=120)


@pytest.mark.parametrize("verifier", ["verbose", "scripted"])
def test_the_evidence_of_an_outcome_is_bounded_and_says_so(client: Client, verifier: str) -> None:
    [reward] = client.score([item("a")], recipe(required(verifier))).rewards
    outcome = outcome_of(reward, verifier)
    assert isinstance(outcome, Scored)
    assert reward.reward == outcome.value
    texts = [one.text for one in outcome.evidence]
    assert sum(len(text.encode()) for text in texts) <= MAX_OUTCOME_BYTES
    assert len(texts) >= 2
    assert "(cut: it has" in texts[0]
    assert texts[-1].startswith(f"cut: {len(texts) - 1} of 100 pieces of evidence are shown")


def test_a_verifier_asked_by_many_terms_with_long_evidence_loses_no_call_and_no_reward(
    service: servers.Service, client: Client
) -> None:
    reply = reply_to(service, ITEMS, BY_MANY_TERMS, evidence_once=False)
    assert MAX_MESSAGE_BYTES // 2 < reply.ByteSize() <= MAX_MESSAGE_BYTES
    without = client.score(ITEMS, BY_MANY_TERMS, with_evidence=False)
    assert [one.reward for one in reply.rewards] == [one.reward for one in without.rewards]
    first, last = ([part.outcome.scored for part in reward.parts] for reward in (reply.rewards[0], reply.rewards[-1]))
    # As long as there is room each part has all of it; then each says that it was left out, and keeps its numbers.
    assert {len(one.evidence) for one in first} == {len(first[0].evidence)}
    assert len(first[0].evidence) > 1
    assert {tuple(evidence.text[:9] for evidence in one.evidence) for one in last} == {("left out:",)}
    assert [dict(one.components) for one in last] == [COMPONENTS] * len(last)
    assert {(one.value, one.belief) for one in last} == {(last[0].value, belief_of("G1023", "B", "1"))}


def test_evidence_once_is_sent_with_the_first_part_and_read_into_each(service: servers.Service, client: Client) -> None:
    few = ITEMS[:8]
    long, short = (reply_to(service, few, BY_MANY_TERMS, evidence_once=once) for once in (False, True))
    assert short.ByteSize() < long.ByteSize() / 5
    for every, once in zip(long.rewards, short.rewards, strict=True):
        assert [bool(part.outcome.scored.evidence) for part in once.parts] == [True] + [False] * len(COMPONENTS)
        assert once.parts[0] == every.parts[0]
        for part in every.parts[1:]:
            part.outcome.scored.ClearField("evidence")
        assert once == every
    batches = [client.score(few, BY_MANY_TERMS, evidence_once=once) for once in (True, False)]
    assert numbers(batches[0].rewards) == numbers(batches[1].rewards)


def test_all_items_of_a_call_keep_their_evidence_if_it_is_sent_once(service: servers.Service) -> None:
    reply = reply_to(service, ITEMS, BY_MANY_TERMS, evidence_once=True)
    assert all(len(reward.parts[0].outcome.scored.evidence) > 1 for reward in reply.rewards)


def test_a_long_reason_is_cut_and_too_many_numbers_are_a_fault_of_that_verifier_alone(client: Client) -> None:
    by = recipe(required("lookup"), optional("verbose"))
    unknown, numerous = client.score([item("a", "UNKNOWN"), item("b", "NUMBERS")], by).rewards
    reason, fault = outcome_of(unknown, "verbose"), outcome_of(numerous, "verbose")
    assert isinstance(reason, NotApplicable)
    assert reason.reason == "unknown_gene"
    assert reason.detail.endswith("… (cut: it has 300,000 bytes)")
    assert isinstance(fault, Failed)
    assert "the numbers of one outcome take" in fault.detail
    assert numerous.reward is not None


def test_more_parts_than_a_reply_can_hold_are_refused_before_anybody_is_asked(service: servers.Service) -> None:
    by = recipe(*(optional("lookup", component=f"c{number}") for number in range(250)))
    with pytest.raises(grpc.RpcError) as refused:
        reply_to(service, ITEMS, by, evidence_once=True)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "256,000 parts are more than one reply can hold" in refused.value.details()


def test_a_components_name_has_an_end(client: Client) -> None:
    request = reward_pb2.RewardServiceScoreBatchRequest(items=[messages.item_to_wire(ITEMS[0])])
    request.recipe.terms.add(
        verifier="lookup", component="c" * 129, weight=1, requirement=reward_pb2.REQUIREMENT_OPTIONAL
    )
    with (
        grpc.insecure_channel(client.target) as channel,
        pytest.raises(grpc.RpcError, match=r"recipe.terms\[0\].component"),
    ):
        reward_pb2_grpc.RewardServiceStub(channel).ScoreBatch(request, timeout=10)


@given(
    st.lists(st.tuples(st.text(max_size=20), st.integers(0, 500), st.text(max_size=5)), max_size=60),
    st.dictionaries(st.text(max_size=8), st.floats(0, 1), max_size=5),
)
def test_whatever_is_said_fits_and_numbers_stay(said: list[tuple[str, int, str]], components: dict[str, float]) -> None:
    outcome = types_pb2.Outcome(scored=types_pb2.Scored(value=0.25, belief=0.75, components=components))
    for text, times, source in said:
        outcome.scored.evidence.add(text=text * times, source=source * times)
    before = types_pb2.Outcome.FromString(outcome.SerializeToString())
    bound_outcome(outcome)
    if before.ByteSize() <= MAX_OUTCOME_BYTES and len(said) <= MAX_EVIDENCE:
        assert outcome == before
    else:
        assert outcome.scored.evidence[-1].text.startswith("cut: ")
    assert outcome.ByteSize() <= MAX_OUTCOME_BYTES
    assert len(outcome.scored.evidence) <= MAX_EVIDENCE
    bounded = types_pb2.Outcome.FromString(outcome.SerializeToString())
    bound_outcome(bounded)
    assert bounded == outcome
    for one in (outcome, before):
        one.scored.ClearField("evidence")
    assert outcome == before
