"""A slow request is asked again of another replica, and the first answer counts.

A request that takes longer than 95 % of its like is often stuck behind something (a pause, a full queue, a lost
packet), and another replica answers it sooner than the first one would. At most one second request, only if the
caller allows it (another replica, an idempotent verifier, a budget of 5 % of the calls); the loser is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def hedged(
    first: Callable[[], Awaitable[T]], second: Callable[[], Awaitable[T] | None], after_s: float
) -> tuple[T, bool]:
    """The first result, and whether the second request gave it. ``second`` is called after ``after_s`` seconds.

    It gives None if there shall be no second request. Raises what the first request raised, if none succeeds.
    """
    requests = [asyncio.ensure_future(first())]
    try:
        done, pending = await asyncio.wait(requests, timeout=after_s)
        if pending:
            another = second()
            if another is not None:
                requests.append(asyncio.ensure_future(another))
            pending = set(requests)
        while True:
            for request in done:
                if request.exception() is None:
                    return request.result(), request is not requests[0]
            if not pending:
                return requests[0].result(), False
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
