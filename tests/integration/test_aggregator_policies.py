"""Each policy of the aggregator on real sockets: what a slow, dead or overloaded verifier costs, and what not."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest

from bioverify.aggregator.policy.latency import ENOUGH
from bioverify.client import AsyncClient, Client, ClientError, ScoredBatch, ScoreItem, VerifierReport, messages
from bioverify.core.outcomes import Failed
from bioverify.transport.refusals import Refusal, refusal_from_error, refusal_metadata
from bioverify.v1 import reward_pb2_grpc, types_pb2, verifier_pb2, verifier_pb2_grpc
from tests.fixtures import servers
from tests.fixtures.rewards import item, many_items, optional, outcome_of, recipe, required
from tests.fixtures.waiting import wait_until


def report_of(batch: ScoredBatch, verifier: str) -> VerifierReport:
    return next(report for report in batch.verifiers if report.verifier == verifier)


def reason_of(batch: ScoredBatch, verifier: str) -> str:
    outcome = outcome_of(batch.rewards[0], verifier)
    return outcome.reason if isinstance(outcome, Failed) else ""


def timed(call: Callable[[], ScoredBatch]) -> tuple[float, ScoredBatch]:
    started = time.monotonic()
    batch = call()
    return time.monotonic() - started, batch


class Scripted(verifier_pb2_grpc.VerifierServiceServicer):
    """A verifier whose next calls go as ``script`` says: seconds to take or a status to fail with. Then all is well."""

    def __init__(self, *, idempotent: bool = True) -> None:
        self.script: list[float | grpc.StatusCode | Refusal] = []
        self.calls: Counter[str] = Counter()
        self.cancelled = threading.Event()
        self._idempotent = idempotent

    def Describe(self, request, context):  # noqa: N802
        return verifier_pb2.DescribeResponse(
            name="scripted",
            fingerprint="f",
            reads=[verifier_pb2.READ_FIELD_COMPLETION],
            deterministic=True,
            idempotent=self._idempotent,
        )

    def ScoreBatch(self, request, context):  # noqa: N802
        self.calls[dict(context.invocation_metadata()).get("x-request-id", "")] += 1
        step = self.script.pop(0) if self.script else 0.0
        if isinstance(step, Refusal):
            context.set_trailing_metadata(refusal_metadata(step))
            context.abort(step.code, step.message)
        if isinstance(step, grpc.StatusCode):
            context.abort(step, "as the script says")
        context.add_callback(lambda: None if context.code() is grpc.StatusCode.OK else self.cancelled.set())
        ends = time.monotonic() + step
        while context.is_active() and time.monotonic() < ends:
            time.sleep(0.005)
        if not context.is_active():
            self.cancelled.set()
        outcomes = [types_pb2.Outcome(item_id=i.id, scored=types_pb2.Scored(value=0.5)) for i in request.items]
        return verifier_pb2.VerifierServiceScoreBatchResponse(outcomes=outcomes, fingerprint="f")

    def ScoreStream(self, request_iterator, context):  # noqa: N802
        raise NotImplementedError


@contextmanager
def scripted(verifier: Scripted, replicas: int = 1, **config: object) -> Iterator[tuple[servers.Service, Client]]:
    """An aggregator over one scripted verifier behind as many addresses."""
    with (
        served(verifier, replicas) as targets,
        servers.aggregator({"scripted": targets}, **config) as running,
        Client(running.target) as client,
    ):
        yield running, client


@contextmanager
def served(verifier: Scripted, replicas: int) -> Iterator[str]:
    started = [grpc.server(futures.ThreadPoolExecutor(8)) for _ in range(replicas)]
    targets = []
    for server in started:
        verifier_pb2_grpc.add_VerifierServiceServicer_to_server(verifier, server)
        targets.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
    try:
        yield ",".join(targets)
    finally:
        for server in started:
            server.stop(None)


BY_SCRIPTED = recipe(required("scripted"))


def test_an_unavailable_verifier_is_asked_again_and_the_report_says_so() -> None:
    verifier = Scripted()
    with scripted(verifier) as (_, client):
        verifier.script = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]
        batch = client.score([item("a")], BY_SCRIPTED)
        report = report_of(batch, "scripted")
        assert (batch.rewards[0].reward, report.calls, report.retries, report.failed) == (0.5, 3, 2, 0)


@pytest.mark.parametrize(
    ("step", "reason", "retryable"),
    [
        (grpc.StatusCode.INTERNAL, "internal", False),
        (Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", retry_after_s=0.2), "resource_exhausted", True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_large", False),
        (grpc.StatusCode.INVALID_ARGUMENT, "refused", False),
    ],
)
def test_nothing_but_unavailable_is_asked_again(step, reason, retryable) -> None:
    verifier = Scripted()
    with scripted(verifier) as (_, client):
        verifier.script = [step]
        batch = client.score([item("a")], BY_SCRIPTED)
        outcome = outcome_of(batch.rewards[0], "scripted")
        assert (report_of(batch, "scripted").calls, outcome.reason, outcome.retryable) == (1, reason, retryable)
        assert batch.rewards[0].reward is None


def test_a_refusal_for_overload_halves_what_is_sent_at_once_and_success_widens_it_again() -> None:
    verifier = Scripted()
    limit = "bioverify_aggregator_limit_items{target="
    with scripted(verifier, metrics_port=servers.free_port()) as (running, client):
        client.score([item("a")], BY_SCRIPTED)
        stated = running.metric(limit)
        verifier.script = [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", retry_after_s=0.2)] * 2
        for n in range(2):
            client.score([item(f"refused-{n}")], BY_SCRIPTED)
        assert running.metric(limit) == stated / 4
        client.score(many_items(64), BY_SCRIPTED)
        assert stated / 4 < running.metric(limit) < stated / 2


def test_a_verifier_that_minds_being_asked_twice_is_asked_once() -> None:
    verifier = Scripted(idempotent=False)
    with scripted(verifier) as (_, client):
        verifier.script = [grpc.StatusCode.UNAVAILABLE]
        assert report_of(client.score([item("a")], BY_SCRIPTED), "scripted").calls == 1


def test_retries_stay_within_their_budget() -> None:
    verifier = Scripted()
    with scripted(verifier, metrics_port=servers.free_port()) as (running, client):
        verifier.script = [grpc.StatusCode.UNAVAILABLE] * 500
        retries = sum(report_of(client.score([item(str(n))], BY_SCRIPTED), "scripted").retries for n in range(40))
        assert 8 <= retries <= 10 + 0.2 * 40
        assert running.metric('bioverify_aggregator_extra_calls_denied_total{kind="retry"') > 0


def test_a_slow_replica_is_overtaken_by_another_and_its_call_is_cancelled() -> None:
    verifier = Scripted()
    with scripted(verifier, replicas=2) as (_, client):
        # With fewer calls nothing is known of the p95, so none of these is hedged itself.
        for n in range(ENOUGH):
            assert client.score([item(f"warm-{n}")], BY_SCRIPTED).rewards[0].reward == 0.5
        verifier.cancelled.clear()
        verifier.script = [3.0]
        took_s, batch = timed(lambda: client.score([item("a")], BY_SCRIPTED))
        report = report_of(batch, "scripted")
        assert (batch.rewards[0].reward, report.calls, report.hedges) == (0.5, 2, 1)
        assert took_s < 2.5
        assert verifier.cancelled.wait(2)


def test_hedges_are_five_in_a_hundred_at_most_and_never_sent_to_the_only_replica() -> None:
    for replicas, most in ((2, 1 + 0.05 * 65), (1, 0)):
        verifier = Scripted()
        with scripted(verifier, replicas=replicas) as (_, client):
            hedges = 0
            for n in range(65):
                # From the 25th call on every call is slower than the p95 of those before.
                verifier.script = [0.03] if n >= 25 else []
                hedges += report_of(client.score([item(str(n))], BY_SCRIPTED), "scripted").hedges
            assert hedges <= most


def test_a_dead_replica_costs_its_sibling_nothing() -> None:
    with (
        servers.verifier("Lookup") as one,
        servers.verifier("Lookup") as other,
        servers.aggregator({"lookup": f"{one.target},{other.target}"}) as running,
        Client(running.target) as client,
    ):
        by = recipe(required("lookup"))
        for n in range(40):
            if n == 5:
                one.kill()
            assert client.score([item(str(n), "A", f"B{n}")], by).rewards[0].reward is not None


def test_a_stopped_verifier_costs_one_deadline_then_nothing_and_is_found_again() -> None:
    by = recipe(required("text"), optional("lookup"))
    with (
        servers.verifier("Text") as text,
        servers.verifier("Lookup") as lookup,
        servers.aggregator({"text": text.target, "lookup": lookup.target}) as running,
        Client(running.target) as client,
    ):
        assert report_of(client.score([item("a")], by), "lookup").breaker == "closed"
        lookup.process.send_signal(signal.SIGSTOP)
        try:
            took_s, batch = timed(lambda: client.score(many_items(64), by, deadline_s=2.0))
            assert took_s < 2.5
            assert reason_of(batch, "lookup") == "deadline_exceeded"
            wait_until(lambda: reason_of(client.score([item("b")], by, deadline_s=1.0), "lookup") == "breaker_open")
            for _ in range(10):
                took_s, batch = timed(lambda: client.score(many_items(64), by, deadline_s=10.0))
                assert took_s < 3
                assert all(outcome_of(reward, "lookup").retryable for reward in batch.rewards)
                assert all(reward.reward is not None for reward in batch.rewards)
                assert report_of(batch, "lookup").breaker == "open"
                assert report_of(batch, "lookup").calls == 0
        finally:
            lookup.process.send_signal(signal.SIGCONT)
        wait_until(lambda: report_of(client.score([item("c")], by), "lookup").breaker == "closed")
        assert reason_of(client.score([item("d", "C")], by), "lookup") == ""


def test_a_verifier_that_was_never_there_costs_no_two_seconds_a_call() -> None:
    by = recipe(required("text"), optional("hole"), optional("gone"))
    with (
        servers.black_hole() as hole,
        servers.verifier("Text") as text,
        servers.aggregator({"text": text.target, "hole": hole, "gone": "127.0.0.1:9"}) as running,
        Client(running.target) as client,
    ):
        took_s, batch = timed(lambda: client.score([item("a")], by, deadline_s=20))
        assert took_s < 5
        assert (reason_of(batch, "hole"), reason_of(batch, "gone")) == ("deadline_exceeded", "unavailable")
        for _ in range(5):
            took_s, batch = timed(lambda: client.score([item("a")], by, deadline_s=20))
            assert took_s < 3
            assert (reason_of(batch, "hole"), reason_of(batch, "gone")) == ("breaker_open", "breaker_open")


def test_a_verifier_that_says_who_it_is_and_never_scores_is_left_alone_after_five_calls() -> None:
    verifier = Scripted()
    with scripted(verifier) as (_, client):
        verifier.script = [30.0] * 5
        reasons = [reason_of(client.score([item("a")], BY_SCRIPTED, deadline_s=1.0), "scripted") for _ in range(6)]
        assert reasons == ["deadline_exceeded"] * 5 + ["breaker_open"]
        wait_until(lambda: client.score([item("a")], BY_SCRIPTED).rewards[0].reward == 0.5)


def test_callers_in_too_great_a_hurry_do_not_open_the_breaker_for_others() -> None:
    verifier = Scripted()
    with scripted(verifier) as (_, client):
        verifier.script = [0.1] * 100
        for n in range(21):
            client.score([item(f"warm-{n}")], BY_SCRIPTED)
        for n in range(8):
            # On a busy machine the whole call may be late as well.
            with contextlib.suppress(ClientError):
                assert client.score([item(f"hurry-{n}")], BY_SCRIPTED, deadline_s=0.06).rewards[0].reward is None
        batch = client.score([item("a")], BY_SCRIPTED)
        assert (batch.rewards[0].reward, report_of(batch, "scripted").breaker) == (0.5, "closed")


def test_a_verifier_has_no_more_than_its_own_share_of_the_deadline() -> None:
    with (
        servers.verifier("Lookup") as lookup,
        servers.verifier("Text", parameters={"delay_s": 3.0}) as text,
        servers.aggregator(
            {"lookup": lookup.target, "text": text.target}, verifier_deadlines_s={"text": 0.3}
        ) as running,
        Client(running.target) as client,
    ):
        by = recipe(required("lookup"), optional("text"))
        took_s, batch = timed(lambda: client.score([item("a")], by, deadline_s=10))
        assert took_s < 2
        assert reason_of(batch, "text") == "deadline_exceeded"
        assert batch.rewards[0].reward == batch.rewards[0].parts[0].contribution


async def test_equal_questions_of_callers_at_the_same_time_are_asked_once() -> None:
    with (
        servers.verifier("Lookup", parameters={"delay_s": 0.5}, metrics_port=servers.free_port()) as lookup,
        servers.aggregator({"lookup": lookup.target}) as running,
    ):
        async with AsyncClient(running.target) as client:
            by = recipe(required("lookup"))
            await client.list_verifiers()
            batches = await asyncio.gather(*(client.score([item(str(n)), item("x", "C")], by) for n in range(5)))
        assert len({(batch.rewards[0].reward, batch.rewards[1].reward) for batch in batches}) == 1
        assert sum(report_of(batch, "lookup").calls for batch in batches) == 1
        assert sorted(report_of(batch, "lookup").shared for batch in batches) == [0, 2, 2, 2, 2]
        assert lookup.metric("bioverify_verifier_batch_items_count") == 1


async def test_a_caller_who_leaves_takes_nothing_from_those_who_share_his_question() -> None:
    with (
        servers.verifier("Lookup", parameters={"delay_s": 0.6}, metrics_port=servers.free_port()) as lookup,
        servers.aggregator({"lookup": lookup.target}) as running,
    ):
        async with AsyncClient(running.target) as leaving, AsyncClient(running.target) as staying:
            by = recipe(required("lookup"))
            await leaving.list_verifiers()
            await staying.list_verifiers()
            leader = asyncio.ensure_future(leaving.score([item("a")], by))
            await asyncio.sleep(0.2)
            follower = asyncio.ensure_future(staying.score([item("b")], by))
            await asyncio.sleep(0.1)
            leader.cancel()
            batch = await follower
        assert batch.rewards[0].reward is not None
        assert report_of(batch, "lookup").shared == 1
        assert lookup.metric("bioverify_verifier_batch_items_count") == 1


async def test_a_call_that_its_caller_gave_up_never_takes_the_verifiers_time() -> None:
    with (
        servers.verifier("Lookup", metrics_port=servers.free_port()) as lookup,
        servers.aggregator({"lookup": lookup.target}) as running,
    ):
        async with AsyncClient(running.target) as client:
            by = recipe(required("lookup"))
            await client.list_verifiers()
            busy = asyncio.ensure_future(client.score([item("a", "SLEEPS")], by))
            await asyncio.sleep(0.3)
            given_up = asyncio.ensure_future(client.score([item("b", "B")], by))
            late = asyncio.ensure_future(client.score([item("c", "C")], by, deadline_s=0.3))
            await asyncio.sleep(0.3)
            given_up.cancel()
            # On a busy machine the whole call may be late as well.
            with contextlib.suppress(ClientError):
                assert (await late).rewards[0].reward is None
            assert (await busy).rewards[0].reward is not None
        assert lookup.metric("bioverify_verifier_batch_items_count") == 1
        # The late one may have been given up before it reached the verifier.
        assert lookup.metric('bioverify_rpc_calls_total{code="CANCELLED"') >= 1


async def test_the_queue_before_a_slow_verifier_is_bounded_and_delays_no_other() -> None:
    with (
        servers.verifier("Lookup", parameters={"delay_s": 1.5}, max_items=16, max_items_in_flight=16) as slow,
        servers.verifier("Text") as quick,
        servers.aggregator(
            {"lookup": slow.target, "text": quick.target}, max_items=32, max_items_in_flight=64
        ) as running,
    ):
        async with AsyncClient(running.target) as client:
            await client.list_verifiers()

            def sixteen(call: int) -> list[ScoreItem]:
                return [item(f"{call}-{n}", f"G{call}", f"H{n}") for n in range(16)]

            waiting = [
                asyncio.ensure_future(client.score(sixteen(call), recipe(required("lookup")))) for call in range(3)
            ]
            await asyncio.sleep(0.4)
            started = time.monotonic()
            batch = await client.score(sixteen(3), recipe(required("text"), optional("lookup")))
            assert reason_of(batch, "lookup") == "overloaded"
            assert batch.rewards[0].reward is not None
            # The client would wait and try again, as the refusal asks for; what is looked at here is the refusal.
            request = messages.score_request(
                [messages.item_to_wire(one) for one in sixteen(4)], recipe(required("lookup")), with_evidence=True
            )
            with grpc.insecure_channel(running.target) as channel, pytest.raises(grpc.RpcError) as caught:
                reward_pb2_grpc.RewardServiceStub(channel).ScoreBatch(request)
            refusal = refusal_from_error(caught.value)
            assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refusal.retry_after_s > 0
            assert time.monotonic() - started < 1
            batches = await asyncio.gather(*waiting)
            assert all(reward.reward is not None for batch in batches for reward in batch.rewards)
            assert max(report_of(batch, "lookup").waited_s for batch in batches) > 1.0
