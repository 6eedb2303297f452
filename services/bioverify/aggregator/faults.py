"""What went wrong at a verifier, in the words of the contract. docs/reliability.md explains each reason."""

from __future__ import annotations

import grpc

from bioverify.aggregator.encoded import EncodedOutcome, failure
from bioverify.core.outcomes import Failed
from bioverify.errors import BioverifyError
from bioverify.transport.refusals import WITHDRAWN, Refusal

UNAVAILABLE = "unavailable"
DEADLINE_EXCEEDED = "deadline_exceeded"
EXPIRED_IN_QUEUE = "expired_in_queue"
RESOURCE_EXHAUSTED = "resource_exhausted"
TOO_LARGE = "too_large"
OVERLOADED = "overloaded"
BREAKER_OPEN = "breaker_open"
INTERNAL = "internal"
REFUSED = "refused"
NOT_A_VERIFIER = "not_a_verifier"
MISCONFIGURED = "misconfigured"
INVALID_REPLY = "invalid_reply"
VERSION_CHANGED = "version_changed"

RETRYABLE = {
    UNAVAILABLE,
    DEADLINE_EXCEEDED,
    EXPIRED_IN_QUEUE,
    RESOURCE_EXHAUSTED,
    OVERLOADED,
    BREAKER_OPEN,
    VERSION_CHANGED,
    WITHDRAWN,
}
REASONS = (*sorted(RETRYABLE), TOO_LARGE, INTERNAL, INVALID_REPLY, REFUSED, MISCONFIGURED, NOT_A_VERIFIER)
_OF_STATUS = {
    grpc.StatusCode.UNAVAILABLE: UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RESOURCE_EXHAUSTED,
    grpc.StatusCode.INVALID_ARGUMENT: REFUSED,
    grpc.StatusCode.CANCELLED: UNAVAILABLE,
    grpc.StatusCode.UNIMPLEMENTED: NOT_A_VERIFIER,
}


class UpstreamError(BioverifyError):
    """The verifier did not answer as agreed. ``failed`` is what that means for the questions."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.failed: EncodedOutcome = failure(reason, detail, retryable=reason in RETRYABLE)

    @property
    def outcome(self) -> Failed:
        outcome = self.failed.outcome
        assert isinstance(outcome, Failed)
        return outcome


def of_refusal(refusal: Refusal, who: str) -> UpstreamError:
    """The fault behind a call that ended with a status."""
    reason = _OF_STATUS.get(refusal.code, INTERNAL)
    if reason == RESOURCE_EXHAUSTED and not refusal.may_pass:
        reason = TOO_LARGE
    elif refusal.reason in {EXPIRED_IN_QUEUE, WITHDRAWN}:
        reason = refusal.reason
    return UpstreamError(reason, f"{who}: {refusal.code.name}: {refusal.message}")
