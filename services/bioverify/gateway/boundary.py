"""The outermost layer: every request gets an id, safe headers, a line in the audit log, and is counted and timed."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from bioverify import tracing
from bioverify.gateway import metrics
from bioverify.transport.headers import REQUEST_ID, request_id_from

_PAGES_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
# Swagger's page starts itself by an inline script and styles itself.
_DOCS_POLICY = f"{_PAGES_POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
}
audit = structlog.get_logger("bioverify.gateway.audit")


class Boundary:
    """Wraps the whole application. ``with_tls``: whether to tell browsers to stay with HTTPS."""

    def __init__(self, app: ASGIApp, with_tls: bool) -> None:
        self._app = app
        self._with_tls = with_tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(Headers(scope=scope).get(REQUEST_ID))
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500
        started = time.monotonic()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), scope["path"], request_id)
            await send(message)

        with (
            _span(scope),
            bound_contextvars(request_id=request_id),
            metrics.IN_FLIGHT.track_inprogress(),
        ):
            tracing.note(request_id=request_id)
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception:
                # The problem has been sent already; its cause belongs here, under the same request id.
                audit.exception("request failed", path=scope["path"])
            finally:
                self._record(scope, status, time.monotonic() - started)

    def _add_headers(self, headers: MutableHeaders, path: str, request_id: str) -> None:
        headers[REQUEST_ID] = request_id
        for name, value in _HEADERS.items():
            headers[name] = value
        headers["content-security-policy"] = _DOCS_POLICY if path == "/docs" else _PAGES_POLICY
        if self._with_tls:
            headers["strict-transport-security"] = "max-age=31536000"
        if path.startswith("/v1/"):
            headers.setdefault("cache-control", "no-cache")

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        metrics.REQUESTS.labels(scope["method"], route, str(status)).inc()
        metrics.SECONDS.labels(scope["method"], route).observe(seconds, tracing.exemplar())
        trace.get_current_span().update_name(f"{scope['method']} {route}")
        tracing.note(status=status)
        if status >= 500:
            tracing.failed(str(status), "fault")
        client = scope.get("client")
        audit.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            seconds=round(seconds, 4),
            key=scope["state"].get("key_name", ""),
            items=scope["state"].get("items", 0),
            remote=client[0] if client else "",
        )


def _span(scope: Scope) -> AbstractContextManager[Any]:
    """The API is traced; pages, health and metrics are not."""
    if not scope["path"].startswith("/v1/"):
        return nullcontext()
    return tracing.served(scope["method"], Headers(scope=scope))
