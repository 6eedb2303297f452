"""The contract's RewardService: reads a request once, asks all verifiers at the same time, composes the rewards.

The caller's deadline is passed on: a tenth of it, half a second at most, is kept for composing and answering, and
whatever has not come by then is `Failed` and reported as such, so that a slow verifier never costs more than the
deadline. The service is ready when it listens: a verifier that is away is a matter of the single reward and seen in
ListVerifiers.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import grpc

from bioverify import recipes, tracing
from bioverify.aggregator import metrics
from bioverify.aggregator.cache import OutcomeCache
from bioverify.aggregator.composing import least_bytes, reply_to
from bioverify.aggregator.config import AggregatorConfig
from bioverify.aggregator.fanout import VerifierReply, ask_verifier
from bioverify.aggregator.faults import UpstreamError
from bioverify.aggregator.jointly import FEW_ITEMS, Jointly
from bioverify.aggregator.questions import Questions
from bioverify.aggregator.reading import ReadRequest, asked_by, read_recipe, read_request
from bioverify.aggregator.replica import DESCRIBE_TIMEOUT_S
from bioverify.aggregator.upstream import Upstream
from bioverify.core.recipes import Recipe, Requirement
from bioverify.core.verifier import Reads
from bioverify.runtime.errors import over_limit
from bioverify.runtime.hosting import host, refuse_to_start
from bioverify.runtime.metrics import ITEMS_IN_FLIGHT
from bioverify.runtime.validation import check_items
from bioverify.runtime.work import RETRY_AFTER_S, Admission, WorkThread, run_here
from bioverify.transport.tls import LiveIdentity, TlsError
from bioverify.v1 import reward_pb2, reward_pb2_grpc
from bioverify.wire.outcomes import failure_to_wire
from bioverify.wire.rewards import recipe_to_wire

SERVICE = reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name

# Read and composed in about 0.3 ms together, on one core.
SMALL_CALL_ITEMS = 8
SMALL_CALL_BYTES = 32 * 1024

Context = grpc.aio.ServicerContext[Any, Any]


class RewardService(reward_pb2_grpc.RewardServiceServicer):
    """To be made inside the running event loop."""

    def __init__(self, config: AggregatorConfig) -> None:
        self._config = config
        metrics.show_zeros(config.verifiers)
        self._admission = Admission(config.max_items_in_flight, ITEMS_IN_FLIGHT)
        self._thread = WorkThread()
        tls = LiveIdentity(config.tls) if config.tls is not None else None
        self._upstreams = {
            name: Upstream(name, target, describe_ttl_s=config.describe_ttl_s, max_waiting=config.max_waiting, tls=tls)
            for name, target in config.verifiers.items()
        }
        self._cache: OutcomeCache | None = None
        if (address := config.redis_address) is not None:
            self._cache = OutcomeCache(
                address,
                ttl_s=config.cache_ttl_s,
                timeout_s=config.cache_timeout_s,
                pause_s=config.cache_pause_s,
                tls=tls,
                password_file=config.redis_password_file,
                secret=config.cache_secret(),
            )
        self._jointly = Jointly(self._cache)

    async def prepare(self) -> bool:
        """Read the shipped recipes once, so that a broken one is seen at the start."""
        for name in recipes.names():
            recipes.load(name)
        return True

    async def close(self) -> None:
        self._thread.close()
        if self._cache is not None:
            await self._cache.close()
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams.values()))

    async def ScoreBatch(  # noqa: N802 - the contract's name
        self, request: reward_pb2.RewardServiceScoreBatchRequest, context: Context
    ) -> reward_pb2.RewardServiceScoreBatchResponse:
        arrived = time.monotonic()
        self._jointly.somebody_came()
        remaining_s: float | None = context.time_remaining()
        budget_s = self._config.default_deadline_s if remaining_s is None else remaining_s
        deadline = arrived + budget_s - min(self._config.deadline_margin_s, 0.1 * budget_s)

        check_items(request, request.items, self._config.max_items)
        recipe = read_recipe(request, self._upstreams, self._config.members)
        tracing.note(recipe=recipe.name, items=len(request.items))
        self._refuse_where_a_queue_is_full(recipe, len(request.items))
        with self._admission.hold(len(request.items)):
            is_asked_jointly = len(request.items) <= FEW_ITEMS
            # What is asked jointly is hashed then, all of it at once.
            reads = set() if is_asked_jointly else self._reads_of(recipe)

            def read_it() -> ReadRequest:
                read = read_request(request, recipe, self._config.members, reads)
                # Before anybody is asked in vain.
                least_bytes(request, read)
                return read

            # The hand-overs to the thread and back take longer than a few items, and the loop is as soon free again.
            is_small = len(request.items) <= SMALL_CALL_ITEMS and request.ByteSize() <= SMALL_CALL_BYTES
            reading = run_here(read_it) if is_small else await self._thread.run(read_it, deadline=deadline)
            read = reading.result
            asked = time.monotonic()
            replies = await asyncio.gather(
                *(
                    self._ask(
                        verifier,
                        read.questions,
                        positions,
                        deadline,
                        with_evidence=not request.omit_evidence,
                        jointly=is_asked_jointly,
                    )
                    for verifier, positions in read.positions.items()
                )
            )
            asking_s = time.monotonic() - asked
            states = {verifier: self._upstreams[verifier].state for verifier in read.positions}

            def compose() -> reward_pb2.RewardServiceScoreBatchResponse:
                by_verifier = dict(zip(read.positions, replies, strict=True))
                return reply_to(request, read, by_verifier, states, self._config.consensus)

            composing = run_here(compose) if is_small else await self._thread.run(compose)
        response = composing.result
        response.wall_seconds = time.monotonic() - arrived
        metrics.STAGE_SECONDS.labels("read").observe(reading.work_s, tracing.exemplar())
        metrics.STAGE_SECONDS.labels("ask").observe(asking_s, tracing.exemplar())
        metrics.STAGE_SECONDS.labels("compose").observe(composing.work_s, tracing.exemplar())
        return response

    async def ListVerifiers(  # noqa: N802
        self, request: reward_pb2.ListVerifiersRequest, context: Context
    ) -> reward_pb2.ListVerifiersResponse:
        return reward_pb2.ListVerifiersResponse(verifiers=await asyncio.gather(*map(_status, self._upstreams.values())))

    async def ListRecipes(  # noqa: N802
        self, request: reward_pb2.ListRecipesRequest, context: Context
    ) -> reward_pb2.ListRecipesResponse:
        return reward_pb2.ListRecipesResponse(recipes=[recipe_to_wire(recipes.load(name)) for name in recipes.names()])

    def _refuse_where_a_queue_is_full(self, recipe: Recipe, items: int) -> None:
        """A call that is bound to lose a required score is better refused before any work."""
        required = [term for term in recipe.all_terms if term.requirement is Requirement.REQUIRED]
        for verifier in asked_by(required, self._config.members):
            if not self._upstreams[verifier].has_room(items + self._jointly.waiting(verifier)):
                raise over_limit(f"too many items wait for {verifier}", retry_after_s=RETRY_AFTER_S)

    def _reads_of(self, recipe: Recipe) -> set[Reads]:
        """What the verifiers read that the recipe asks, as far as it is known yet."""
        accounts = [self._upstreams[name].last_account for name in asked_by(recipe.all_terms, self._config.members)]
        return {account.reads for account in accounts if account is not None}

    async def _ask(
        self,
        verifier: str,
        questions: Questions,
        positions: list[int],
        deadline: float,
        *,
        with_evidence: bool,
        jointly: bool,
    ) -> VerifierReply:
        own_budget_s = self._config.verifier_deadlines_s.get(verifier, math.inf)
        with tracing.span(f"ask {verifier}", verifier=verifier, items=len(positions)):
            upstream = self._upstreams[verifier]
            deadline = min(deadline, time.monotonic() + own_budget_s)
            if jointly:
                reply = await self._jointly.ask(upstream, questions, positions, deadline, with_evidence=with_evidence)
            else:
                reply = await ask_verifier(
                    upstream, self._cache, questions, positions, deadline, with_evidence=with_evidence
                )
            tracing.note(
                distinct=reply.distinct,
                cache_hits=reply.cache_hits,
                shared=reply.shared,
                retries=reply.usage.retries,
                hedges=reply.usage.hedges,
            )
            return reply


async def _status(upstream: Upstream) -> reward_pb2.VerifierStatus:
    status = reward_pb2.VerifierStatus(name=upstream.name, target=upstream.target)
    try:
        account = await upstream.account(time.monotonic() + DESCRIBE_TIMEOUT_S, refresh=True)
    except UpstreamError as error:
        status.failure.CopyFrom(failure_to_wire(error.outcome))
        return status
    status.is_ready = True
    status.description.CopyFrom(account.message)
    return status


def serve_process(config: AggregatorConfig) -> int:
    """Serve in this process until SIGTERM; the exit code."""

    async def run() -> int:
        try:
            service = RewardService(config)
        except TlsError as error:
            return refuse_to_start(str(error))
        try:
            return await host(
                config.server,
                SERVICE,
                lambda server: reward_pb2_grpc.add_RewardServiceServicer_to_server(service, server),
                service.prepare,
            )
        finally:
            await service.close()

    with tracing.exporting("bioverify-aggregator"):
        return asyncio.run(run())
