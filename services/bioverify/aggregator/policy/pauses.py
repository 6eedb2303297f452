"""A helper that can be done without (the cache) is left alone for a while after it failed.

The pause doubles while failures go on, up to thirty-two times the first one, so that a dead helper costs ever less.
When it is over, one caller tries; the others still do without until that one has succeeded.
"""

from __future__ import annotations

import time

DOUBLINGS = 5


class Pauses:
    """To be used from one event loop: `enter`, then `succeeded` or `failed` or neither, then `leave`."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._failures = 0
        self._until = 0.0
        self._tried_by_one = False

    def enter(self) -> bool:
        """Whether the caller may try."""
        if not self._failures:
            return True
        if self._tried_by_one or time.monotonic() < self._until:
            return False
        self._tried_by_one = True
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        # Callers who failed together count once.
        if time.monotonic() >= self._until:
            self._until = time.monotonic() + self._first_s * 2 ** min(self._failures, DOUBLINGS)
            self._failures += 1

    def leave(self) -> None:
        self._tried_by_one = False
