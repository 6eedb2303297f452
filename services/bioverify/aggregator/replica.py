"""One process that serves a verifier, as the aggregator sees it: a channel, and the policies that guard it.

Breaker and limit belong to the replica, because one replica may be dead while its sibling is well. A failure for want
of an answer starts a probe, which is a Describe beside the calls; what it finds opens the breaker or leaves it closed.
A probe that hears nothing gives the connection up and the next one takes a new one: gRPC by itself would hold on to a
half-open one for twelve seconds, and to an attempt to connect that met silence for as long again. What a Describe says
is handed on, so that probes keep the account of the verifier fresh as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
import structlog
from opentelemetry.trace import SpanKind

from bioverify import tracing
from bioverify.aggregator import metrics
from bioverify.aggregator.faults import (
    BREAKER_OPEN,
    DEADLINE_EXCEEDED,
    EXPIRED_IN_QUEUE,
    INTERNAL,
    OVERLOADED,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UpstreamError,
    of_refusal,
)
from bioverify.aggregator.policy.breaker import Breaker, State
from bioverify.aggregator.policy.budget import pause_s
from bioverify.aggregator.policy.latency import Latency
from bioverify.aggregator.policy.limits import ItemLimit, QueueFullError, TurnedAwayError
from bioverify.runtime import cancellation
from bioverify.transport import headers
from bioverify.transport.channels import channel_options
from bioverify.transport.refusals import WITHDRAWN, refusal_from_error
from bioverify.transport.tls import LiveIdentity, open_aio_channel
from bioverify.v1 import verifier_pb2, verifier_pb2_grpc

DESCRIBE_TIMEOUT_S = 1.0
DESCRIBE_ATTEMPTS = 3
LAST_CALLS_S = 30.0
"""For so long the calls of a connection that was given up may still be answered."""
UNSTATED_ITEMS_IN_FLIGHT = 1024

# Channels to one address share connections, and with them the one that is to be given up, unless each has its own.
_OWN_CONNECTIONS = (("grpc.use_local_subchannel_pool", 1),)
_GAUGE_OF_STATE = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}

Request = TypeVar("Request")
Response = TypeVar("Response")

log = structlog.stdlib.get_logger("bioverify.aggregator.replica")


@dataclass(slots=True)
class Usage:
    """What one request cost at one verifier."""

    calls: int = 0
    retries: int = 0
    hedges: int = 0
    started: float | None = None
    ended: float = 0.0
    waited_s: float = 0.0
    queue_s: float = 0.0
    work_s: float = 0.0

    @property
    def wall_s(self) -> float:
        return 0.0 if self.started is None else self.ended - self.started


class Replica:
    """To be made inside the running event loop. ``described``: called with what each Describe says, or with None if the
    verifier has withdrawn: what it said before is not to be relied on."""

    def __init__(
        self,
        verifier: str,
        target: str,
        latency: Latency,
        max_waiting: int,
        described: Callable[[Replica, verifier_pb2.DescribeResponse | None], None],
        tls: LiveIdentity | None = None,
    ) -> None:
        self.target = target
        self.limit = ItemLimit(UNSTATED_ITEMS_IN_FLIGHT, max_waiting)
        self.breaker = Breaker(self._opened)
        self._verifier = verifier
        self._latency = latency
        self._described = described
        self._tls = tls
        self._connect()
        self._given_up: set[asyncio.Task[None]] = set()
        self._describing: asyncio.Task[verifier_pb2.DescribeResponse] | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._withdrawn: UpstreamError | None = None
        self._show()

    @property
    def is_allowed(self) -> bool:
        return self.breaker.state is not State.OPEN

    @property
    def is_connected(self) -> bool:
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        tasks = [task for task in (self._recovering, self._describing, *self._given_up) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._channel.close()

    async def describe(self, deadline: float) -> verifier_pb2.DescribeResponse:
        """What the verifier says of itself: one question for all who ask at the same time.

        It takes `DESCRIBE_TIMEOUT_S` at most and ends by itself when its callers have left. Raises UpstreamError.
        """
        describing = self.probe()
        await asyncio.wait({describing}, timeout=max(0.0, deadline - time.monotonic()))
        if not describing.done():
            raise UpstreamError(DEADLINE_EXCEEDED, f"{self._who} has not said in time who it is")
        return describing.result()

    def probe(self) -> asyncio.Task[verifier_pb2.DescribeResponse]:
        """See in the background whether the verifier still says who it is."""
        if self._describing is None or self._describing.done():
            self._describing = asyncio.ensure_future(self._describe())
            self._describing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._describing

    async def score(
        self, request: verifier_pb2.VerifierServiceScoreBatchRequest, deadline: float, usage: Usage
    ) -> verifier_pb2.VerifierServiceScoreBatchResponse:
        """One call, when its turn has come. Raises UpstreamError."""
        items = len(request.items)
        await self._wait_for_turn(items, deadline, usage)
        try:
            usage.calls += 1
            started = time.monotonic()
            try:
                told: dict[str, tracing.Told] = {"verifier": self._verifier, "target": self.target, "items": items}
                with tracing.span("ScoreBatch", SpanKind.CLIENT, **told):
                    response = await self._call(self._renewed_stub().ScoreBatch, request, deadline)
            except UpstreamError as error:
                self._note(error, deadline - started)
                raise
            self._latency.add(time.monotonic() - started)
            self.limit.grow(items)
            self.breaker.succeeded()
        finally:
            self.limit.leave(items)
            self._show()
        usage.queue_s += response.timing.queue_seconds
        usage.work_s += response.timing.work_seconds
        return response

    async def _wait_for_turn(self, items: int, deadline: float, usage: Usage) -> None:
        arrived = time.monotonic()
        try:
            await self.limit.enter(items, deadline)
        except QueueFullError as error:
            raise UpstreamError(OVERLOADED, f"{self._who}: {error}") from error
        except TurnedAwayError as error:
            raise self.turned_away() from error
        except TimeoutError as error:
            raise UpstreamError(EXPIRED_IN_QUEUE, f"{self._who}: too many items were in flight before these") from error
        finally:
            waited_s = time.monotonic() - arrived
            usage.waited_s += waited_s
            metrics.WAIT_SECONDS.labels(self._verifier).observe(waited_s)

    def turned_away(self) -> UpstreamError:
        if self._withdrawn is not None:
            return self._withdrawn
        return UpstreamError(BREAKER_OPEN, f"{self._who} has stopped answering; calls are suspended until it recovers")

    @property
    def _who(self) -> str:
        return f"{self._verifier} at {self.target}"

    def _note(self, error: UpstreamError, given_s: float) -> None:
        """Tell the policies of a call that failed after it was given ``given_s`` seconds."""
        p95_s = self._latency.p95_s()
        if error.reason == RESOURCE_EXHAUSTED:
            self.limit.shrink()
        elif error.reason == WITHDRAWN:
            self._withdraw(error)
            self.breaker.open()
        elif error.reason == UNAVAILABLE:
            # All calls of a broken connection fail together, so a count of them says little; the probe says more.
            if self.breaker.state is State.HALF_OPEN:
                self.breaker.open()
            self.probe()
        elif error.reason == INTERNAL or (error.reason == DEADLINE_EXCEEDED and (p95_s is None or given_s >= p95_s)):
            if error.reason == DEADLINE_EXCEEDED:
                self.limit.shrink()
                self.probe()
            self.breaker.failed()

    def _withdraw(self, error: UpstreamError) -> None:
        self._withdrawn = error
        self._described(self, None)

    async def _describe(self) -> verifier_pb2.DescribeResponse:
        deadline = time.monotonic() + DESCRIBE_TIMEOUT_S
        for attempt in range(1, DESCRIBE_ATTEMPTS + 1):
            try:
                said = await self._call(self._renewed_stub().Describe, verifier_pb2.DescribeRequest(), deadline)
            except UpstreamError as error:
                # A connection that was reset is up again in a moment; a process that is gone is not.
                if error.reason == UNAVAILABLE and attempt < DESCRIBE_ATTEMPTS and self.is_allowed:
                    await asyncio.sleep(min(pause_s(attempt), max(0.0, deadline - time.monotonic())))
                    continue
                if error.reason == DEADLINE_EXCEEDED:
                    metrics.NEW_CONNECTIONS.labels(self._verifier, self.target).inc()
                    self._connect_anew()
                if error.reason == WITHDRAWN:
                    self._withdraw(error)
                self.breaker.open()
                raise
            self._withdrawn = None
            self.limit.state_highest(said.limits.max_items_in_flight or UNSTATED_ITEMS_IN_FLIGHT)
            self._described(self, said)
            self._show()
            return said
        raise AssertionError("the last attempt returns or raises")

    def _connect(self) -> None:
        self._shown = self._tls.current() if self._tls is not None else None
        self._channel = open_aio_channel(self.target, (*channel_options(self.target), *_OWN_CONNECTIONS), self._shown)
        self._stub: verifier_pb2_grpc.VerifierServiceAsyncStub = verifier_pb2_grpc.VerifierServiceStub(self._channel)

    def _renewed_stub(self) -> verifier_pb2_grpc.VerifierServiceAsyncStub:
        """The stub to call now: over a new connection if the certificates were replaced."""
        if self._tls is not None and self._tls.current() is not self._shown:
            self._connect_anew()
        return self._stub

    def _connect_anew(self) -> None:
        old = self._channel
        self._connect()
        closing = asyncio.ensure_future(old.close(LAST_CALLS_S))
        self._given_up.add(closing)
        closing.add_done_callback(self._given_up.discard)

    def _opened(self) -> None:
        log.warning(
            "a verifier has stopped answering; calls are suspended until it recovers",
            verifier=self._verifier,
            target=self.target,
        )
        self.limit.restart()
        self._show()
        if self._recovering is None or self._recovering.done():
            self._recovering = asyncio.ensure_future(self._recover())

    async def _recover(self) -> None:
        while not self.is_allowed:
            await asyncio.sleep(self.breaker.next_pause_s())
            with contextlib.suppress(UpstreamError):
                await self.probe()
                self.breaker.half_open()
                self._show()
        log.info("a verifier answers again", verifier=self._verifier, target=self.target)

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, deadline: float
    ) -> Response:
        """One call that ends by ``deadline``. Raises UpstreamError for every fault."""
        timeout_s = deadline - time.monotonic()
        if timeout_s <= 0:
            raise UpstreamError(EXPIRED_IN_QUEUE, f"no time was left to ask {self._who}")
        try:
            response = await method(request, timeout=timeout_s, metadata=headers.outgoing())
        except grpc.aio.AioRpcError as error:
            refusal = refusal_from_error(error)
            metrics.VERIFIER_CALLS.labels(self._verifier, refusal.code.name).inc()
            raise of_refusal(refusal, self._who) from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            # grpc.aio cancels the calls of a channel that is closed: nobody asked this task to stop.
            if cancellation.is_wanted(error):
                raise
            metrics.VERIFIER_CALLS.labels(self._verifier, grpc.StatusCode.CANCELLED.name).inc()
            raise UpstreamError(UNAVAILABLE, f"{self._who}: the connection was given up during the call") from error
        metrics.VERIFIER_CALLS.labels(self._verifier, "OK").inc()
        return response

    def _show(self) -> None:
        metrics.BREAKER.labels(self._verifier, self.target).set(_GAUGE_OF_STATE[self.breaker.state])
        metrics.LIMIT_ITEMS.labels(self._verifier, self.target).set(self.limit.limit)
