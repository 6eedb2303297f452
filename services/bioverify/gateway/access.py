"""Who is calling, and whether there is room: what a route asks for before it does anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from bioverify.client import AsyncClient, TrainingClient
from bioverify.gateway import metrics
from bioverify.gateway.api_keys import Key, Keyring, Scope
from bioverify.gateway.config import GatewayConfig
from bioverify.gateway.jobs import Jobs
from bioverify.gateway.problems import ProblemError

WORK_THREADS = 4
_Result = TypeVar("_Result")
ANYONE = Key(name="anyone", sha256="0" * 64, scopes=(Scope.ADMIN,))
"""Who calls a gateway that asks for no key."""


@dataclass
class Gateway:
    """What the routes work with. ``keyring`` None: no key is asked for. ``jobs``, ``trainer`` None: none here.

    To be made inside the running event loop, which ``client`` belongs to.
    """

    config: GatewayConfig
    client: AsyncClient
    keyring: Keyring | None
    jobs: Jobs | None
    trainer: TrainingClient | None
    calls: int = field(default=0)
    # Large bodies are read and written in threads of their own, so that health and lists never wait for one.
    _threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(WORK_THREADS))

    async def work(self, work: Callable[[], _Result]) -> _Result:
        """Run ``work``, which computes and waits for nothing, off the event loop."""
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Room for one call. Raises ProblemError 429 at once if there is none: it does not queue."""
        most = self.config.max_calls_in_flight
        if self.calls >= most:
            detail = f"{most} calls are under way already; try again"
            raise ProblemError(429, "overloaded", detail, headers={"retry-after": "1"})
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


# Shows the key in the API's description; the check itself is ours, so that a refusal is a problem like the others.
_bearer = HTTPBearer(auto_error=False, description="An API key, if the gateway asks for one.")


def needs(scope: Scope) -> Any:
    """A dependency: the caller's key, which has the scope. Raises ProblemError 401, 403 or 429."""

    def admitted(request: Request, _shown: Annotated[Any, Depends(_bearer)]) -> Key:
        keyring = gateway_of(request).keyring
        if keyring is None:
            return ANYONE
        try:
            key = keyring.admit(request.headers.get("authorization"), scope)
        except ProblemError as refusal:
            metrics.REFUSED_KEYS.labels(str(refusal.status)).inc()
            raise
        request.state.key_name = key.name
        return key

    return Depends(admitted)


Scorer = Annotated[Key, needs(Scope.SCORE)]
TrainingViewer = Annotated[Key, needs(Scope.TRAIN)]
Administrator = Annotated[Key, needs(Scope.ADMIN)]


def charger(request: Request, key: Key) -> Callable[[int], None]:
    """Counts items against the caller's quota and for the audit log."""
    keyring = gateway_of(request).keyring

    def charge(items: int) -> None:
        request.state.items = items
        if keyring is not None:
            keyring.charge(key, items)

    return charge
