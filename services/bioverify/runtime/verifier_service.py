"""One verifier behind the contract's VerifierService.

A batch is validated on the event loop, then read, scored and written back to messages in the verifier's own thread. One
bad item never fails a batch: if scoring a batch raises, its items are scored one by one, and only those that raise
again are failed.

What the verifier opened may be changed under it: an artifact is mapped into memory. So after every batch, and before
its outcomes leave, the files' stamps are looked at (some µs a file); every ten seconds the canaries are asked as well.
If one of the two fails the service withdraws: it is NOT_SERVING, calls are refused with the reason, and every ten
seconds it tries to open the artifact again, which a repair makes possible.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import structlog

from bioverify import tracing
from bioverify.core.outcomes import Failed, NotApplicable, Outcome, Scored
from bioverify.core.verifier import Description, Item, Verifier
from bioverify.runtime import metrics
from bioverify.runtime.config import ServerConfig
from bioverify.runtime.errors import not_ready, withdrawn
from bioverify.runtime.hosting import host
from bioverify.runtime.validation import check_items
from bioverify.runtime.work import Admission, WorkThread
from bioverify.v1 import types_pb2, verifier_pb2, verifier_pb2_grpc
from bioverify.wire.outcomes import bound_outcome, description_to_wire, outcome_to_wire
from bioverify.wire.tasks import parse_mode_from_wire, read_item

_SAME_AS_BUILT = 1e-4
"""The last digits of a number are the machine's that computed it."""

SERVICE = verifier_pb2.DESCRIPTOR.services_by_name["VerifierService"].full_name

log = structlog.stdlib.get_logger("bioverify.runtime.verifier")

Context = grpc.aio.ServicerContext[Any, Any]


