"""Whose wish a CancelledError is.

asyncio tells a task to stop by raising CancelledError in it, and grpc.aio raises the same error in every call whose
channel is closed. The first has to be passed on, the second is a fault like any other.
"""

from __future__ import annotations

import asyncio


def is_wanted(error: BaseException) -> bool:
    """Whether ``error`` is there because somebody has asked the running task to stop."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
