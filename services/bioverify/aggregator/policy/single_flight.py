"""One question that several callers ask at the same time is asked once (single flight).

Whoever first misses a question in the cache starts a call for it; whoever misses it while that call is under way waits
for the same call and gets the same outcome, or the same failure. A call belongs to all who wait for it: one who leaves
(cancelled, out of time) does not end it for the others, and when the last one has left it is cancelled, and the
verifier's work with it. Nobody joins a call that may end in less than half of the time that he has himself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class SharedCall(Generic[T]):
    task: asyncio.Task[T]
    deadline: float
    waiters: int = 0


class SingleFlight(Generic[T]):
    """The calls under way, by what they ask. To be used from one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, SharedCall[T]] = {}

    def find(self, key: bytes, deadline: float) -> SharedCall[T] | None:
        """The call to wait for with ``key``, for one whose own time ends at ``deadline`` (time.monotonic)."""
        call = self._under_way.get(key)
        if call is None:
            return None
        now = time.monotonic()
        return call if call.deadline - now >= (deadline - now) / 2 else None

    def start(self, keys: Iterable[bytes], deadline: float, work: Coroutine[Any, Any, T]) -> SharedCall[T]:
        """``work`` as a call that others find under any of ``keys`` until it is done."""
        call = SharedCall(asyncio.ensure_future(work), deadline)
        own = list(keys)
        self._under_way.update(dict.fromkeys(own, call))

        def done(_: asyncio.Task[T]) -> None:
            for key in own:
                if self._under_way.get(key) is call:
                    del self._under_way[key]

        call.task.add_done_callback(done)
        return call

    async def wait_for(self, calls: Iterable[SharedCall[T]], deadline: float) -> list[SharedCall[T]]:
        """Wait for all of them, until ``deadline`` at most; those that are done."""
        joined = list(calls)
        for call in joined:
            call.waiters += 1
        try:
            # Those that end no later than the caller end by themselves, with whatever they have by then.
            if sooner := [call.task for call in joined if call.deadline <= deadline]:
                await asyncio.wait(sooner)
            if later := [call.task for call in joined if call.deadline > deadline]:
                await asyncio.wait(later, timeout=max(0.0, deadline - time.monotonic()))
            return [call for call in joined if call.task.done()]
        finally:
            for call in joined:
                call.waiters -= 1
                if not call.waiters and not call.task.done():
                    # Off the list at once: a cancelled task takes a moment to end.
                    self._under_way = {key: one for key, one in self._under_way.items() if one is not call}
                    call.task.cancel()