class VerifierService(verifier_pb2_grpc.VerifierServiceServicer):
    """Refuses with UNAVAILABLE until `load` has opened the verifier and its canary scored right."""

    def __init__(self, open_verifier: Callable[[], Verifier], config: ServerConfig) -> None:
        self._open_verifier = open_verifier
        self._config = config
        self._admission = Admission(config.max_items_in_flight, metrics.ITEMS_IN_FLIGHT)
        self._thread = WorkThread()
        self._verifier: Verifier | None = None
        self._refusal = not_ready("the artifact is still being opened")
        self._withdrew = asyncio.Event()

    async def load(self) -> bool:
        """Open the verifier and ask its canary; whether it scored right. What `open_verifier` raises passes through."""
        started = time.monotonic()
        verifier = (await self._thread.run(self._open_verifier)).result
        name = verifier.description.name
        log.info("opened", verifier=name, fingerprint=verifier.description.fingerprint, seconds=_since(started))
        metrics.show(verifier.description)
        problem = (await self._thread.run(lambda: canary_problem(verifier))).result
        if problem:
            self._withdraw(name, f"the canary of {name} failed: {problem}")
            return False
        self._verifier = verifier
        return True

    async def watch(self, show: Callable[[bool], Awaitable[None]]) -> None:
        """Check the verifier until it is cancelled. ``show``: tell whether it is ready."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._withdrew.wait(), self._config.check_every_s)
            was_seen = self._withdrew.is_set()
            self._withdrew.clear()
            if (verifier := self._verifier) is not None:
                problem = (await self._thread.run(partial(_problem, verifier))).result
                if problem:
                    self._withdraw(verifier.description.name, problem)
            if self._verifier is not None:
                continue
            if was_seen:
                await show(False)
                continue  # what was just found wrong is not right yet
            try:
                is_ready = await self.load()
            except Exception as error:
                # Whatever opening raises: there is no verifier until it opens.
                log.warning("opening it again failed", error=f"{type(error).__name__}: {error}")
            else:
                if is_ready:
                    await show(True)

    def _withdraw(self, name: str, problem: str) -> None:
        log.error("the verifier withdraws: what it says cannot be trusted", verifier=name, problem=problem)
        self._verifier = None
        self._refusal = withdrawn(problem)
        self._withdrew.set()

    async def Describe(  # noqa: N802 - the contract's name
        self, request: verifier_pb2.DescribeRequest, context: Context
    ) -> verifier_pb2.DescribeResponse:
        limits = verifier_pb2.Limits(
            max_items=self._config.max_items,
            max_bytes=self._config.max_bytes,
            max_items_in_flight=self._config.max_items_in_flight,
        )
        return description_to_wire(self._ready_verifier().description, limits)

    async def ScoreBatch(  # noqa: N802
        self, request: verifier_pb2.VerifierServiceScoreBatchRequest, context: Context
    ) -> verifier_pb2.VerifierServiceScoreBatchResponse:
        check_items(request, request.items, self._config.max_items)
        return await self._score(request, context)

    async def ScoreStream(  # noqa: N802
        self, request_iterator: AsyncIterator[verifier_pb2.ScoreStreamRequest], context: Context
    ) -> AsyncIterator[verifier_pb2.ScoreStreamResponse]:
        # One batch at a time: the next one is read when this one is answered, and gRPC's flow control does the rest.
        async for request in request_iterator:
            check_items(request, request.batch.items, self._config.max_items, path="batch.items")
            yield verifier_pb2.ScoreStreamResponse(batch=await self._score(request.batch, context))

    def close(self) -> bool:
        """False if the verifier is still at work."""
        return self._thread.close()

    def _ready_verifier(self) -> Verifier:
        if self._verifier is None:
            raise self._refusal
        return self._verifier

    async def _score(
        self, request: verifier_pb2.VerifierServiceScoreBatchRequest, context: Context
    ) -> verifier_pb2.VerifierServiceScoreBatchResponse:
        verifier = self._ready_verifier()
        description = verifier.description
        remaining_s = context.time_remaining()
        deadline = None if remaining_s is None else time.monotonic() + remaining_s
        items = len(request.items)
        tracing.note(verifier=description.name, items=items)
        self._admission.enter(items)
        finished = await self._thread.run(
            lambda: (score_request(verifier, description, request), description.problem()),
            deadline=deadline,
            # Not when the call ends: one that was cancelled while being worked on still occupies the thread.
            on_end=lambda: self._admission.leave(items),
        )
        outcomes, problem = finished.result
        if problem:
            if self._verifier is verifier:
                self._withdraw(description.name, problem)
            raise withdrawn(problem)
        tracing.note(queue_seconds=finished.queue_s, work_seconds=finished.work_s)
        metrics.QUEUE_SECONDS.labels(description.name).observe(finished.queue_s, tracing.exemplar())
        metrics.WORK_SECONDS.labels(description.name).observe(finished.work_s, tracing.exemplar())
        metrics.BATCH_ITEMS.labels(description.name).observe(items)
        return verifier_pb2.VerifierServiceScoreBatchResponse(
            outcomes=outcomes,
            fingerprint=description.fingerprint,
            timing=verifier_pb2.Timing(queue_seconds=finished.queue_s, work_seconds=finished.work_s),
        )


def score_request(
    verifier: Verifier, description: Description, request: verifier_pb2.VerifierServiceScoreBatchRequest
) -> list[types_pb2.Outcome]:
    """The outcomes of a valid request, in order."""
    mode = parse_mode_from_wire(request.parse_mode)
    items = [read_item(message, mode, description.reads) for message in request.items]
    outcomes = score_each(verifier, items, with_evidence=not request.omit_evidence)
    for (outcome, reason), count in Counter(map(metrics.outcome_labels, outcomes)).items():
        metrics.OUTCOMES.labels(description.name, outcome, reason).inc(count)
    return [_written(message.id, outcome) for message, outcome in zip(request.items, outcomes, strict=True)]


def _written(item_id: str, outcome: Outcome) -> types_pb2.Outcome:
    message = outcome_to_wire(item_id, outcome)
    try:
        bound_outcome(message)
    except ValueError as error:
        return outcome_to_wire(item_id, Failed("internal", str(error), retryable=False))
    return message


def score_each(verifier: Verifier, items: Sequence[Item], *, with_evidence: bool) -> list[Outcome]:
    """One outcome per item, in order, whatever the verifier raises."""
    try:
        return _checked(verifier.score(items, with_evidence=with_evidence), len(items))
    except Exception:
        metrics.EXCEPTIONS.labels(verifier.description.name).inc()
        log.exception("scoring a batch raised; its items are scored one by one", items=len(items))
    outcomes: list[Outcome] = []
    logged = False
    for item in items:
        try:
            outcomes += _checked(verifier.score([item], with_evidence=with_evidence), 1)
        except Exception as error:
            if not logged:
                log.exception("scoring an item raised", task=repr(item.task))
                logged = True
            outcomes.append(Failed("internal", f"{type(error).__name__}: {error}", retryable=False))
    return outcomes


def _checked(outcomes: list[Outcome], expected: int) -> list[Outcome]:
    if len(outcomes) != expected:
        raise RuntimeError(f"the verifier gave {len(outcomes)} outcomes for {expected} items")
    return outcomes


def _problem(verifier: Verifier) -> str:
    """What is wrong with what the verifier opened, or with its canaries; empty if nothing is."""
    problem = verifier.description.problem()
    if not problem and (wrong := canary_problem(verifier)):
        problem = f"the canary of {verifier.description.name} failed: {wrong}"
    return problem


def canary_problem(verifier: Verifier) -> str:
    """What is wrong with the verifier's scores of its own canary and of those of its artifacts; empty if nothing is."""
    try:
        item, expected = verifier.canary()
        of_builds = verifier.description.canaries
        [found, *others] = verifier.score([item, *(one for one, _ in of_builds)], with_evidence=False)
    except Exception as error:
        log.exception("the canary raised")
        return f"{type(error).__name__}: {error}"
    if not _agree(expected, found, 1e-6):
        return f"expected {expected}, found {found}"
    for (asked, built), now in zip(of_builds, others, strict=True):
        if not _agree(built, now, _SAME_AS_BUILT):
            return f"{asked.task}: expected {built} as on the day it was built, found {now}"
    return ""


def _agree(expected: Outcome, found: Outcome, tolerance: float) -> bool:
    if isinstance(expected, Scored) and isinstance(found, Scored):
        return (
            math.isclose(expected.value, found.value, abs_tol=tolerance)
            and (expected.belief is None) == (found.belief is None)
            and math.isclose(expected.belief or 0.0, found.belief or 0.0, abs_tol=tolerance)
            and all(
                math.isclose(value, found.components.get(name, math.nan), rel_tol=tolerance, abs_tol=tolerance)
                for name, value in expected.components.items()
            )
        )
    if isinstance(expected, NotApplicable) and isinstance(found, NotApplicable):
        return expected.reason == found.reason
    return False


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def serve_process(open_verifier: Callable[[], Verifier], config: ServerConfig) -> int:
    """Serve in this process until SIGTERM; the exit code."""

    async def run() -> int:
        service = VerifierService(open_verifier, config)
        code = await host(
            config,
            SERVICE,
            lambda server: verifier_pb2_grpc.add_VerifierServiceServicer_to_server(service, server),
            service.load,
            service.watch,
        )
        if not service.close():
            # Work that outlasted its grace period cannot be stopped, and nobody waits for it any more.
            logging.shutdown()
            os._exit(code)
        return code

    with tracing.exporting("bioverify-verifier"):
        return asyncio.run(run())
