"""Whether a call for rewards is made again, and when.

Scoring is idempotent, so it may be repeated after UNAVAILABLE: a service that restarts, a connection that broke. That
is done five times within eight seconds: long enough for a restart, and nobody waits long for an aggregator that is not
there. Where the server says when to come back (RetryInfo), it is asked then, as often as the deadline allows.
Nothing else is repeated: what cannot pass (`Refusal.may_pass`), and a deadline that is over.
"""

from __future__ import annotations

import random

import grpc

from bioverify.transport.refusals import Refusal

PAUSES_S = (0.1, 0.3, 1.0, 2.0, 4.0)


def pause_before_retry(refusal: Refusal, retries: int, left_s: float) -> float | None:
    """Seconds until the call is repeated, or None. ``retries``: so far; ``left_s``: until the deadline."""
    if not refusal.may_pass or refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return None
    pause_s = refusal.retry_after_s
    if pause_s is None and retries < len(PAUSES_S):
        # Spread, so that the clients of a restarted aggregator do not come all at once.
        pause_s = PAUSES_S[retries] * random.uniform(0.75, 1.25)  # noqa: S311
    return pause_s if pause_s is not None and pause_s < left_s else None
