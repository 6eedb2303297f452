"""One verifier as the aggregator sees it: a channel, what the verifier says of itself, and calls that always end.

What it says of itself decides what it is sent and under which keys its answers are remembered, so a stale account would
give stale answers. It is trusted for a second at most, and only while the connection over which it came still stands: a
verifier that was restarted with another artifact is asked anew. A reply that carries another fingerprint than the
account is not remembered, and everything is asked once more under the new one.

Every fault ends as `Failed` for the questions that it concerns, and for no others.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import structlog

from bioverify.aggregator import metrics
from bioverify.aggregator.answers import Answered, answered, failure, strip_evidence
from bioverify.core.answers import ParseMode
from bioverify.core.outcomes import Failed
from bioverify.core.verifier import Reads
from bioverify.v1 import types_pb2, verifier_pb2, verifier_pb2_grpc
from bioverify.wire.tasks import PARSE_MODES, reads_from_wire
from bioverify.wire.transport import CHANNEL_OPTIONS, REQUEST_ID, refusal_from_error

ATTEMPTS = 2
DESCRIBE_TIMEOUT_S = 2.0
UNSTATED_MAX_ITEMS = 256
UNSTATED_MAX_BYTES = 4 * 2**20

Request = TypeVar("Request")
Response = TypeVar("Response")

_REASONS = {
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline_exceeded",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "resource_exhausted",
    grpc.StatusCode.INVALID_ARGUMENT: "refused",
    grpc.StatusCode.CANCELLED: "unavailable",
    grpc.StatusCode.UNIMPLEMENTED: "not_a_verifier",
}
_RETRYABLE = {"unavailable", "deadline_exceeded", "resource_exhausted"}

log = structlog.stdlib.get_logger("bioverify.aggregator.upstream")


class UpstreamError(Exception):
    """The verifier did not answer as agreed. ``failed`` is what that means for the questions."""

    def __init__(self, failed: Answered) -> None:
        super().__init__(str(failed.outcome))
        self.failed = failed


@dataclass(frozen=True, slots=True)
class Account:
    """What a verifier said of itself, and when (time.monotonic)."""

    message: verifier_pb2.DescribeResponse
    reads: Reads
    fingerprint: str
    learned_at: float


@dataclass(slots=True)
class Usage:
    """What one request cost at one verifier."""

    calls: int = 0
    started: float | None = None
    ended: float = 0.0
    queue_s: float = 0.0
    work_s: float = 0.0

    @property
    def wall_s(self) -> float:
        return 0.0 if self.started is None else self.ended - self.started


@dataclass(slots=True)
class Replies:
    """Answers by position of the question, and the fingerprints that they came under."""

    answers: dict[int, Answered] = field(default_factory=dict)
    fingerprints: set[str] = field(default_factory=set)


class Upstream:
    """To be made inside the running event loop."""

    def __init__(self, name: str, target: str, *, describe_ttl_s: float) -> None:
        self.name = name
        self.target = target
        self.last_account: Account | None = None
        self._describe_ttl_s = describe_ttl_s
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._stub: verifier_pb2_grpc.VerifierServiceAsyncStub = verifier_pb2_grpc.VerifierServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def account(self, deadline: float, *, refresh: bool = False) -> Account:
        """What the verifier says of itself. ``deadline``: time.monotonic. Raises UpstreamError."""
        known = self.last_account
        if (
            known is not None
            and not refresh
            and time.monotonic() - known.learned_at < self._describe_ttl_s
            and self._channel.get_state() is grpc.ChannelConnectivity.READY
        ):
            return known
        message = await self._call(
            self._stub.Describe, verifier_pb2.DescribeRequest(), min(deadline, time.monotonic() + DESCRIBE_TIMEOUT_S)
        )
        if message.name != self.name:
            detail = f"{self.target} calls itself {message.name!r}; the configuration calls it {self.name!r}"
            raise UpstreamError(failure("misconfigured", detail, retryable=False))
        self.last_account = Account(
            message, reads_from_wire(list(message.reads)), message.fingerprint, time.monotonic()
        )
        return self.last_account

    async def ask(
        self,
        items: Sequence[types_pb2.Item],
        account: Account,
        mode: ParseMode,
        deadline: float,
        usage: Usage,
        *,
        with_evidence: bool,
    ) -> Replies:
        """Score ``items``, whose ids are theirs alone, in as many calls as the verifier's limits ask for.

        Raises nothing: a call that fails gives `Failed` for its items.
        """
        replies = Replies()
        limits = account.message.limits
        at_once = asyncio.Semaphore(max(1, limits.max_items_in_flight // max(1, limits.max_items)))

        async def ask_batch(batch: list[int]) -> None:
            request = verifier_pb2.VerifierServiceScoreBatchRequest(
                items=[items[position] for position in batch],
                parse_mode=PARSE_MODES[mode],
                omit_evidence=not with_evidence,
            )
            try:
                async with at_once:
                    response = await self._score(request, account, deadline, usage)
                found = _checked(request, response)
            except UpstreamError as error:
                metrics.FAILURES.labels(self.name, _reason(error)).inc(len(batch))
                log.warning("a verifier failed", verifier=self.name, items=len(batch), failure=str(error))
                replies.answers.update((position, error.failed) for position in batch)
                return
            replies.fingerprints.add(response.fingerprint)
            replies.answers.update(zip(batch, found, strict=True))

        usage.started = usage.started or time.monotonic()
        await asyncio.gather(*(ask_batch(batch) for batch in _batches(items, limits)))
        usage.ended = time.monotonic()
        return replies

    async def _score(
        self,
        request: verifier_pb2.VerifierServiceScoreBatchRequest,
        account: Account,
        deadline: float,
        usage: Usage,
    ) -> verifier_pb2.VerifierServiceScoreBatchResponse:
        # gRPC's own retries would hide the attempts and hold back messages above their buffer; one loop is plainer.
        attempts = ATTEMPTS if account.message.idempotent else 1
        for attempt in range(1, attempts + 1):
            usage.calls += 1
            try:
                response = await self._call(self._stub.ScoreBatch, request, deadline)
            except UpstreamError as error:
                pause_s = random.uniform(0.02, 0.1)  # noqa: S311 - jitter
                out_of_time = time.monotonic() + pause_s >= deadline
                if attempt == attempts or out_of_time or _reason(error) != "unavailable":
                    raise
                await asyncio.sleep(pause_s)
            else:
                usage.queue_s += response.timing.queue_seconds
                usage.work_s += response.timing.work_seconds
                return response
        raise AssertionError("the last attempt returns or raises")

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, deadline: float
    ) -> Response:
        """One call that ends by ``deadline``. Raises UpstreamError for every fault."""
        timeout_s = deadline - time.monotonic()
        if timeout_s <= 0:
            raise UpstreamError(failure("deadline_exceeded", f"no time was left to ask {self.name}"))
        try:
            response = await method(request, timeout=timeout_s, metadata=_request_id())
        except grpc.aio.AioRpcError as error:
            refusal = refusal_from_error(error)
            metrics.VERIFIER_CALLS.labels(self.name, refusal.code.name).inc()
            reason = _REASONS.get(refusal.code, "internal")
            detail = f"{self.name} at {self.target}: {refusal.code.name}: {refusal.message}"
            raise UpstreamError(failure(reason, detail, retryable=reason in _RETRYABLE)) from error
        metrics.VERIFIER_CALLS.labels(self.name, "OK").inc()
        return response


def _request_id() -> tuple[tuple[str, str], ...]:
    """The id of the request that this call is made for, so that both logs can be brought together."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return ((REQUEST_ID, request_id),) if request_id else ()


