"""Calls that come together are made as one (group commit).

The first call starts at the end of the event loop's turn, or when it is told to, with all that came until then. If only
so many may be under way, whatever comes meanwhile is made with the next one. So a lone caller waits for nobody, and the
more callers there are, the more share a call. A call is cancelled when the last of its callers is; one that is out of
time ends by itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Entry = TypeVar("Entry")
Result = TypeVar("Result")


class _Batch(Generic[Key, Entry, Result]):
    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}
        self.deadline = 0.0
        self.contexts: list[contextvars.Context] = []
        self.waiting = 0
        self.task: asyncio.Task[None] | None = None
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        # Nobody may be left to hear of an error.
        self.result.add_done_callback(lambda result: result.cancelled() or result.exception())


class Together(Generic[Key, Entry, Result]):
    """To be used from one event loop. ``call``: gets the entries of all, and the latest of their deadlines.

    ``at_once``: so many calls may be under way. ``when``: is given the start of a call, to run it when it is time. A
    call of one caller runs in his context, a shared one in an empty one: what is logged and traced there is about no
    single request.
    """

    def __init__(
        self,
        call: Callable[[dict[Key, Entry], float], Awaitable[Result]],
        *,
        at_once: float = math.inf,
        when: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._call = call
        self._at_once = at_once
        self._when = when or asyncio.get_running_loop().call_soon
        self._next: _Batch[Key, Entry, Result] | None = None
        self._is_held_back = False
        self._under_way: set[_Batch[Key, Entry, Result]] = set()

    async def join(self, entries: Mapping[Key, Entry], deadline: float, patience_s: float) -> Result | None:
        """The result of the call that takes ``entries`` along; None if it has not come in time.

        In time: by ``deadline`` (time.monotonic), after ``patience_s`` seconds at most. Raises what the call raises.
        """
        if self._next is None:
            self._next = _Batch()
            self._when(self._start)
        batch = self._next
        batch.entries.update(entries)
        batch.deadline = max(batch.deadline, deadline)
        batch.contexts.append(contextvars.copy_context())
        batch.waiting += 1
        try:
            await asyncio.wait({batch.result}, timeout=max(0.0, min(patience_s, deadline - time.monotonic())))
            if batch.task is not None and batch.deadline <= time.monotonic():
                # It ends by itself just now, and its end is told to the breaker.
                await asyncio.wait({batch.result})
        except asyncio.CancelledError:
            if batch.waiting == 1 and not batch.result.done():
                self._abandon(batch)
            raise
        finally:
            batch.waiting -= 1
        return batch.result.result() if batch.result.done() else None

    def close(self) -> None:
        for batch in self._under_way:
            assert batch.task is not None
            batch.task.cancel()

    @property
    def waiting(self) -> Collection[Key]:
        """The keys whose call has not begun."""
        return self._next.entries if self._next is not None else ()

    @property
    def is_idle(self) -> bool:
        return self._next is None and not self._under_way

    def _start(self) -> None:
        batch = self._next
        self._is_held_back = len(self._under_way) >= self._at_once
        if batch is None or self._is_held_back:
            return
        self._next = None
        self._under_way.add(batch)
        context = batch.contexts[0] if len(batch.contexts) == 1 else contextvars.Context()
        batch.task = asyncio.get_running_loop().create_task(self._make(batch), context=context)

    async def _make(self, batch: _Batch[Key, Entry, Result]) -> None:
        try:
            batch.result.set_result(await self._call(batch.entries, batch.deadline))
        except asyncio.CancelledError:
            batch.result.cancel()
            raise
        except Exception as error:
            batch.result.set_exception(error)
        finally:
            self._under_way.discard(batch)
            if self._is_held_back:
                self._start()

    def _abandon(self, batch: _Batch[Key, Entry, Result]) -> None:
        if batch.task is not None:
            batch.task.cancel()
        elif batch is self._next:
            self._next = None
