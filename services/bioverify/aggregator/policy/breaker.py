"""A verifier that does not answer is not asked, so that it costs its callers nothing but its own scores.

Two things open the breaker: a probe that failed (a Describe, sent beside the calls as soon as one of them fails for
want of an answer, and with a time limit of its own, so that a caller's short deadline says nothing about the verifier),
or five failed calls in a row, for a verifier that still says who it is and no longer scores. While it is open, probes
go on in pauses that grow from 0.25 s to 2 s. A probe that succeeds half-opens it: one real call at a time is let
through (the others wait for it); its success closes the breaker, its failure opens it again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum

FAILURES_IN_A_ROW = 5
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0


class State(StrEnum):
    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Breaker:
    """``on_open`` is called whenever it opens, and has to see to it that probes are made."""

    def __init__(self, on_open: Callable[[], None]) -> None:
        self.state = State.CLOSED
        self._on_open = on_open
        self._failures = 0
        self._pauses = 0

    def succeeded(self) -> None:
        """A real call was answered."""
        self.state = State.CLOSED
        self._failures = self._pauses = 0

    def failed(self) -> None:
        """A real call was not answered in a time in which it should have been."""
        self._failures += 1
        if self.state is State.HALF_OPEN or self._failures >= FAILURES_IN_A_ROW:
            self.open()

    def open(self) -> None:
        if self.state is not State.OPEN:
            self.state = State.OPEN
            self._on_open()

    def half_open(self) -> None:
        """A probe was answered."""
        if self.state is State.OPEN:
            self.state = State.HALF_OPEN

    def next_pause_s(self) -> float:
        """Seconds until the next probe, a little different each time. Grows until a real call succeeds."""
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._pauses)
        self._pauses += 1
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter
