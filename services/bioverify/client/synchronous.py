"""The client for plain code. Safe to share between threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
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
from bioverify.transport.tls import LiveIdentity, Pems, TlsIdentity, open_channel
from bioverify.v1 import reward_pb2, reward_pb2_grpc
from bioverify.wire.rewards import recipe_from_wire

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class _Connection:
    """``shown``: the certificates that it was opened with. ``calls``: under way over it."""

    channel: grpc.Channel
    shown: Pems | None
    opened_by: int
    calls: int = 0
    is_replaced: bool = False


class Client:
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
        self._lock = threading.Lock()
        self._tls = LiveIdentity(tls) if tls is not None else None
        self._connection: _Connection | None = None

    def score(
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
        requests = self._cut(items)

        def ask(index: int) -> reward_pb2.RewardServiceScoreBatchResponse | ClientError:
            request = messages.score_request(
                requests[index][1], recipe, with_evidence=with_evidence, evidence_once=evidence_once
            )
            return self._ask(request, started + deadline_s, deadline_s, sent)

        done = 0
        replies: list[reward_pb2.RewardServiceScoreBatchResponse | ClientError] = []
        with tracing.span("score", SpanKind.CLIENT, recipe=messages.recipe_name(recipe), items=len(items)):
            sent = outgoing(request_id)
            with ThreadPoolExecutor(messages.CALLS_AT_ONCE) if len(requests) > 1 else nullcontext() as pool:
                for reply in (pool.map if pool else map)(ask, range(len(requests))):
                    done += len(requests[len(replies)][0])
                    replies.append(reply)
                    if progress:
                        progress(done, len(items))
            self._thoughts.look(replies)
            return messages.assemble(items, requests, replies, time.monotonic() - started, request_id)

    def score_dataframe(
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
        batch = self.score(items, recipe, deadline_s=deadline_s, with_evidence=with_evidence, progress=progress)
        return with_rewards(table, with_unread(batch.rewards, unread))

    def list_verifiers(self, *, deadline_s: float = 10) -> list[ListedVerifier]:
        """The verifiers that the aggregator knows, and whether they answer. Raises ClientError."""
        try:
            with self._stub() as stub:
                reply = stub.ListVerifiers(reward_pb2.ListVerifiersRequest(), timeout=deadline_s, metadata=outgoing())
        except grpc.RpcError as error:
            raise client_error(refusal_from_error(error), self.target, deadline_s) from error
        return [messages.listed_verifier(message) for message in reply.verifiers]

    def list_recipes(self, *, deadline_s: float = 10) -> list[Recipe]:
        """The recipes that can be named. Raises ClientError."""
        try:
            with self._stub() as stub:
                reply = stub.ListRecipes(reward_pb2.ListRecipesRequest(), timeout=deadline_s, metadata=outgoing())
        except grpc.RpcError as error:
            raise client_error(refusal_from_error(error), self.target, deadline_s) from error
        return [recipe_from_wire(message) for message in reply.recipes]

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        with self._lock:
            if self._connection is not None and self._connection.opened_by == os.getpid():
                self._connection.channel.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _stub(self) -> Iterator[reward_pb2_grpc.RewardServiceStub]:
        """The stub for one call. A connection that shows an old certificate is closed after its last one."""
        with self._lock:
            connection = self._connect()
            connection.calls += 1
        try:
            yield reward_pb2_grpc.RewardServiceStub(connection.channel)
        finally:
            with self._lock:
                connection.calls -= 1
                if connection.is_replaced and not connection.calls:
                    connection.channel.close()

    def _connect(self) -> _Connection:
        shown = self._tls.current() if self._tls is not None else None
        open_now = self._connection
        # A channel does not survive a fork: its threads stay behind with the parent.
        if open_now is not None and open_now.opened_by == os.getpid():
            if open_now.shown is shown:
                return open_now
            open_now.is_replaced = True
            if not open_now.calls:
                open_now.channel.close()
        self._connection = _Connection(
            open_channel(self.target, channel_options(self.target), shown), shown, os.getpid()
        )
        return self._connection

    def _ask(
        self,
        request: reward_pb2.RewardServiceScoreBatchRequest,
        deadline: float,
        deadline_s: float,
        sent: Sent,
    ) -> reward_pb2.RewardServiceScoreBatchResponse | ClientError:
        for retries in count():
            try:
                left_s = max(0.001, deadline - time.monotonic())
                with self._stub() as stub:
                    return stub.ScoreBatch(request, timeout=left_s, metadata=sent)
            except grpc.RpcError as error:
                refusal = refusal_from_error(error)
            pause_s = pause_before_retry(refusal, retries, deadline - time.monotonic())
            if pause_s is None:
                break
            time.sleep(pause_s)
        return client_error(refusal, self.target, deadline_s, sent)
