"""How a service says no: one exception, which the interceptor turns into a gRPC status with details."""

from __future__ import annotations

import grpc

from bioverify.errors import BioverifyError
from bioverify.transport.refusals import WITHDRAWN, Refusal

_LONGEST_PROBLEM = 2000


class Refused(BioverifyError):  # noqa: N818 - a refusal is an answer, not a fault of this process
    """The call as a whole is refused. A bad item is an outcome instead."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def invalid(violations: list[tuple[str, str]]) -> Refused:
    """INVALID_ARGUMENT that names each field, by its dotted path, and what is wrong with it."""
    told = [(_cut(field), _cut(problem)) for field, problem in violations[:100]]
    shown = "; ".join(f"{field}: {problem}" for field, problem in told[:5])
    if len(violations) > 5:
        shown += f"; and {len(violations) - 5} more"
    return Refused(Refusal(grpc.StatusCode.INVALID_ARGUMENT, shown, "invalid_request", tuple(told)))


def _cut(text: str) -> str:
    """What is said of a caller's words repeats them, and is no longer than a person reads."""
    return text if len(text) <= _LONGEST_PROBLEM else f"{text[:_LONGEST_PROBLEM]}…"


def over_limit(message: str, *, retry_after_s: float | None = None) -> Refused:
    """RESOURCE_EXHAUSTED; with ``retry_after_s`` if waiting helps."""
    reason = "too_large" if retry_after_s is None else "overloaded"
    return Refused(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, message, reason, retry_after_s=retry_after_s))


def not_ready(message: str, *, retry_after_s: float | None = 0.5) -> Refused:
    """UNAVAILABLE: the process lives and cannot answer yet."""
    return Refused(Refusal(grpc.StatusCode.UNAVAILABLE, message, "not_ready", retry_after_s=retry_after_s))


def withdrawn(message: str) -> Refused:
    """UNAVAILABLE: the process lives, and what it would say cannot be trusted until it is repaired."""
    return Refused(Refusal(grpc.StatusCode.UNAVAILABLE, message, WITHDRAWN, retry_after_s=0.5))


def expired(waited_s: float) -> Refused:
    """DEADLINE_EXCEEDED: the caller has given up while the call waited for its turn."""
    message = f"the deadline passed while the call waited {waited_s:.3f} s for its turn"
    return Refused(Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, message, "expired_in_queue"))
