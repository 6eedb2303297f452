"""Work off the event loop: one thread that takes calls in turn, with admission before the queue.

A verifier may be asked by one thread at a time, and Python gains nothing from a second one here; more cores are used by
more processes. What does not fit is refused at once instead of being queued, because a late answer is worth nothing to
a trainer. A call that is cancelled or expires before its turn is dropped without work.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import Gauge

from bioverify.runtime.errors import expired, over_limit

RETRY_AFTER_S = 0.2

T = TypeVar("T")


class Admission:
    """Counts the items in flight and refuses what would exceed the limit. To be used from one event loop."""

    def __init__(self, max_items_in_flight: int, gauge: Gauge) -> None:
        self._max_items_in_flight = max_items_in_flight
        self._gauge = gauge
        self._items_in_flight = 0

    def enter(self, items: int) -> None:
        """Raise Refused (RESOURCE_EXHAUSTED) if ``items`` more do not fit; with a time to wait if they may later."""
        if items > self._max_items_in_flight:
            raise over_limit(
                f"{items} items in one call, at most {self._max_items_in_flight} are taken; split the call"
            )
        if self._items_in_flight + items > self._max_items_in_flight:
            raise over_limit(
                f"{self._items_in_flight} items are in flight, and {items} more would exceed the limit of "
                f"{self._max_items_in_flight}",
                retry_after_s=RETRY_AFTER_S,
            )
        self._items_in_flight += items
        self._gauge.set(self._items_in_flight)

    def leave(self, items: int) -> None:
        self._items_in_flight -= items
        self._gauge.set(self._items_in_flight)

    @contextmanager
    def hold(self, items: int) -> Iterator[None]:
        self.enter(items)
        try:
            yield
        finally:
            self.leave(items)


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """The result of a piece of work, and the seconds that it waited and took."""

    result: T
    queue_s: float
    work_s: float


def run_here(work: Callable[[], T]) -> Finished[T]:
    """Run ``work`` on the spot: for what is known to take less than the two hand-overs to a thread and back."""
    started = time.monotonic()
    result = work()
    return Finished(result, 0.0, time.monotonic() - started)


class WorkThread:
    """Runs functions one at a time, in order, in a thread of its own. To be used from one event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="work")
        self._at_work = False

    async def run(
        self, work: Callable[[], T], *, deadline: float | None = None, on_end: Callable[[], None] | None = None
    ) -> Finished[T]:
        """Run ``work`` when its turn comes. ``deadline``: on time.monotonic's clock.

        ``on_end`` is called on the event loop when the thread is done with it, also if the caller has left by then.
        Raises Refused (DEADLINE_EXCEEDED) if its turn came too late, and whatever ``work`` raises.
        """
        loop = asyncio.get_running_loop()
        arrived = time.monotonic()

        def timed() -> Finished[T]:
            started = time.monotonic()
            if deadline is not None and started >= deadline:
                raise expired(started - arrived)
            self._at_work = True
            try:
                result = work()
            finally:
                self._at_work = False
            return Finished(result, started - arrived, time.monotonic() - started)

        # With the caller's context, so that the log lines of the work carry its request id.
        future = self._thread.submit(contextvars.copy_context().run, timed)
        if on_end is not None:
            future.add_done_callback(lambda _: loop.call_soon_threadsafe(on_end))
        # Cancelling the wrapped future cancels the work as well, unless the thread has taken it up.
        return await asyncio.wrap_future(future)

    def close(self) -> bool:
        """Drop what waits. False if the thread is still at work, for which Python would wait at its exit."""
        at_work = self._at_work
        self._thread.shutdown(wait=False, cancel_futures=True)
        return not at_work
