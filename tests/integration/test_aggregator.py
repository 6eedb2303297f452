"""Fan-out and composition over real sockets: what a fault of one verifier does, and what it does not."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from bioverify import recipes
from bioverify.client import Client, ClientError, ItemReward, Message, ScoreItem, messages
from bioverify.core.answers import AnswerProblem
from bioverify.core.outcomes import Failed, NotApplicable, Scored
from bioverify.core.rewards import MISSING_IN_GROUP
from bioverify.core.tasks import DifferentialExpression
from bioverify.transport.refusals import refusal_from_error
from bioverify.v1 import reward_pb2, reward_pb2_grpc, types_pb2, verifier_pb2, verifier_pb2_grpc
from tests.fixtures import servers
from tests.fixtures.rewards import item, many_items, optional, outcome_of, recipe, required
from tests.fixtures.verifiers import belief_of
from tests.fixtures.waiting import wait_until

LOOKUP_AND_TEXT = recipe(required("lookup", 2.0), required("text"), optional("text", 0.5, component="vowels"))


@pytest.fixture(scope="module")
def verifiers() -> Iterator[dict[str, str]]:
    with servers.verifier("Lookup", max_items=64) as lookup, servers.verifier("Text") as text:
        yield {"lookup": lookup.target, "text": text.target}


@pytest.fixture(scope="module")
def service(verifiers) -> Iterator[servers.Service]:
    with servers.aggregator(verifiers, max_items=512) as running:
        yield running


@pytest.fixture(scope="module")
def client(service) -> Iterator[Client]:
    with Client(service.target) as opened:
        yield opened


def test_rewards_are_the_weighted_sum_of_what_the_verifiers_say(client) -> None:
    one = item("a", "AARS1", "ASNS", "no")
    began = time.monotonic()
    batch = client.score([one], LOOKUP_AND_TEXT)
    assert 0 < batch.wall_s <= time.monotonic() - began
    [reward] = batch.rewards
    belief = belief_of("AARS1", "ASNS", "1")
    vowels = sum(letter in "aeiou" for letter in one.completion) / len(one.completion)
    text = min(1.0, len(one.completion) / 100)
    assert [part.contribution for part in reward.parts] == pytest.approx([2 * (1 - belief), text, 0.5 * vowels])
    assert reward.reward == pytest.approx(2 * (1 - belief) + text + 0.5 * vowels)
    assert reward.task == one.task
    assert reward.answer is False
    lookup = reward.parts[0].outcome
    assert isinstance(lookup, Scored)
    assert lookup.belief == pytest.approx(belief)
    assert lookup.evidence[0].simulated


def test_order_and_ids_are_kept_over_many_batches_and_equal_questions_are_asked_once(client) -> None:
    items = many_items(300)
    batch = client.score(items, LOOKUP_AND_TEXT)
    assert [reward.id for reward in batch.rewards] == [one.id for one in items]
    for one, reward in zip(items, batch.rewards, strict=True):
        outcome = outcome_of(reward, "lookup")
        if one.task.perturbation == "UNKNOWN":
            assert isinstance(outcome, NotApplicable)
        else:
            assert outcome.belief == pytest.approx(belief_of(one.task.perturbation, one.task.measured_gene, "1"))
    lookup, text = batch.verifiers
    questions = {(one.task, reward.answer) for one, reward in zip(items, batch.rewards, strict=True)}
    assert (lookup.verifier, lookup.items, lookup.distinct) == ("lookup", 300, len(questions))
    assert lookup.calls == 2  # 75 questions at most, 64 to a call
    assert (text.distinct, text.calls) == (300, 1)
    assert lookup.wall_s > 0
    assert lookup.work_s > 0


def test_tasks_and_answers_are_read_off_the_conversation(client) -> None:
    question = DifferentialExpression("A", "B", "K562").question
    items = [
        ScoreItem("a", "<think>x</think><answer>yes</answer>", prompt=[Message("user", question)]),
        ScoreItem("b", "", prompt=[Message("user", question)]),
        ScoreItem("c", "<answer>yes</answer>", prompt=[Message("user", "What is love?")]),
    ]
    first, second, third = client.score(items, recipe(required("lookup"))).rewards
    assert first.task == DifferentialExpression("A", "B", "k562")
    assert first.answer is True
    assert (second.reward, second.answer) == (0.0, AnswerProblem.EMPTY_COMPLETION)
    assert third.reward is None
    assert third.unscorable_because.startswith("lookup is not applicable: unrecognised_question")
    assert '"What is love?"' in third.unscorable_because


def test_an_optional_term_that_is_missing_for_one_member_is_dropped_for_its_group_alone(client) -> None:
    by = recipe(required("text"), optional("lookup", 2.0))
    items = [item("a", group_id="g"), item("b", "UNKNOWN", group_id="g"), item("c", group_id="h"), item("d")]
    a, b, c, d = client.score(items, by).rewards
    assert a.parts[1].dropped_because == MISSING_IN_GROUP
    assert a.reward == a.parts[0].contribution
    assert b.reward == b.parts[0].contribution
    assert c.parts[1].contribution is not None
    assert d.parts[1].contribution is not None


def test_the_callers_request_id_reaches_the_logs_of_both_services() -> None:
    with servers.verifier("Lookup") as lookup, servers.aggregator({"lookup": lookup.target}) as running:
        request = messages.score_request(
            [messages.item_to_wire(item("a", "RAISES"))], recipe(required("lookup")), with_evidence=True
        )
        with grpc.insecure_channel(running.target) as channel:
            began = time.monotonic()
            stub = reward_pb2_grpc.RewardServiceStub(channel)
            reply = stub.ScoreBatch(request, metadata=[("x-request-id", "step-7")])
            assert 0 < reply.wall_seconds <= time.monotonic() - began
        assert {line["request_id"] for line in lookup.log_lines("scoring an item raised")} == {"step-7"}


def test_an_item_that_raises_is_unscorable_and_the_rest_is_scored(client) -> None:
    rewards = client.score([item("a"), item("b", "RAISES"), item("c")], LOOKUP_AND_TEXT).rewards
    assert [reward.reward is None for reward in rewards] == [False, True, False]
    assert rewards[1].unscorable_because == "lookup failed: internal"
    assert outcome_of(rewards[1], "text")


def test_a_verifier_killed_mid_batch_is_reported_failed_not_zero() -> None:
    with servers.verifier("Lookup") as lookup, servers.verifier("Text") as text:
        targets = {"lookup": lookup.target, "text": text.target}
        with servers.aggregator(targets) as running, Client(running.target) as client:
            batch = client.score([item("a"), item("b", "KILLS")], LOOKUP_AND_TEXT, deadline_s=10)
            for reward in batch.rewards:
                assert reward.reward is None
                outcome = outcome_of(reward, "lookup")
                assert isinstance(outcome, Failed)
                assert outcome.reason == "unavailable"
                assert isinstance(outcome_of(reward, "text"), Scored)
            report = batch.verifiers[0]
            assert (report.failed, report.first_failure.reason) == (2, "unavailable")
            # With the term optional the same items have a reward from what is left.
            optional_lookup = recipe(required("text"), optional("lookup"))
            assert all(reward.reward for reward in client.score([item("a")], optional_lookup).rewards)


def test_a_verifier_that_never_answers_costs_no_more_than_the_deadline(verifiers) -> None:
    with (
        servers.black_hole() as hole,
        servers.aggregator({**verifiers, "hole": hole}) as running,
        Client(running.target) as client,
    ):
        started = time.monotonic()
        batch = client.score([item("a")], recipe(required("text"), optional("hole")), deadline_s=1.0)
        assert time.monotonic() - started < 1.05
    [reward] = batch.rewards
    assert reward.reward == reward.parts[0].contribution
    assert outcome_of(reward, "hole").reason == "deadline_exceeded"


def test_a_slow_verifier_loses_its_own_scores_only() -> None:
    with (
        servers.verifier("Lookup") as lookup,
        servers.verifier("Text", parameters={"delay_s": 1.5}) as text,
        servers.aggregator({"lookup": lookup.target, "text": text.target}) as running,
        Client(running.target) as client,
    ):
        started = time.monotonic()
        by = recipe(required("lookup"), optional("text"))
        [reward] = client.score([item("a")], by, deadline_s=1.0).rewards
        assert time.monotonic() - started < 1.05
    assert reward.reward == reward.parts[0].contribution
    assert outcome_of(reward, "text").reason == "deadline_exceeded"


class Rogue(verifier_pb2_grpc.VerifierServiceServicer):
    """A verifier that breaks the contract in the way that it is told to."""

    def __init__(self, spoil: Callable[[list[types_pb2.Outcome]], None]) -> None:
        self.spoil = spoil

    def Describe(self, request, context):  # noqa: N802
        return verifier_pb2.DescribeResponse(
            name="rogue", fingerprint="f", reads=[verifier_pb2.READ_FIELD_COMPLETION], deterministic=True
        )

    def ScoreBatch(self, request, context):  # noqa: N802
        outcomes = [types_pb2.Outcome(item_id=i.id, scored=types_pb2.Scored(value=0.5)) for i in request.items]
        self.spoil(outcomes)
        return verifier_pb2.VerifierServiceScoreBatchResponse(outcomes=outcomes, fingerprint="f")

    def ScoreStream(self, request_iterator, context):  # noqa: N802
        raise NotImplementedError


def _set_value(value: float) -> Callable[[list[types_pb2.Outcome]], None]:
    return lambda outcomes: setattr(outcomes[1].scored, "value", value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda outcomes: outcomes.pop(),
        lambda outcomes: outcomes.reverse(),
        lambda outcomes: outcomes.append(outcomes[0]),
        lambda outcomes: outcomes[0].Clear(),
        lambda outcomes: outcomes[0].ClearField("scored"),
        _set_value(1.5),
        _set_value(-0.1),
        _set_value(float("nan")),
    ],
)
def test_a_reply_that_breaks_the_contract_is_a_failure_and_never_a_number(rogue_aggregator, spoil) -> None:
    rogue, client = rogue_aggregator
    rogue.spoil = spoil
    rewards = client.score([item("a"), item("b")], recipe(required("rogue"))).rewards
    assert [outcome_of(reward, "rogue").reason for reward in rewards] == ["invalid_reply"] * 2
    assert [reward.reward for reward in rewards] == [None, None]


@pytest.fixture(scope="module")
def rogue_aggregator() -> Iterator[tuple[Rogue, Client]]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    rogue = Rogue(lambda outcomes: None)
    verifier_pb2_grpc.add_VerifierServiceServicer_to_server(rogue, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with servers.aggregator({"rogue": f"127.0.0.1:{port}"}) as running, Client(running.target) as client:
        assert client.score([item("a"), item("b")], recipe(required("rogue"))).rewards[0].reward == 0.5
        yield rogue, client
    server.stop(None)


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"recipe_name": "nonsense"}, "recipe_name", "there are: all,"),
        ({"recipe_name": "all"}, "recipe_name", "configured with lookup, text"),
        ({}, "by", "exactly one field is required"),
        ({"recipe": reward_pb2.Recipe(name="empty")}, "recipe", "at least one term"),
        (
            {"recipe": reward_pb2.Recipe(terms=[reward_pb2.Term(verifier="text", weight=1)])},
            "recipe.terms[0].requirement",
            "must not be in list",
        ),
        (
            {"recipe": reward_pb2.Recipe(terms=[reward_pb2.Term(verifier="text", weight=float("inf"), requirement=1)])},
            "recipe.terms[0].weight",
            "finite",
        ),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused_with_the_name_of_the_field(service, fields, field, problem) -> None:
    request = reward_pb2.RewardServiceScoreBatchRequest(items=[types_pb2.Item(id="a", completion="x")], **fields)
    with grpc.insecure_channel(service.target) as channel, pytest.raises(grpc.RpcError) as caught:
        reward_pb2_grpc.RewardServiceStub(channel).ScoreBatch(request)
    refusal = refusal_from_error(caught.value)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [name for name, _ in refusal.violations] == [field]
    assert problem in refusal.violations[0][1]


def test_an_unknown_source_is_refused_with_the_names_of_the_known_ones(client) -> None:
    bad = ScoreItem("b", "x", source="moon")
    with pytest.raises(ClientError, match=r"items\[1\].source: recipe test has no source 'moon'; it has none"):
        client.score([item("a"), bad], LOOKUP_AND_TEXT)


def test_too_many_items_in_one_call_are_refused_at_once(service) -> None:
    items = [types_pb2.Item(id=str(index)) for index in range(513)]
    request = reward_pb2.RewardServiceScoreBatchRequest(items=items, recipe_name="all")
    with grpc.insecure_channel(service.target) as channel, pytest.raises(grpc.RpcError) as caught:
        reward_pb2_grpc.RewardServiceStub(channel).ScoreBatch(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_verifiers_and_recipes_are_listed(verifiers) -> None:
    with servers.aggregator({**verifiers, "gone": "127.0.0.1:9", "wrong": verifiers["text"]}) as running:
        with Client(running.target) as client:
            listed = {verifier.name: verifier for verifier in client.list_verifiers()}
            assert [one.name for one in client.list_recipes()] == list(recipes.names())
            assert recipes.load("all") in client.list_recipes()
        assert running.health() == health_pb2.HealthCheckResponse.SERVING
        with grpc.insecure_channel(running.target) as channel:
            assert servers.REWARD_SERVICE in ProtoReflectionDescriptorDatabase(channel).get_services()
    assert listed["lookup"].is_ready
    assert listed["lookup"].artifacts[0].name == "test-table"
    assert listed["text"].components == {"vowels": "Share of vowels, in [0, 1]."}
    assert (listed["gone"].is_ready, listed["gone"].failure.reason) == (False, "unavailable")
    assert (listed["wrong"].is_ready, listed["wrong"].failure.reason) == (False, "misconfigured")


def test_several_workers_share_one_port_and_one_cache(verifiers) -> None:
    listen, metrics_port = f"127.0.0.1:{servers.free_port()}", servers.free_port()
    with (
        servers.valkey() as url,
        servers.aggregator(verifiers, listen=listen, metrics_port=metrics_port, workers=2, redis_url=url) as running,
    ):
        hits = []
        for _ in range(6):
            with Client(listen) as client:
                hits.append(client.score([item("a")], LOOKUP_AND_TEXT).verifiers[0].cache_hits)
        assert hits == [0, 1, 1, 1, 1, 1]
        text = urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics").read().decode()
        assert 'bioverify_rewards_total{cause="",result="rewarded"} 6.0' in text
        running.terminate()
        assert running.process.wait(5) == 0


def test_sigterm_answers_the_accepted_call_and_ends_the_process() -> None:
    found: list[ItemReward] = []
    with (
        servers.verifier("Text", parameters={"delay_s": 1.0}) as text,
        servers.aggregator({"text": text.target}, metrics_port=servers.free_port()) as running,
        Client(running.target) as client,
    ):
        asking = threading.Thread(
            target=lambda: found.extend(client.score([item("a")], recipe(required("text"))).rewards)
        )
        asking.start()
        wait_until(lambda: running.metric("bioverify_items_in_flight") == 1)
        running.terminate()
        asking.join(5)
        assert found[0].reward is not None
        assert running.process.wait(3) == 0
