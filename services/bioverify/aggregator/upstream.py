"""One verifier as the aggregator sees it: its replicas, what it says of itself, and calls that always end.

What it says of itself decides what it is sent and under which keys its answers are remembered, so a stale account would
give stale answers. It is trusted for a second at most, and only while the connection over which it came still stands: a
verifier that was restarted with another artifact is asked again. In the second half of that second it is refreshed
beside the calls, so that under load no call waits for it. A reply that carries another fingerprint than the account is
not remembered, and everything is asked once more under the new one.

Calls go to the replica with the least in flight. A call that found its replica unavailable is repeated, one that is
slow is repeated at a second replica, both within a budget. Every fault ends as `Failed` for the questions that it
concerns, and for no others.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field

import structlog

from bioverify import tracing
from bioverify.aggregator import metrics
from bioverify.aggregator.encoded import EncodedOutcome, encode_outcome, strip_evidence
from bioverify.aggregator.faults import (
    INVALID_REPLY,
    MISCONFIGURED,
    UNAVAILABLE,
    UpstreamError,
)
from bioverify.aggregator.policy.breaker import State
from bioverify.aggregator.policy.budget import Budget, pause_s
from bioverify.aggregator.policy.hedging import hedged
from bioverify.aggregator.policy.latency import Latency
from bioverify.aggregator.policy.single_flight import SingleFlight
from bioverify.aggregator.replica import Replica, Usage
from bioverify.core.answers import ParseMode
from bioverify.core.verifier import Reads
from bioverify.transport.refusals import WITHDRAWN
from bioverify.transport.tls import LiveIdentity
from bioverify.v1 import types_pb2, verifier_pb2
from bioverify.wire.tasks import PARSE_MODES, reads_from_wire

ATTEMPTS = 3
RETRY_SHARE, RETRY_BURST = 0.2, 10.0
HEDGE_SHARE, HEDGE_BURST = 0.05, 1.0
UNSTATED_MAX_ITEMS = 256
UNSTATED_MAX_BYTES = 4 * 2**20

log = structlog.stdlib.get_logger("bioverify.aggregator.upstream")


@dataclass(frozen=True, slots=True)
class Account:
    """What a verifier said of itself, which replica of it, and when (time.monotonic)."""

    message: verifier_pb2.DescribeResponse
    reads: Reads
    fingerprint: str
    replica: Replica
    learned_at: float


@dataclass(slots=True)
class Outcomes:
    """What a verifier said, by the key of the question; under which fingerprints; and the errors of failed calls."""

    by_key: dict[bytes, EncodedOutcome] = field(default_factory=dict)
    fingerprints: set[str] = field(default_factory=set)
    errors: list[UpstreamError] = field(default_factory=list)


class Upstream:
    """To be made inside the running event loop. ``target``: one gRPC target, or several with commas: its replicas."""

    def __init__(
        self, name: str, target: str, *, describe_ttl_s: float, max_waiting: int, tls: LiveIdentity | None = None
    ) -> None:
        self.name = name
        self.target = target
        self.last_account: Account | None = None
        self.single_flight: SingleFlight[Outcomes] = SingleFlight()
        self._describe_ttl_s = describe_ttl_s
        self._latency = Latency()
        self._retries = Budget(RETRY_SHARE, RETRY_BURST)
        self._hedges = Budget(HEDGE_SHARE, HEDGE_BURST)
        self._replicas = [
            Replica(name, one, self._latency, max_waiting, self._learn, tls) for one in target.split(",") if one
        ]

    async def close(self) -> None:
        await asyncio.gather(*(replica.close() for replica in self._replicas))

    @property
    def state(self) -> State:
        """The best state among the replicas."""
        states = {replica.breaker.state for replica in self._replicas}
        return next(state for state in (State.CLOSED, State.HALF_OPEN, State.OPEN) if state in states)

    def has_room(self, items: int) -> bool:
        """Whether ``items`` more could wait for their turn, were they all to be asked."""
        return any(replica.limit.has_room(items) for replica in self._replicas)

    async def account(self, deadline: float, *, refresh: bool = False) -> Account:
        """What the verifier says of itself. ``deadline``: time.monotonic. Raises UpstreamError.

        ``refresh``: ask now, even one whose breaker is open.
        """
        known = self.last_account
        if known is not None and not refresh and known.replica.is_connected:
            age_s = time.monotonic() - known.learned_at
            if age_s > self._describe_ttl_s / 2 and known.replica.is_allowed:
                known.replica.probe()
            if age_s < self._describe_ttl_s:
                return known
        error = self._replicas[0].turned_away()
        for replica in sorted(self._replicas, key=lambda replica: not replica.is_connected):
            if not refresh and not replica.is_allowed:
                continue
            try:
                message = await replica.describe(deadline)
            except UpstreamError as found:
                error = found
                continue
            if message.name != self.name:
                detail = f"{replica.target} calls itself {message.name!r}; the configuration calls it {self.name!r}"
                raise UpstreamError(MISCONFIGURED, detail)
            if self.last_account is None:  # it has withdrawn since
                raise replica.turned_away()
            return self.last_account
        raise error

    async def ask(
        self,
        items: Mapping[bytes, types_pb2.Item],
        account: Account,
        mode: ParseMode,
        deadline: float,
        usage: Usage,
        *,
        with_evidence: bool,
    ) -> Outcomes:
        """Score ``items``, given by the key of their question, in as many calls as the verifier's limits ask for.

        Raises nothing: a call that fails gives `Failed` for its items.
        """
        outcomes = Outcomes()

        async def ask_batch(batch: dict[bytes, types_pb2.Item]) -> None:
            request = verifier_pb2.VerifierServiceScoreBatchRequest(
                items=batch.values(), parse_mode=PARSE_MODES[mode], omit_evidence=not with_evidence
            )
            for number, one in enumerate(request.items):
                one.id = str(number)
            try:
                response = await self._score(request, account, deadline, usage)
                found = _checked(request, response)
            except UpstreamError as error:
                metrics.FAILURES.labels(self.name, error.reason).inc(len(batch))
                tracing.failed("failed", error.reason)
                log.warning("a verifier failed", verifier=self.name, items=len(batch), failure=str(error))
                outcomes.by_key.update(dict.fromkeys(batch, error.failed))
                outcomes.errors.append(error)
                return
            outcomes.fingerprints.add(response.fingerprint)
            outcomes.by_key.update(zip(batch, found, strict=True))

        usage.started = usage.started or time.monotonic()
        await asyncio.gather(*(ask_batch(batch) for batch in _batches(items, account.message.limits)))
        usage.ended = time.monotonic()
        return outcomes

    def _learn(self, replica: Replica, said: verifier_pb2.DescribeResponse | None) -> None:
        if said is None:
            # It has withdrawn. Its account would name the keys of outcomes that may rest on changed bytes.
            if self.last_account is not None and self.last_account.replica is replica:
                self.last_account = None
        elif said.name == self.name:
            try:
                reads = reads_from_wire(list(said.reads))
            except ValueError as error:
                raise UpstreamError(MISCONFIGURED, f"{self.name} at {replica.target}: {error}") from error
            self.last_account = Account(said, reads, said.fingerprint, replica, time.monotonic())

    def _least_loaded(self, but: Replica | None = None) -> Replica | None:
        """The replica to ask, another than ``but`` if there is one; None if every breaker is open."""
        allowed = [replica for replica in self._replicas if replica.is_allowed]
        others = [replica for replica in allowed if replica is not but]
        return min(
            others or allowed,
            key=lambda replica: (replica.limit.in_flight + replica.limit.waiting, random.random()),  # noqa: S311
            default=None,
        )

    async def _score(
        self,
        request: verifier_pb2.VerifierServiceScoreBatchRequest,
        account: Account,
        deadline: float,
        usage: Usage,
    ) -> verifier_pb2.VerifierServiceScoreBatchResponse:
        # gRPC's own retries would hide the attempts and hold back messages above their buffer; one loop is plainer.
        self._retries.earn()
        self._hedges.earn()
        replica = self._least_loaded()
        if replica is None:
            raise self._replicas[0].turned_away()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._score_at(replica, request, account, deadline, usage)
            except UpstreamError as error:
                wait_s = pause_s(attempt)
                may_retry = (
                    account.message.idempotent and attempt < ATTEMPTS and error.reason in {UNAVAILABLE, WITHDRAWN}
                )
                if not may_retry or time.monotonic() + wait_s >= deadline:
                    raise
                if not self._retries.spend():
                    metrics.EXTRA_DENIED.labels(self.name, "retry").inc()
                    raise
                await asyncio.sleep(wait_s)
                another = self._least_loaded(but=replica)
                if another is None:
                    raise
                replica = another
                usage.retries += 1
                metrics.RETRIES.labels(self.name).inc()
        raise AssertionError("the last attempt returns or raises")

    async def _score_at(
        self,
        replica: Replica,
        request: verifier_pb2.VerifierServiceScoreBatchRequest,
        account: Account,
        deadline: float,
        usage: Usage,
    ) -> verifier_pb2.VerifierServiceScoreBatchResponse:
        """One attempt, hedged if there is a replica for it."""
        p95_s = self._latency.p95_s()
        if len(self._replicas) == 1 or not account.message.idempotent or p95_s is None:
            return await replica.score(request, deadline, usage)

        def second() -> Awaitable[verifier_pb2.VerifierServiceScoreBatchResponse] | None:
            another = self._least_loaded(but=replica)
            if another is None or another is replica:
                return None
            if not self._hedges.spend():
                metrics.EXTRA_DENIED.labels(self.name, "hedge").inc()
                return None
            usage.hedges += 1
            return another.score(request, deadline, usage)

        before = usage.hedges
        response, second_won = await hedged(lambda: replica.score(request, deadline, usage), second, p95_s)
        if second_won:
            replica.probe()
        if usage.hedges > before:
            metrics.HEDGES.labels(self.name, "won" if second_won else "lost").inc()
        return response


def _batches(items: Mapping[bytes, types_pb2.Item], limits: verifier_pb2.Limits) -> list[dict[bytes, types_pb2.Item]]:
    """The items, cut by the verifier's limits on items and bytes."""
    max_items = limits.max_items or UNSTATED_MAX_ITEMS
    # Half of the limit, for what stands around the items in the message and for the outcomes that come back.
    max_bytes = (limits.max_bytes or UNSTATED_MAX_BYTES) // 2
    batches: list[dict[bytes, types_pb2.Item]] = []
    size_bytes = 0
    for key, item in items.items():
        item_bytes = item.ByteSize()
        if not batches or len(batches[-1]) == max_items or size_bytes + item_bytes > max_bytes:
            batches.append({})
            size_bytes = 0
        batches[-1][key] = item
        size_bytes += item_bytes
    return batches


def _checked(
    request: verifier_pb2.VerifierServiceScoreBatchRequest, response: verifier_pb2.VerifierServiceScoreBatchResponse
) -> list[EncodedOutcome]:
    """The outcomes of a reply that keeps the contract: as many as asked, same ids, same order, values in [0, 1]."""
    if len(response.outcomes) != len(request.items):
        raise _invalid_reply(f"{len(response.outcomes)} outcomes for {len(request.items)} items")
    outcomes = []
    for item, outcome in zip(request.items, response.outcomes, strict=True):
        if outcome.item_id != item.id:
            raise _invalid_reply(f"the outcome of item {item.id!r} is named {outcome.item_id!r}")
        if request.omit_evidence:
            strip_evidence(outcome)
        try:
            outcomes.append(encode_outcome(outcome))
        except ValueError as error:
            raise _invalid_reply(str(error)) from error
    return outcomes


def _invalid_reply(what: str) -> UpstreamError:
    return UpstreamError(INVALID_REPLY, f"the reply breaks the contract: {what}")
