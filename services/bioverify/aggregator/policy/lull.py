"""Calls that come one after the other go on together.

A server of grpc.aio takes a waiting call up about every six turns of its event loop, however many wait, so few of many
callers are inside at once to share anything. Whoever may share waits until nobody has come for some turns: an idle loop
makes them in a fraction of a millisecond, and a busy one meanwhile takes in who waits at the door. If one has joined
another already, more are to be expected, and the wait is for a moment of the clock as well. A wait that brought nobody
says that the next caller who finds himself alone need not wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

TURNS = 10
"""64 callers of a bare server that waits so came in groups of 30; with 4 turns in groups of 2 to 8."""
MOMENT_S = 0.002
LONGEST_S = 0.1
"""At the rate at which calls are taken up, the time of some fifty of them."""


class Lull:
    """To be used from one event loop."""

    def __init__(self) -> None:
        self.brought_others = False
        """Whether somebody came while the last ones waited."""
        self._then: list[Callable[[], None]] = []
        self._came = 0
        self._last_came = 0.0
        self._quiet_turns = 0
        self._latest = 0.0

    def somebody_came(self) -> None:
        self._came += 1
        self._last_came = time.monotonic()
        self._quiet_turns = 0

    def call(self, then: Callable[[], None]) -> None:
        """Call ``then`` at the next lull, `LONGEST_S` after the first of those who wait for it at the latest; all of
        them in one turn."""
        self._then.append(then)
        if len(self._then) == 1:
            self._came = 1
            self._latest = time.monotonic() + LONGEST_S
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._quiet_turns += 1
        now = time.monotonic()
        if now < self._latest:
            if self._quiet_turns < TURNS:
                asyncio.get_running_loop().call_soon(self._turn)
                return
            if self._came > 1 and now < self._last_came + MOMENT_S:
                asyncio.get_running_loop().call_at(self._last_came + MOMENT_S, self._turn)
                return
        self.brought_others = self._came > 1
        ready, self._then = self._then, []
        for then in ready:
            then()
