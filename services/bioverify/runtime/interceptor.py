"""The one place where a call's end is decided: exceptions become statuses, and every call is counted, timed and logged.

A `Refused` becomes its own status with details; anything else that escapes a handler is INTERNAL, with the traceback in
the log and the request id in the message, so that the two can be brought together. Health and reflection pass by.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, cast

import grpc
import structlog
from structlog.contextvars import bound_contextvars

from bioverify import tracing
from bioverify.runtime import cancellation, metrics
from bioverify.runtime.errors import Refused
from bioverify.transport.headers import REQUEST_ID, received
from bioverify.transport.refusals import Refusal, refusal_metadata

_OURS = "/bioverify."
_SCORING = "Score"

Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.stdlib.get_logger("bioverify.runtime.calls")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of ours. ``active``: calls accepted and not answered yet."""

    def __init__(self) -> None:
        self.active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_until_idle(self) -> None:
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        if handler.unary_unary is not None:
            # The stubs know the blocking server's handlers only; on this server both are coroutines.
            answer = cast(Callable[[Any, Context], Awaitable[Any]], handler.unary_unary)

            async def unary(request: Any, context: Context) -> Any:
                async with self._call(method, context):
                    return await answer(request, context)

            return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)
        # One request or a stream of them: what is answered is a stream in either case.
        asked_once = handler.unary_stream is not None
        answer_stream = cast(
            Callable[[Any, Context], AsyncIterator[Any]], handler.unary_stream if asked_once else handler.stream_stream
        )

        async def stream(asked: Any, context: Context) -> Any:
            async with self._call(method, context):
                async for reply in answer_stream(asked, context):
                    yield reply

        make = grpc.unary_stream_rpc_method_handler if asked_once else grpc.stream_stream_rpc_method_handler
        return make(stream, handler.request_deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[None]:
        request_id, headers = received(context.invocation_metadata())
        name = method.rpartition("/")[2]
        started = time.monotonic()
        refusal: Refusal | None = None
        code = grpc.StatusCode.OK
        self._enter()
        with _span(name, headers), bound_contextvars(request_id=request_id, method=method):
            tracing.note(request_id=request_id)
            try:
                context.set_trailing_metadata(((REQUEST_ID, request_id),))
                yield
            except Refused as error:
                refusal = error.refusal
            except (Exception, asyncio.CancelledError) as error:
                if cancellation.is_wanted(error):
                    code = grpc.StatusCode.CANCELLED
                    tracing.failed(code.name, "cancelled")
                    raise
                log.exception("handler raised")
                refusal = Refusal(
                    grpc.StatusCode.INTERNAL, f"internal error; the log has more under {request_id}", "internal"
                )
            finally:
                code = refusal.code if refusal else code
                seconds = time.monotonic() - started
                metrics.RPC_CALLS.labels(method, code.name).inc()
                metrics.RPC_SECONDS.labels(method).observe(seconds, tracing.exemplar())
                self._leave()
                if refusal:
                    log.warning("call refused", code=code.name, reason=refusal.reason, message=refusal.message)
                else:
                    # By the id that a person was told, each call is found in the log of every service that was asked.
                    say = log.info if name.startswith(_SCORING) else log.debug
                    say("call answered", code=code.name, seconds=round(seconds, 6))
            if refusal:
                tracing.failed(code.name, refusal.reason)
                trailing: tuple[tuple[str, str | bytes], ...] = (*refusal_metadata(refusal), (REQUEST_ID, request_id))
                await context.abort(refusal.code, refusal.message, trailing)

    def _enter(self) -> None:
        self.active += 1
        self._idle.clear()
        metrics.RPC_ACTIVE.set(self.active)

    def _leave(self) -> None:
        self.active -= 1
        metrics.RPC_ACTIVE.set(self.active)
        if not self.active:
            self._idle.set()


def _span(name: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
    """Scoring is traced; accounts and listings, which are asked for all the time, are not."""
    return tracing.served(name, headers) if name.startswith(_SCORING) else nullcontext()
