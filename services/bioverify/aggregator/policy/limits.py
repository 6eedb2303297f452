"""How much is sent to one replica at once: a limit that adapts, and a queue before it that cannot grow without end.

The limit counts items, as the verifier's own admission does. It starts at what the verifier states and moves as TCP's
window does (AIMD): a timeout or a refusal for overload halves it, every limit's worth of items that succeed raises it
by a sixteenth of the statement. What does not fit waits in order of arrival until its own deadline. The queue is the
replica's alone (a bulkhead): a full one fails new items for this verifier at once and touches no other.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from bioverify.errors import BioverifyError

STEPS = 16


class QueueFullError(BioverifyError):
    """More items wait already than may."""


class TurnedAwayError(BioverifyError):
    """The breaker opened while the call waited."""


class ItemLimit:
    """To be used from one event loop. A call that is larger than the limit goes alone."""

    def __init__(self, highest: int, max_waiting: int) -> None:
        self.limit = float(highest)
        self.in_flight = 0
        self.waiting = 0
        self._highest = highest
        self._max_waiting = max_waiting
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()

    def state_highest(self, highest: int) -> None:
        """What the verifier states as its own limit."""
        if highest != self._highest:
            self._highest = highest
            self.limit = float(highest)

    def has_room(self, items: int) -> bool:
        """Whether ``items`` more may wait."""
        # A call larger than the queue may wait alone: refused, it would be refused for ever.
        return not self.waiting or self.waiting + items <= self._max_waiting

    async def enter(self, items: int, deadline: float) -> float:
        """Wait for a turn; the seconds waited. Every successful `enter` is followed by `leave`.

        ``deadline``: time.monotonic. Raises TimeoutError, QueueFullError or TurnedAwayError.
        """
        if not self._queue and self._fits(items):
            self.in_flight += items
            return 0.0
        if not self.has_room(items):
            raise QueueFullError(f"{self.waiting} items wait already, and {items} more would exceed the limit")
        arrived = time.monotonic()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (turn, items)
        self._queue.append(waiter)
        self.waiting += items
        try:
            async with asyncio.timeout(deadline - arrived):
                await turn
        except (TimeoutError, asyncio.CancelledError):
            if waiter in self._queue:
                self._queue.remove(waiter)
                self.waiting -= items
                self._admit()
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                # The turn came in the moment in which the waiting ended.
                self.leave(items)
            raise
        return time.monotonic() - arrived

    def leave(self, items: int) -> None:
        self.in_flight -= items
        self._admit()

    def grow(self, items: int) -> None:
        """``items`` were scored."""
        self.limit = min(float(self._highest), self.limit + self._highest / STEPS * items / max(self.limit, items))

    def shrink(self) -> None:
        """The replica was too slow, or said that it has too much to do."""
        self.limit = max(1.0, self.limit / 2)

    def restart(self) -> None:
        """Begin again with one call at a time, and turn away all who wait."""
        self.limit = 1.0
        while self._queue:
            turn, items = self._queue.popleft()
            self.waiting -= items
            if not turn.done():
                turn.set_exception(TurnedAwayError())

    def _fits(self, items: int) -> bool:
        return self.in_flight == 0 or self.in_flight + items <= self.limit

    def _admit(self) -> None:
        while self._queue and self._fits(self._queue[0][1]):
            turn, items = self._queue.popleft()
            self.waiting -= items
            # If it is done, its caller is about to learn that it is too late.
            if not turn.done():
                self.in_flight += items
                turn.set_result(None)
