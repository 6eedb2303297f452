"""The client for asyncio.

The channel is opened inside the running loop, at the first call, and again if the loop or the process has changed:
TRL runs async rewards on a loop of its own, and a channel made elsewhere raises there.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
from opentelemetry.trace import SpanKind

from bioverify import tracing
from bioverify.client import messages
from bioverify.client.errors import ClientError, checked_target, client_error
from bioverify.client.retries import pause_before_retry
from bioverify.client.thoughts import ThoughtWatch
from bioverify.client.values import ArrowStream, ListedVerifier, Progress, ScoredBatch, ScoreItem
from bioverify.core import DEFAULT_RECIPE
from bioverify.core.recipes import Recipe
from bioverify.transport.channels import channel_options
from bioverify.transport.headers import Sent, outgoing
from bioverify.transport.refusals import refusal_from_error
from bioverify.transport.tls import LiveIdentity, Pems, TlsIdentity, open_aio_channel
from bioverify.v1 import reward_pb2, reward_pb2_grpc
from bioverify.wire.rewards import recipe_from_wire

if TYPE_CHECKING:
    import pyarrow as pa

_FEW = 256
_LAST_CALLS_S = 3600.0
"""For so long a call may go on over a connection that was replaced."""


class AsyncClient:
    """Asks one aggregator. ``target``: "host:port", "unix:/path", or "dns:///name:port" for all addresses of a name.

    Nothing is opened before the first call. ``tls``: whom it shows itself to be, if the services ask for
    certificates. ``max_items`` and ``max_bytes``: of one request; a larger call is cut. ``warns``: it logs
    once that no completion has a thought; False for a caller that says so itself. Raises TlsError for unusable files,
    ClientError for a target that is a URL.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: TlsIdentity | None = None,
        max_items: int = messages.MAX_ITEMS,
        max_bytes: int = messages.MAX_BYTES,
        warns: bool = True,
    ) -> None:
        self.target = checked_target(target)
        self._thoughts = ThoughtWatch(is_on=warns)
        self._cut = partial(messages.cut, max_items=max_items, max_bytes=max_bytes)
        self._tls = LiveIdentity(tls) if tls is not None else None
        self._shown: Pems | None = None
        self._replaced: set[asyncio.Task[None]] = set()
        self._channel: grpc.aio.Channel | None = None
        self._opened_in: tuple[int, asyncio.AbstractEventLoop] | None = None

    async def score(
        self,
        items: Sequence[ScoreItem],
        recipe: str | Recipe = DEFAULT_RECIPE,
        *,
        deadline_s: float = 30,
        with_evidence: bool = True,
        evidence_once: bool = True,
        progress: Progress | None = None,
        request_id: str = "",
    ) -> ScoredBatch:
        """One reward per item, in order, within ``deadline_s`` seconds for the whole call.

        ``progress`` hears after each request how many items are dealt with, and of how many. Items of a request that
        was lost are unscorable. ``request_id``: under which all services log the call; without it that of the request
        which is being answered here, or a new one. ``evidence_once``: a verifier's evidence is sent once per item,
        although each of its parts has it here; False bounds what the parts take if they are written out one by one.
        Raises ClientError if no request came through.
        """
        started = time.monotonic()
        messages.check_ids(items)
        request_id = messages.request_id_for(request_id)
        # The loop has others to serve: 5 µs an item.
        requests = self._cut(items) if len(items) <= _FEW else await asyncio.to_thread(self._cut, items)
        at_once = asyncio.Semaphore(messages.CALLS_AT_ONCE)
        done = 0

        async def ask(index: int) -> reward_pb2.RewardServiceScoreBatchResponse | ClientError:
            nonlocal done
            async with at_once:
                request = messages.score_request(
                    requests[index][1], recipe, with_evidence=with_evidence, evidence_once=evidence_once
                )
                reply = await self._ask(request, started + deadline_s, deadline_s, sent)
            done += len(requests[index][0])
            if progress:
                progress(done, len(items))
            return reply

        with tracing.span("score", SpanKind.CLIENT, recipe=messages.recipe_name(recipe), items=len(items)):
            sent = outgoing(request_id)
            replies = await asyncio.gather(*(ask(index) for index in range(len(requests))))
            self._thoughts.look(replies)
            return messages.assemble(items, requests, replies, time.monotonic() - started, request_id)

    async def score_dataframe(
        self,
        frame: ArrowStream,
        recipe: str | Recipe = DEFAULT_RECIPE,
        *,
        deadline_s: float = 600,
        with_evidence: bool = True,
        progress: Progress | None = None,
    ) -> pa.Table:
        """The frame and its rewards as further columns: `bioverify.client.frames`. Raises ValueError, ClientError."""
        from bioverify.client.frames import read_frame, with_rewards, with_unread

        table, items, unread = read_frame(frame)
        batch = await self.score(items, recipe, deadline_s=deadline_s, with_evidence=with_evidence, progress=progress)
        return with_rewards(table, with_unread(batch.rewards, unread))

    async def list_verifiers(self, *, deadline_s: float = 10) -> list[ListedVerifier]:
        """The verifiers that the aggregator knows, and whether they answer. Raises ClientError."""
        try:
            reply = await self._stub().ListVerifiers(
                reward_pb2.ListVerifiersRequest(), timeout=deadline_s, metadata=outgoing()
            )
        except grpc.RpcError as error:
            raise client_error(refusal_from_error(error), self.target, deadline_s) from error
        return [messages.listed_verifier(message) for message in reply.verifiers]

    async def list_recipes(self, *, deadline_s: float = 10) -> list[Recipe]:
        """The recipes that can be named. Raises ClientError."""
        try:
            reply = await self._stub().ListRecipes(
                reward_pb2.ListRecipesRequest(), timeout=deadline_s, metadata=outgoing()
            )
        except grpc.RpcError as error:
            raise client_error(refusal_from_error(error), self.target, deadline_s) from error
        return [recipe_from_wire(message) for message in reply.recipes]

    async def close(self) -> None:
        """Close the connection; the next call opens it again."""
        if self._channel is not None and self._opened_in == (os.getpid(), asyncio.get_running_loop()):
            await self._channel.close()
        self._channel = None
        for closing in self._replaced:
            closing.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _stub(self) -> reward_pb2_grpc.RewardServiceAsyncStub:
        here = (os.getpid(), asyncio.get_running_loop())
        shown = self._tls.current() if self._tls is not None else None
        if self._channel is not None and self._opened_in == here and self._shown is not shown:
            # The calls under way keep the connection that they have.
            closing = asyncio.ensure_future(self._channel.close(_LAST_CALLS_S))
            self._replaced.add(closing)
            closing.add_done_callback(self._replaced.discard)
            self._channel = None
        if self._channel is None or self._opened_in != here:
            self._channel = open_aio_channel(self.target, channel_options(self.target), shown)
            self._opened_in, self._shown = here, shown
        return reward_pb2_grpc.RewardServiceStub(self._channel)

    async def _ask(
        self,
        request: reward_pb2.RewardServiceScoreBatchRequest,
        deadline: float,
        deadline_s: float,
        sent: Sent,
    ) -> reward_pb2.RewardServiceScoreBatchResponse | ClientError:
        for retries in count():
            try:
                left_s = max(0.001, deadline - time.monotonic())
                return await self._stub().ScoreBatch(request, timeout=left_s, metadata=sent)
            except grpc.aio.AioRpcError as error:
                refusal = refusal_from_error(error)
            pause_s = pause_before_retry(refusal, retries, deadline - time.monotonic())
            if pause_s is None:
                break
            await asyncio.sleep(pause_s)
        return client_error(refusal, self.target, deadline_s, sent)
