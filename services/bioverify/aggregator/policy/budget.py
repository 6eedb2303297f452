"""Extra load is bounded by a share of the ordinary load, never by attempts alone.

When a service is down every call fails, and a retry for each doubles the load just when it hurts. So each ordinary call
puts a fraction of a token into a bucket, each extra call takes a whole one out, and an empty bucket means no extra
call. The same bucket serves retries and hedges, with another share. Pauses between attempts are drawn evenly from an
interval that doubles ("full jitter"), so that callers who failed together do not come back together.
"""

from __future__ import annotations

import random

FIRST_PAUSE_S = 0.05


class Budget:
    """At most ``share`` extra calls per ordinary one, and ``burst`` at once after a quiet time."""

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        self._tokens = burst

    def earn(self) -> None:
        """Count an ordinary call."""
        self._tokens = min(self._burst, self._tokens + self._share)

    def spend(self) -> bool:
        """Take one extra call, if there is one left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def pause_s(attempt: int) -> float:
    """Seconds to wait after the failure of ``attempt`` (1, 2, …)."""
    return random.uniform(0, FIRST_PAUSE_S * 2**attempt)  # noqa: S311 - jitter
