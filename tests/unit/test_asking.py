"""One verifier asked by several callers: what is shared, what is remembered, and under which key.

The verifier is a real gRPC service in the test's own event loop, and what is remembered lies in a real Valkey.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import redis
from prometheus_client import REGISTRY

from bioverify.aggregator.cache import OutcomeCache
from bioverify.aggregator.encoded import encode_outcome, failure
from bioverify.aggregator.fanout import VerifierReply, ask_verifier
from bioverify.aggregator.faults import of_refusal
from bioverify.aggregator.policy.breaker import State
from bioverify.aggregator.questions import Questions, cache_key, question_of
from bioverify.aggregator.reading import asked_by, read_recipe, read_request
from bioverify.aggregator.upstream import Upstream
from bioverify.core.answers import AnswerProblem, ParseMode
from bioverify.core.completions import PromptForm
from bioverify.core.outcomes import Failed, NotApplicable, Scored
from bioverify.core.recipes import Recipe, Source, Term
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, GeneAnnotation, TaskKind
from bioverify.core.verifier import Item, Reads
from bioverify.runtime.errors import Refused
from bioverify.transport.headers import REQUEST_ID
from bioverify.transport.redis_address import read_address
from bioverify.transport.refusals import Refusal, refusal_metadata
from bioverify.v1 import reward_pb2, types_pb2, verifier_pb2, verifier_pb2_grpc
from bioverify.wire.outcomes import outcome_to_wire
from bioverify.wire.rewards import recipe_to_wire
from tests.fixtures import servers
from tests.fixtures.rewards import optional, recipe, required
from tests.fixtures.waiting import wait_until


class Told(verifier_pb2_grpc.VerifierServiceServicer):
    """Says what it is told to. ``gate``: calls are answered when it is set. ``refusals``: of the next calls.

    The value of an answer is a hundredth of the number of the call that gave it.
    """

    def __init__(self, **described: Any) -> None:
        self.description = verifier_pb2.DescribeResponse(
            **{
                "name": "told",
                "fingerprint": "1",
                "reads": [verifier_pb2.READ_FIELD_COMPLETION],
                "deterministic": True,
                "idempotent": True,
            }
            | described
        )
        self.answers_as: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.refusals: list[grpc.StatusCode | Refusal] = []
        self.unspoilt = True
        self.is_silent = False
        self.calls: list[verifier_pb2.VerifierServiceScoreBatchRequest] = []
        self.request_ids: list[str] = []
        self.cancelled = 0

    async def Describe(self, request, context):  # noqa: N802
        if self.is_silent:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "as told")
        return self.description

    async def ScoreBatch(self, request, context):  # noqa: N802
        self.calls.append(request)
        self.request_ids.append(dict(context.invocation_metadata()).get(REQUEST_ID, ""))
        number = len(self.calls)
        if self.refusals:
            refused = self.refusals.pop(0)
            if isinstance(refused, Refusal):
                context.set_trailing_metadata(refusal_metadata(refused))
                await context.abort(refused.code, refused.message)
            await context.abort(refused, "as told")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        outcomes = [
            types_pb2.Outcome(
                item_id=one.id,
                scored=types_pb2.Scored(value=number / 100, evidence=[types_pb2.Evidence(text="seen")]),
            )
            for one in request.items
        ]
        if not self.unspoilt:
            outcomes.pop()
        return verifier_pb2.VerifierServiceScoreBatchResponse(
            outcomes=outcomes,
            fingerprint=self.answers_as or self.description.fingerprint,
            timing=verifier_pb2.Timing(queue_seconds=0.25, work_seconds=0.5),
        )


@contextlib.asynccontextmanager
async def asked(told: Told, *, replicas: int = 1, max_waiting: int = 1000) -> AsyncIterator[Upstream]:
    server = grpc.aio.server()
    verifier_pb2_grpc.add_VerifierServiceServicer_to_server(told, server)
    targets = [f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}" for _ in range(replicas)]
    await server.start()
    upstream = Upstream("told", ",".join(targets), describe_ttl_s=1.0, max_waiting=max_waiting)
    try:
        yield upstream
    finally:
        told.gate.set()
        await upstream.close()
        await server.stop(None)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with servers.valkey() as url:
        yield url


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[OutcomeCache]:
    opened = OutcomeCache(read_address(redis_url), ttl_s=60, timeout_s=5.0, pause_s=0.01)
    yield opened
    await opened.close()


@pytest.fixture
def stored(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        opened.flushdb()
        yield opened


def ask(
    upstream: Upstream,
    texts: list[str],
    *,
    cache: OutcomeCache | None = None,
    with_evidence: bool = False,
    seconds: float = 20.0,
) -> asyncio.Task[VerifierReply]:
    questions = Questions([Item(None, None, text) for text in texts], ParseMode.WHOLE_WORDS)
    deadline = time.monotonic() + seconds
    positions = list(range(len(texts)))
    return asyncio.ensure_future(
        ask_verifier(upstream, cache, questions, positions, deadline, with_evidence=with_evidence)
    )


def key_of(text: str, fingerprint: str = "1") -> bytes:
    return cache_key("told", fingerprint, question_of(Item(None, None, text), Reads.COMPLETION))


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"bioverify_{name}", {"verifier": "told", **labels}) or 0.0


def values(reply: VerifierReply) -> list[float | None]:
    return [outcome.value for outcome in reply.outcomes]


def reasons(reply: VerifierReply) -> list[str]:
    found = [outcome.outcome for outcome in reply.outcomes]
    return [one.reason if isinstance(one, Failed) else "" for one in found]


async def until_called(told: Told, calls: int = 1) -> None:
    await asyncio.to_thread(wait_until, lambda: len(told.calls) >= calls)


async def test_answers_of_another_version_are_asked_again_and_never_remembered_under_the_old_one(cache, stored) -> None:
    told = Told()
    async with asked(told) as upstream:
        assert values(await ask(upstream, ["known"], cache=cache)) == [0.01]
        # Another version takes over between two calls; it has been asked who it is a moment ago.
        told.description.fingerprint = "2"
        reply = await ask(upstream, ["known", "new"], cache=cache)
        assert (reply.fingerprint, reply.cache_hits, reply.distinct) == ("2", 0, 2)
        assert values(reply) == [0.03, 0.03]
    assert set(stored.keys()) == {key_of("known"), key_of("known", "2"), key_of("new", "2")}


async def test_a_verifier_of_several_versions_at_once_fails_and_nothing_of_it_is_remembered(cache, stored) -> None:
    told = Told()
    told.answers_as = "2"
    async with asked(told) as upstream:
        reply = await ask(upstream, ["a", "b", "a"], cache=cache)
    assert reasons(reply) == ["version_changed"] * 3
    failed = reply.outcomes[0].outcome
    assert failed == Failed("version_changed", "told answers with several versions at once", retryable=True)
    assert (reply.distinct, len(told.calls)) == (2, 2)
    assert stored.keys() == []


async def test_a_verifier_that_does_not_say_which_version_took_over_fails_and_keeps_what_it_cost() -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        told.is_silent, told.answers_as = True, "2"
        reply = await ask(upstream, ["a", "a", "b"])
    assert reasons(reply) == ["not_a_verifier"] * 3
    assert (reply.distinct, reply.cache_hits, reply.usage.calls) == (2, 0, 1)


async def test_a_verifier_that_was_never_heard_of_fails_with_what_it_cost() -> None:
    told = Told()
    told.is_silent = True
    async with asked(told) as upstream:
        reply = await ask(upstream, ["a", "b"])
    assert reasons(reply) == ["not_a_verifier"] * 2
    assert (reply.distinct, reply.usage.calls, reply.usage.wall_s, told.calls) == (0, 0, 0.0, [])


async def test_without_stated_limits_a_call_holds_256_items_and_half_of_four_mebibytes() -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, [f"{n}" for n in range(257)])
        assert sorted(len(call.items) for call in told.calls) == [1, 256]
        told.calls.clear()
        await ask(upstream, [f"{n}" * 1_000_000 for n in range(1, 6)])
        assert sorted(len(call.items) for call in told.calls) == [1, 2, 2]


async def test_what_is_known_is_not_asked_and_is_counted(cache, stored) -> None:
    told = Told()
    async with asked(told) as upstream:
        first = await ask(upstream, ["a", "b", "a"], cache=cache)
        second = await ask(upstream, ["b", "c", "a"], cache=cache)
    assert [len(call.items) for call in told.calls] == [2, 1]
    assert (first.distinct, first.cache_hits, first.fingerprint) == (2, 0, "1")
    assert (second.distinct, second.cache_hits) == (3, 2)
    assert values(second) == [0.01, 0.02, 0.01]
    assert [outcome.from_cache for outcome in second.outcomes] == [True, False, True]
    assert all(0 < stored.ttl(key) <= 60 for key in stored.scan_iter())


async def test_two_who_ask_a_verifier_that_is_not_deterministic_get_an_answer_each_and_none_is_remembered(
    cache, stored
) -> None:
    told = Told(deterministic=False)
    async with asked(told) as upstream:
        replies = await asyncio.gather(*(ask(upstream, ["a"], cache=cache) for _ in range(3)))
        assert sorted(value for reply in replies for value in values(reply) if value is not None) == [0.01, 0.02, 0.03]
        assert [reply.shared for reply in replies] == [0, 0, 0]
    assert stored.keys() == []


async def test_what_a_verifier_said_while_it_was_deterministic_is_not_given_out_when_it_is_no_more(
    cache, stored
) -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["a"], cache=cache)
        told.description.deterministic = False
        await upstream.account(time.monotonic() + 5, refresh=True)
        reply = await ask(upstream, ["a"], cache=cache)
    assert (reply.cache_hits, values(reply)) == (0, [0.02])


@pytest.mark.parametrize("first", [True, False])
async def test_a_call_is_shared_only_if_both_who_ask_know_the_verifier_as_deterministic(first: bool) -> None:
    told = Told(deterministic=first)
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        told.gate.clear()
        asking = [ask(upstream, ["a"])]
        await until_called(told, 2)
        told.description.deterministic = not first
        await upstream.account(time.monotonic() + 5, refresh=True)
        asking.append(ask(upstream, ["a"]))
        await until_called(told, 3)
        told.gate.set()
        replies = await asyncio.gather(*asking)
    assert [values(reply) for reply in replies] == [[0.02], [0.03]]


async def test_who_asks_the_same_at_the_same_time_shares_the_answer_and_the_count_says_so() -> None:
    told = Told()
    told.gate.clear()
    async with asked(told) as upstream:
        first = ask(upstream, ["a", "b"])
        await until_called(told)
        second = ask(upstream, ["a", "c"])
        await until_called(told, 2)
        told.gate.set()
        replies = await asyncio.gather(first, second)
    assert [[one.completion for one in call.items] for call in told.calls] == [["a", "b"], ["c"]]
    assert [values(reply) for reply in replies] == [[0.01, 0.01], [0.01, 0.02]]
    assert [reply.shared for reply in replies] == [0, 1]


@pytest.mark.parametrize("first_wants", [True, False])
async def test_callers_with_and_without_evidence_share_no_call(first_wants: bool) -> None:
    told = Told()
    told.gate.clear()
    async with asked(told) as upstream:
        asking = [ask(upstream, ["a"], with_evidence=first_wants)]
        await until_called(told)
        asking.append(ask(upstream, ["a"], with_evidence=not first_wants))
        await until_called(told, 2)
        told.gate.set()
        replies = await asyncio.gather(*asking)
    assert [call.omit_evidence for call in told.calls] == [not first_wants, first_wants]
    for reply, wants in zip(replies, (first_wants, not first_wants), strict=True):
        found = reply.outcomes[0].outcome
        assert isinstance(found, Scored)
        assert bool(found.evidence) == wants


async def test_evidence_that_is_lacking_is_asked_for_and_remembered_for_both(cache, stored) -> None:
    told = Told()
    async with asked(told) as upstream:
        without, with_it, both = [
            await ask(upstream, ["a"], cache=cache, with_evidence=wanted) for wanted in (False, True, False)
        ]
    assert [reply.cache_hits for reply in (without, with_it, both)] == [0, 0, 1]
    shown = [reply.outcomes[0].outcome for reply in (without, with_it, both)]
    assert [len(one.evidence) for one in shown if isinstance(one, Scored)] == [0, 1, 0]


async def test_a_fault_of_our_own_is_internal_for_the_items_of_that_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object, **__: object) -> None:
        raise LookupError("of our own")

    async with asked(Told()) as upstream:
        monkeypatch.setattr(upstream, "account", raises)
        reply = await ask(upstream, ["a", "b"])
    said = "asking told raised LookupError; the aggregator's log has more"
    assert [one.outcome for one in reply.outcomes] == [Failed("internal", said, retryable=False)] * 2


async def test_a_call_is_cut_by_the_verifiers_limits_and_put_together_in_order() -> None:
    told = Told(limits=verifier_pb2.Limits(max_items=3, max_bytes=400))
    texts = [f"{n}" for n in range(7)] + ["x" * 150, "y" * 150]
    async with asked(told) as upstream:
        reply = await ask(upstream, texts)
        sizes = [len(call.items) for call in told.calls]
        by_text = {item.completion: number / 100 for number, call in enumerate(told.calls, 1) for item in call.items}
    assert sizes == [3, 3, 2, 1]
    assert [item.id for item in told.calls[0].items] == ["0", "1", "2"]
    assert values(reply) == [by_text[text] for text in texts]
    assert reply.usage.calls == 4


@pytest.mark.parametrize(
    ("refused", "calls", "reason", "retryable"),
    [
        (grpc.StatusCode.UNAVAILABLE, 3, "unavailable", True),
        (grpc.StatusCode.INTERNAL, 1, "internal", False),
        (grpc.StatusCode.UNKNOWN, 1, "internal", False),
        (grpc.StatusCode.UNIMPLEMENTED, 1, "not_a_verifier", False),
        (grpc.StatusCode.CANCELLED, 3, "unavailable", True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 1, "too_large", False),
        (Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", retry_after_s=0.1), 1, "resource_exhausted", True),
    ],
)
async def test_what_a_refusal_means_and_whether_it_is_asked_again(refused, calls, reason, retryable) -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        told.refusals = [refused] * 3
        reply = await ask(upstream, ["a"])
        [outcome] = [one.outcome for one in reply.outcomes]
        assert isinstance(outcome, Failed)
        assert (outcome.reason, outcome.retryable) == (reason, retryable)
        assert outcome.detail.startswith(f"told at {upstream.target}: ")
        assert (len(told.calls) - 1, reply.usage.calls, reply.usage.retries) == (calls, calls, calls - 1)
        # Places before the verifier are given back after an error.
        replica = upstream._replicas[0]
        assert (replica.limit.in_flight, replica.limit.waiting) == (0, 0)


async def test_a_verifier_that_minds_being_asked_twice_is_asked_once() -> None:
    told = Told(idempotent=False)
    async with asked(told) as upstream:
        told.refusals = [grpc.StatusCode.UNAVAILABLE]
        assert reasons(await ask(upstream, ["a"])) == ["unavailable"]
    assert len(told.calls) == 1


async def test_a_reply_of_the_wrong_length_fails_its_call() -> None:
    told = Told()
    told.unspoilt = False
    async with asked(told) as upstream:
        reply = await ask(upstream, ["a", "b"])
    failed = reply.outcomes[0].outcome
    assert failed == Failed("invalid_reply", "the reply breaks the contract: 1 outcomes for 2 items", retryable=False)


async def test_a_caller_out_of_time_is_told_so_and_the_verifier_stops() -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        told.gate.clear()
        started = time.monotonic()
        reply = await ask(upstream, ["a"], seconds=0.2)
        assert 0.15 < time.monotonic() - started < 3
        assert reasons(reply) == ["deadline_exceeded"]
        assert reply.outcomes[0].outcome.retryable
        await asyncio.to_thread(wait_until, lambda: told.cancelled == 1)
        assert upstream._replicas[0].limit.in_flight == 0
        assert upstream.state is State.CLOSED


async def test_a_full_queue_fails_new_items_at_once_and_only_them() -> None:
    many = 64
    told = Told(limits=verifier_pb2.Limits(max_items_in_flight=many))
    async with asked(told, max_waiting=many) as upstream:
        await ask(upstream, ["warm"])
        told.gate.clear()
        busy = ask(upstream, [f"a{n}" for n in range(many)])
        await until_called(told, 2)
        waiting = ask(upstream, [f"b{n}" for n in range(many)])
        await asyncio.sleep(0.01)
        assert not upstream.has_room(1)
        outcomes = (await ask(upstream, [f"c{n}" for n in range(many)])).outcomes
        assert len(outcomes) == many
        why = f"{many} items wait already, and {many} more would exceed the limit"
        for one in outcomes:
            assert isinstance(one.outcome, Failed)
            assert (one.outcome.reason, one.outcome.detail.endswith(why)) == ("overloaded", True), one.outcome
        told.gate.set()
        assert {reason for reply in await asyncio.gather(busy, waiting) for reason in reasons(reply)} == {""}
        assert (await waiting).usage.waited_s > 0
        assert upstream.has_room(many)


async def test_a_verifier_of_another_name_is_misconfigured_and_never_asked() -> None:
    told = Told(name="somebody_else")
    async with asked(told) as upstream:
        reply = await ask(upstream, ["a"])
        failed = reply.outcomes[0].outcome
        detail = f"{upstream.target} calls itself 'somebody_else'; the configuration calls it 'told'"
    assert failed == Failed("misconfigured", detail, retryable=False)
    assert told.calls == []


async def test_a_replica_that_is_slow_is_overtaken_by_another_within_a_budget() -> None:
    told = Told()
    async with asked(told, replicas=2) as upstream:
        for n in range(20):
            await ask(upstream, [f"warm {n}"])
        told.gate.clear()
        ended = {result: counted("aggregator_hedges_total", result=result) for result in ("won", "lost")}
        asking = ask(upstream, ["a"])
        await until_called(told, 22)
        told.gate.set()
        reply = await asking
    assert (reply.usage.calls, reply.usage.hedges) == (2, 1)
    assert reasons(reply) == [""]
    assert sum(counted("aggregator_hedges_total", result=result) - before for result, before in ended.items()) == 1


async def test_a_verifier_that_is_gone_opens_its_breaker_and_is_found_again() -> None:
    port = servers.free_port()
    told = Told()

    async def start() -> grpc.aio.Server:
        server = grpc.aio.server()
        verifier_pb2_grpc.add_VerifierServiceServicer_to_server(told, server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server

    upstream = Upstream("told", f"127.0.0.1:{port}", describe_ttl_s=1.0, max_waiting=1000)
    replica = upstream._replicas[0]
    server = await start()
    try:
        for _ in range(2):
            assert reasons(await ask(upstream, ["a"])) == [""]
            assert upstream.state is State.CLOSED
            await server.stop(None)
            while replica.is_allowed:
                assert set(reasons(await ask(upstream, ["b"]))) <= {"unavailable", "breaker_open"}
            suspended = await ask(upstream, ["b"])
            assert suspended.outcomes[0].outcome == Failed(
                "breaker_open",
                f"told at 127.0.0.1:{port} has stopped answering; calls are suspended until it recovers",
                retryable=True,
            )
            assert counted("aggregator_breaker", target=replica.target) == 2
            assert (suspended.usage.calls, replica.limit.limit) == (0, 1.0)
            server = await start()
            async with asyncio.timeout(20):
                assert replica._recovering is not None
                await replica._recovering
            assert upstream.state is State.HALF_OPEN
            assert counted("aggregator_breaker", target=replica.target) == 1
    finally:
        await upstream.close()
        await server.stop(None)


async def test_calls_failures_and_shared_questions_are_counted_under_their_verifier() -> None:
    names = {
        "aggregator_failures_total": {"reason": "internal"},
        "aggregator_retries_total": {},
        "aggregator_shared_total": {},
        "aggregator_wait_seconds_count": {},
    }
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        before = {name: counted(name, **labels) for name, labels in names.items()}
        answered, refused = (counted("aggregator_verifier_calls_total", code=code) for code in ("OK", "INTERNAL"))
        told.refusals = [grpc.StatusCode.INTERNAL]
        await ask(upstream, ["a", "b"])
        told.refusals = [grpc.StatusCode.UNAVAILABLE]
        await ask(upstream, ["c"])
        told.gate.clear()
        asking = [ask(upstream, ["d"])]
        await until_called(told, 5)
        asking.append(ask(upstream, ["d"]))
        await asyncio.sleep(0.01)
        told.gate.set()
        await asyncio.gather(*asking)
        grown = {name: counted(name, **labels) - before[name] for name, labels in names.items()}
        assert counted("aggregator_verifier_calls_total", code="INTERNAL") - refused == 1
        # A probe may have been answered beside the calls.
        assert counted("aggregator_verifier_calls_total", code="OK") - answered >= 2
        assert counted("aggregator_limit_items", target=upstream.target) == upstream._replicas[0].limit.limit
    assert grown == {
        "aggregator_failures_total": 2,
        "aggregator_retries_total": 1,
        "aggregator_shared_total": 1,
        "aggregator_wait_seconds_count": 4,
    }


TEXT = Item(DifferentialExpression("A", "B", "k562"), True, "text", ParseMode.WHOLE_WORDS, PromptForm.ANSWER)
OTHERS: dict[str, list[Any]] = {
    "task": [
        None,
        DifferentialExpression("B", "A", "k562"),
        DifferentialExpression("A", "B", "rpe1"),
        DifferentialExpression("AB", "", "k562"),
        DirectionOfChange("A", "B", "k562"),
        CoExpression("A", "B"),
        GeneAnnotation(("A", "B")),
        GeneAnnotation(("AB",)),
        GeneAnnotation(("A", "B", "k562")),
    ],
    "answer": [None, False, *AnswerProblem],
    "completion": ["", "text ", "Text", "tex", "\ud800"],
    "parse_mode": [ParseMode.RBIO_DEMO],
    "prompt_form": [PromptForm.GENE_INFO],
}
READ_AS = {
    "task": Reads.TASK,
    "answer": Reads.ANSWER,
    **dict.fromkeys(("completion", "parse_mode", "prompt_form"), Reads.COMPLETION),
}
ANY_READS = [Reads(sum(one.value for one in some)) for size in range(4) for some in itertools.combinations(Reads, size)]


@pytest.mark.parametrize("reads", ANY_READS)
@pytest.mark.parametrize("field", OTHERS)
def test_each_field_that_is_read_makes_another_key_and_no_other_does(field: str, reads: Reads) -> None:
    variants = [TEXT, *(dataclasses.replace(TEXT, **{field: value}) for value in OTHERS[field])]
    keys = {cache_key("told", "1", question_of(one, reads)) for one in variants}
    assert len(keys) == (len(variants) if READ_AS[field] in reads else 1)
    assert Questions(variants, ParseMode.WHOLE_WORDS).hashes(reads) == [question_of(one, reads) for one in variants]


def test_keys_of_verifiers_and_versions_are_apart_and_have_the_form_that_is_documented() -> None:
    keys = {cache_key(name, print_, b"0" * 32) for name in ("a", "b") for print_ in ("1", "2")}
    assert len(keys) == 4
    assert cache_key("a", "1", question_of(TEXT, Reads.COMPLETION)).decode().split(":")[:2] == ["bv4", "{a}"]
    assert [len(part) for part in cache_key("a", "1", question_of(TEXT, ~Reads(0))).split(b":")] == [3, 3, 16, 32]


@pytest.mark.parametrize("reads", ANY_READS)
def test_a_verifier_is_sent_what_it_reads_and_nothing_else(reads: Reads) -> None:
    items = [TEXT, dataclasses.replace(TEXT, prompt_form=PromptForm.GENE_INFO), Item(None)]
    questions = Questions(items, ParseMode.WHOLE_WORDS)
    one, two, nothing = questions.messages([0, 1, 2], reads)
    assert [message.id for message in (one, two, nothing)] == ["0", "1", "2"]
    assert one.HasField("task") == (Reads.TASK in reads)
    assert one.HasField("answer") == (Reads.ANSWER in reads)
    assert one.completion == ("text" if Reads.COMPLETION in reads else "")
    assert (one.prompt_form, two.prompt_form) == (
        (types_pb2.PROMPT_FORM_ANSWER, types_pb2.PROMPT_FORM_GENE_INFO) if Reads.COMPLETION in reads else (0, 0)
    )
    assert not nothing.HasField("task")
    assert not nothing.HasField("answer")
    assert questions.messages([1], reads) == [two]


def sent(*sources: str) -> reward_pb2.RewardServiceScoreBatchRequest:
    request = reward_pb2.RewardServiceScoreBatchRequest()
    for number, source in enumerate(sources):
        one = request.items.add(id=str(number), source=source, completion="<answer>yes</answer>")
        one.task.differential_expression.CopyFrom(
            types_pb2.DifferentialExpression(perturbation="A", measured_gene="B", cell_line="k562")
        )
    return request


TWO_SOURCES = Recipe(
    name="two",
    terms=(required("format"),),
    sources=(
        Source(name="one", share=0.5, task_kind=TaskKind.DIFFERENTIAL_EXPRESSION, terms=(optional("a"),)),
        Source(name="other", share=0.5, task_kind=TaskKind.GENE_ANNOTATION, terms=(optional("consensus"),)),
    ),
)


def test_each_verifier_is_asked_about_the_items_that_its_terms_apply_to() -> None:
    read = read_request(sent("one", "other", ""), TWO_SOURCES, ("b", "a"), [Reads.COMPLETION])
    assert read.positions == {"format": [0, 1, 2], "a": [0, 1, 2], "b": [1]}
    assert read.terms[0] == (required("format"), optional("a"))
    assert read.unread == {}


def test_sources_that_a_recipe_lacks_are_named_each_with_its_item() -> None:
    with pytest.raises(Refused) as caught:
        read_request(sent("one", "nowhere", "other", "elsewhere"), TWO_SOURCES, ("a",), [])
    said = "recipe two has no source 'nowhere'; it has one, other"
    assert ("items[1].source", said) in caught.value.refusal.violations
    assert [field for field, _ in caught.value.refusal.violations] == ["items[1].source", "items[3].source"]


def test_a_question_of_no_known_form_is_kept_with_its_item() -> None:
    request = reward_pb2.RewardServiceScoreBatchRequest()
    for text in ("What is the capital of France?", "Does a knockout of A change B?"):
        request.items.add(completion="yes").prompt.add(role="user", content=text)
    read = read_request(request, recipe(optional("a")), (), [])
    assert [read.unread[row].quote for row in (0, 1)] == [
        "What is the capital of France?",
        "Does a knockout of A change B?",
    ]
    assert [read.unread[row].reason for row in (0, 1)] == ["other_subject", "knockout"]


@pytest.mark.parametrize(
    ("terms", "members", "names"),
    [
        ([required("a"), optional("b")], (), ("a", "b")),
        ([required("b"), optional("consensus")], ("a", "b"), ("b", "a")),
        ([optional("consensus")], (), ()),
    ],
)
def test_a_consensus_asks_its_members_once(terms: list[Term], members: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert asked_by(terms, members) == names


@pytest.mark.parametrize(
    ("configured", "members", "problem"),
    [
        (["format"], (), "recipe two asks a, consensus; this aggregator is configured with format"),
        ([], (), "recipe two asks format, a, consensus; this aggregator is configured with none"),
        (
            ["format", "experimental"],
            (),
            "recipe two asks a, consensus; this aggregator is configured with format, experimental. "
            "Recipes that it can answer: rbio1-exp",
        ),
        (["format", "a"], ("a",), ""),
    ],
)
def test_a_recipe_that_asks_whom_nobody_configured_is_refused_by_name(configured, members, problem) -> None:
    request = reward_pb2.RewardServiceScoreBatchRequest(recipe=recipe_to_wire(TWO_SOURCES))
    if not problem:
        assert read_recipe(request, configured, members) == TWO_SOURCES
        return
    with pytest.raises(Refused) as caught:
        read_recipe(request, configured, members)
    assert caught.value.refusal.violations == (("recipe", problem),)


def test_not_applicable_is_remembered_and_a_failure_is_not(redis_url: str, stored: redis.Redis) -> None:
    fact = encode_outcome(outcome_to_wire("", NotApplicable("unknown_gene", "X")))

    async def run() -> None:
        cache = OutcomeCache(read_address(redis_url), ttl_s=60, timeout_s=5.0, pause_s=0.01)
        try:
            soon = time.monotonic() + 10
            await cache.put({b"bv4:{a}:1": fact, b"bv4:{a}:2": failure("away", "")}, soon, with_evidence=True)
            known = await cache.get("a", [b"bv4:{a}:1", b"bv4:{a}:2"], soon, with_evidence=True)
            assert {key: one.outcome for key, one in known.items()} == {b"bv4:{a}:1": fact.outcome}
            assert await cache.get("a", [b"bv4:{a}:1"], time.monotonic() - 1, with_evidence=True) == {}
        finally:
            await cache.close()

    asyncio.run(run())


def test_a_refusal_of_an_expired_call_is_known_by_its_reason() -> None:
    late = of_refusal(Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "late", "expired_in_queue"), "v at t")
    assert (late.reason, late.outcome.detail) == ("expired_in_queue", "v at t: DEADLINE_EXCEEDED: late")
    assert str(late) == "expired_in_queue: v at t: DEADLINE_EXCEEDED: late"
