"""How long recent calls took: what "slow" means to the hedge, and "long enough" to the breaker."""

from __future__ import annotations

from collections import deque

WINDOW = 128
ENOUGH = 20


class Latency:
    """The last `WINDOW` calls that succeeded."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=WINDOW)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def p95_s(self) -> float | None:
        """Seconds that 95 % of them stayed below; None while there are too few to tell."""
        if len(self._seconds) < ENOUGH:
            return None
        return sorted(self._seconds)[int(0.95 * len(self._seconds))]
