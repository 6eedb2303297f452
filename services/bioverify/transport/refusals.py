"""How a refused call says why: google.rpc details beside its status.

They say which fields are wrong, a stable word for programs, and when to try again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

ERROR_DOMAIN = "bioverify"
_DETAILS_KEY = "grpc-status-details-bin"


WITHDRAWN = "withdrawn"
"""The reason of a verifier whose artifact was changed under it, or whose canaries fail."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call failed. ``violations``: field path and what is wrong with it. ``reason``: a stable word, or empty."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    retry_after_s: float | None = None

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed later. The one rule of all services, clients and adapters.

        RESOURCE_EXHAUSTED means "too much at the moment" only if the server says when to come back; without a time the
        call itself is too large, and would be refused for ever.
        """
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.retry_after_s is not None
        return self.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}

    @property
    def is_callers_mistake(self) -> bool:
        """Whether the call as it is cannot succeed, at this server or another of the same settings."""
        return self.code is grpc.StatusCode.INVALID_ARGUMENT or (
            self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not self.may_pass
        )


def refusal_to_wire(refusal: Refusal) -> status_pb2.Status:
    details: list[Any] = []
    if refusal.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=problem)
            for field, problem in refusal.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if refusal.reason:
        details.append(error_details_pb2.ErrorInfo(reason=refusal.reason, domain=ERROR_DOMAIN))
    if refusal.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(refusal.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        message = any_pb2.Any()
        message.Pack(detail)
        packed.append(message)
    return status_pb2.Status(code=refusal.code.value[0], message=refusal.message, details=packed)


def refusal_metadata(refusal: Refusal) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries the details of a refusal."""
    details: bytes = refusal_to_wire(refusal).SerializeToString()
    return ((_DETAILS_KEY, details),)


def refusal_from_error(error: grpc.RpcError) -> Refusal:
    """What a failed call says of itself, whichever of gRPC's clients, blocking or asyncio, made it."""
    reason, violations, retry_after_s = "", [], None
    metadata = cast(Iterable[tuple[str, bytes]], error.trailing_metadata() or ())
    packed = next((value for key, value in metadata if key == _DETAILS_KEY), b"")
    for detail in status_pb2.Status.FromString(packed).details:
        bad_request = error_details_pb2.BadRequest()
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(bad_request):
            violations += [(v.field, v.description) for v in bad_request.field_violations]
        elif detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return Refusal(error.code(), error.details() or "", reason, tuple(violations), retry_after_s)
