"""Heads of requests that do not come to an end: uvicorn waits for them for ever, one connection each."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain\r\ncontent-length: 29\r\nconnection: close\r\n\r\n"
    b"the head did not come in time"
)


def patient_protocol(timeout_s: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, which gives a connection ``timeout_s`` seconds for the head of each request."""

    class Patient(HttpToolsProtocol):
        _waiting_for_head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            # The first bytes of the next request on a connection that is kept; more of the same do not buy more time.
            if self.cycle is None or self.cycle.response_complete:
                self._wait_for_head()
            super().data_received(data)

        def on_headers_complete(self) -> None:
            self._have_head()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._have_head()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            if self._waiting_for_head is None:
                self._waiting_for_head = self.loop.call_later(timeout_s, self._give_up)

        def _have_head(self) -> None:
            if self._waiting_for_head is not None:
                self._waiting_for_head.cancel()
                self._waiting_for_head = None

        def _give_up(self) -> None:
            self._waiting_for_head = None
            if not self.transport.is_closing():
                self.transport.write(_LATE)
                self.transport.close()

    return Patient
