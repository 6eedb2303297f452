"""Calls that come together are made as one (group commit).

The first call starts at the end of the event loop's turn, with all that came in it; whatever comes while it is under
way is made with the next one. So a lone caller waits for nobody, and the more callers there are, the more share a call.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

Entry = TypeVar("Entry")
Result = TypeVar("Result")


class _Batch(Generic[Entry, Result]):
    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.deadline = 0.0
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()


class Together(Generic[Entry, Result]):
    """To be used from one event loop. ``call``: gets the entries of all, and the latest of their deadlines."""

    def __init__(self, call: Callable[[dict[bytes, Entry], float], Awaitable[Result]]) -> None:
        self._call = call
        self._next: _Batch[Entry, Result] | None = None
        self._calling: asyncio.Task[None] | None = None

    async def join(self, entries: Mapping[bytes, Entry], deadline: float, patience_s: float) -> Result | None:
        """The result of the call that takes ``entries`` along; None where it has not come in time.

        In time: by ``deadline`` (time.monotonic), after ``patience_s`` seconds at most. A caller that leaves ends
        nothing for the others. Raises what the call raises.
        """
        if self._next is None:
            self._next = _Batch()
        batch = self._next
        batch.entries.update(entries)
        batch.deadline = max(batch.deadline, deadline)
        if self._calling is None or self._calling.done():
            # Without the first caller's context: what is logged is not about its request alone.
            self._calling = asyncio.get_running_loop().create_task(self._go_on(), context=contextvars.Context())
        await asyncio.wait({batch.result}, timeout=max(0.0, min(patience_s, deadline - time.monotonic())))
        return batch.result.result() if batch.result.done() else None

    def close(self) -> None:
        if self._calling is not None:
            self._calling.cancel()

    async def _go_on(self) -> None:
        while (batch := self._next) is not None:
            self._next = None
            try:
                batch.result.set_result(await self._call(batch.entries, batch.deadline))
            except Exception as error:
                batch.result.set_exception(error)
