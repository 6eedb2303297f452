"""Whose turn it is: owners one after the other, the jobs of each in order of arrival.

So an owner with a hundred jobs holds nobody back, and a job that waits for its time holds no worker.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from itertools import count


class Turns:
    """A queue of job ids. May be used from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # In the order in which the owners are served; an owner without a job is not in it.
        self._ready: dict[str, deque[str]] = {}
        self._later: list[tuple[float, int, str, str]] = []
        self._arrival = count()
        self._is_closed = False

    def add(self, owner: str, job: str, *, after_s: float = 0.0) -> None:
        """Queue the job, now or when ``after_s`` seconds have passed."""
        with self._changed:
            if after_s > 0:
                heapq.heappush(self._later, (time.monotonic() + after_s, next(self._arrival), owner, job))
            else:
                self._ready.setdefault(owner, deque()).append(job)
            self._changed.notify()

    def next(self) -> str | None:
        """Wait for the next job; None when the queue is closed."""
        with self._changed:
            while not self._is_closed:
                self._bring_forward()
                if self._ready:
                    return self._pop()
                self._changed.wait(self._later[0][0] - time.monotonic() if self._later else None)
            return None

    def remove(self, job: str) -> bool:
        """Take a job out of the queue; False if it is not in it, because a worker has it."""
        with self._changed:
            for entry in self._later:
                if entry[3] == job:
                    self._later.remove(entry)
                    heapq.heapify(self._later)
                    return True
            for owner, jobs in self._ready.items():
                if job in jobs:
                    jobs.remove(job)
                    if not jobs:
                        del self._ready[owner]
                    return True
            return False

    def is_asked_for(self, owner: str) -> bool:
        """Whether another owner's job could be taken up now."""
        with self._changed:
            self._bring_forward()
            return any(other != owner for other in self._ready)

    def close(self) -> None:
        """Let everybody who waits for a job go."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _bring_forward(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, _, owner, job = heapq.heappop(self._later)
            self._ready.setdefault(owner, deque()).append(job)

    def _pop(self) -> str:
        owner = next(iter(self._ready))
        jobs = self._ready.pop(owner)
        job = jobs.popleft()
        if jobs:
            self._ready[owner] = jobs
        return job