def _batches(items: Sequence[types_pb2.Item], limits: verifier_pb2.Limits) -> list[list[int]]:
    """Positions of the items, cut by the verifier's limits on items and bytes."""
    max_items = limits.max_items or UNSTATED_MAX_ITEMS
    # Half of the limit, for what stands around the items in the message and for the outcomes that come back.
    max_bytes = (limits.max_bytes or UNSTATED_MAX_BYTES) // 2
    batches: list[list[int]] = []
    size_bytes = 0
    for position, item in enumerate(items):
        item_bytes = item.ByteSize()
        if not batches or len(batches[-1]) == max_items or size_bytes + item_bytes > max_bytes:
            batches.append([])
            size_bytes = 0
        batches[-1].append(position)
        size_bytes += item_bytes
    return batches


def _checked(
    request: verifier_pb2.VerifierServiceScoreBatchRequest, response: verifier_pb2.VerifierServiceScoreBatchResponse
) -> list[Answered]:
    """The answers of a reply that keeps the contract: as many as asked, same ids, same order, values in [0, 1]."""
    if len(response.outcomes) != len(request.items):
        raise _invalid_reply(f"{len(response.outcomes)} outcomes for {len(request.items)} items")
    answers = []
    for item, outcome in zip(request.items, response.outcomes, strict=True):
        if outcome.item_id != item.id:
            raise _invalid_reply(f"the outcome of item {item.id!r} is named {outcome.item_id!r}")
        if request.omit_evidence:
            strip_evidence(outcome)
        try:
            answers.append(answered(outcome))
        except ValueError as error:
            raise _invalid_reply(str(error)) from error
    return answers


def _invalid_reply(what: str) -> UpstreamError:
    return UpstreamError(failure("invalid_reply", f"the reply breaks the contract: {what}", retryable=False))


def _reason(error: UpstreamError) -> str:
    outcome = error.failed.outcome
    assert isinstance(outcome, Failed)
    return outcome.reason
