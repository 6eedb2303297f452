"""Work off the event loop: one thread that takes calls in turn, with admission before the queue.

A verifier may be asked by one thread at a time, and Python gains nothing from a second one here; more cores are used by
more processes. What does not fit is refused at once instead of being queued, because a late answer is worth nothing to
a trainer. A call that is cancelled or expires before its turn is dropped without work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import Gauge

from bioverify.runtime.errors import expired, over_limit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """The result of a piece of work, and the seconds that it waited and took."""

    result: T
    queue_s: float
    work_s: float


class WorkQueue:
    """Runs functions one at a time in a thread of its own. To be used from one event loop."""

    def __init__(self, max_items_in_flight: int, gauge: Gauge) -> None:
        self._max_items_in_flight = max_items_in_flight
        self._gauge = gauge
        self._items_in_flight = 0
        self._seconds_per_item = 0.001
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="work")

    @property
    def items_in_flight(self) -> int:
        return self._items_in_flight

    def check_room(self, items: int) -> None:
        """Raise Refused (RESOURCE_EXHAUSTED, with a time to wait) where ``items`` more do not fit now."""
        if self._items_in_flight + items > self._max_items_in_flight:
            raise over_limit(
                f"{self._items_in_flight} items are in flight, and {items} more would exceed the limit of "
                f"{self._max_items_in_flight}",
                retry_after_s=min(5.0, max(0.02, self._items_in_flight * self._seconds_per_item / 2)),
            )

    async def run(self, items: int, deadline: float | None, work: Callable[[], T]) -> Finished[T]:
        """Run ``work`` when its turn comes. ``deadline``: on time.monotonic's clock.

        Raises Refused: RESOURCE_EXHAUSTED at once where there is no room, DEADLINE_EXCEEDED where the turn came late.
        """
        self.check_room(items)
        loop = asyncio.get_running_loop()
        arrived = time.monotonic()

        def timed() -> Finished[T]:
            started = time.monotonic()
            if deadline is not None and started >= deadline:
                raise expired(started - arrived)
            result = work()
            return Finished(result, started - arrived, time.monotonic() - started)

        self._add(items)
        future = self._thread.submit(timed)
        # Not in a finally: a cancelled call that is already being worked on still occupies the thread.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._add, -items))
        finished = await asyncio.wrap_future(future)
        if items:
            self._seconds_per_item += 0.1 * (finished.work_s / items - self._seconds_per_item)
        return finished

    def close(self) -> None:
        """Let the work at hand finish and drop what waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _add(self, items: int) -> None:
        self._items_in_flight += items
        self._gauge.set(self._items_in_flight)
