"""One question that several callers ask at the same time is asked once (single flight).

Whoever first misses a question in the cache starts a flight for it; whoever misses it while the flight is under way
rides along and gets the same answer, or the same failure. A flight belongs to all its passengers: one who leaves
(cancelled, out of time) does not end it for the others, and when the last one has left it is cancelled, and its call
to the verifier with it. Nobody boards a flight that may end in less than half of the time that he has himself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Flight(Generic[T]):
    task: asyncio.Task[T]
    deadline: float
    passengers: int = 0


class Flights(Generic[T]):
    """Flights under way, by what they ask. To be used from one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, Flight[T]] = {}

    def find(self, key: bytes, deadline: float) -> Flight[T] | None:
        """The flight to board for ``key``, for one whose own time ends at ``deadline`` (time.monotonic)."""
        flight = self._under_way.get(key)
        if flight is None:
            return None
        now = time.monotonic()
        return flight if flight.deadline - now >= (deadline - now) / 2 else None

    def start(self, keys: Iterable[bytes], deadline: float, work: Coroutine[Any, Any, T]) -> Flight[T]:
        """``work`` as a flight that others may board for any of ``keys``."""
        flight = Flight(asyncio.ensure_future(work), deadline)
        own = list(keys)
        self._under_way.update(dict.fromkeys(own, flight))

        def landed(_: asyncio.Task[T]) -> None:
            for key in own:
                if self._under_way.get(key) is flight:
                    del self._under_way[key]

        flight.task.add_done_callback(landed)
        return flight

    async def ride(self, flights: Iterable[Flight[T]], deadline: float) -> list[Flight[T]]:
        """Wait for all of them, until ``deadline`` at most; those that have landed."""
        boarded = list(flights)
        for flight in boarded:
            flight.passengers += 1
        try:
            # Those that end no later than the passenger end by themselves, with whatever they have by then.
            if sooner := [flight.task for flight in boarded if flight.deadline <= deadline]:
                await asyncio.wait(sooner)
            if later := [flight.task for flight in boarded if flight.deadline > deadline]:
                await asyncio.wait(later, timeout=max(0.0, deadline - time.monotonic()))
            return [flight for flight in boarded if flight.task.done()]
        finally:
            for flight in boarded:
                flight.passengers -= 1
                if not flight.passengers and not flight.task.done():
                    # Off the list at once: a cancelled task takes a moment to end.
                    self._under_way = {key: one for key, one in self._under_way.items() if one is not flight}
                    flight.task.cancel()
