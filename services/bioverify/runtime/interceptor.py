"""The one place where a call's end is decided: exceptions become statuses, and every call is counted, timed and logged.

A `Refused` becomes its own status with details; anything else that escapes a handler is INTERNAL, with the traceback in
the log and the request id in the message, so that the two can be brought together. Health and reflection pass by.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, cast

import grpc
import structlog
from structlog.contextvars import bound_contextvars

from bioverify import tracing
from bioverify.runtime import cancellation, metrics
from bioverify.runtime.errors import Refused
from bioverify.transport.headers import REQUEST_ID
from bioverify.transport.refusals import Refusal, refusal_metadata

_OURS = "/bioverify."

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
        request_id = _request_id(context)
        started = time.monotonic()
        refusal: Refusal | None = None
        code = grpc.StatusCode.OK
        self._enter()
        with _span(method, context), bound_contextvars(request_id=request_id, method=method):
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
                    log.debug("call answered", code=code.name, seconds=round(seconds, 6))
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


def _span(method: str, context: Context) -> AbstractContextManager[Any]:
    """Scoring is traced; accounts and listings, which are asked for all the time, are not."""
    name = method.rpartition("/")[2]
    if not name.startswith("Score"):
        return nullcontext()
    headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return tracing.served(name, headers)


def _request_id(context: Context) -> str:
    """The caller's own request id, where it sent one that is fit for a log; else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable():
            return value
    return uuid.uuid4().hex
