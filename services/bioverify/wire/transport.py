"""What both ends of a connection agree on: the size of a message, and how a refused call says why.

gRPC's default limit of 4 MiB is broken by 512 completions of 8 KiB, so it is raised at both ends. A refusal carries
google.rpc details beside its status: which fields are wrong, a stable word for programs, when to try again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

MAX_MESSAGE_BYTES = 64 * 2**20
KEEPALIVE_MS = 10_000
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A restarted service is found again within two seconds; gRPC's own default backs off to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # An attempt to connect that meets silence is given up after three seconds, not gRPC's twenty.
    ("grpc.min_reconnect_backoff_ms", 3000),
    # A connection whose other end vanished without a word (half-open) is given up after twelve seconds, idle or not.
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 2000),
    # gRPC waits for the answer to a ping by this one, a minute unless told, where it is the longer of the two.
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
# Not for every target: this policy reconnects in growing pauses without being asked, and so finds a single process that
# was restarted up to two seconds later than gRPC's ordinary one, which connects when a call is made.
_TO_EACH_ADDRESS_IN_TURN = (("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),)
SERVER_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Without these gRPC takes pings of the clients above for an attack and hangs up.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.keepalive_permit_without_calls", 1),
)
ERROR_DOMAIN = "bioverify"
REQUEST_ID = "x-request-id"
"""Metadata key; the caller's own is kept, passed on and given back."""
_DETAILS_KEY = "grpc-status-details-bin"


def channel_options(target: str) -> tuple[tuple[str, Any], ...]:
    """Of a client's channel. Calls to a name ("dns:///service:port") are spread over all of its addresses."""
    return (*CHANNEL_OPTIONS, *_TO_EACH_ADDRESS_IN_TURN) if target.startswith("dns:") else CHANNEL_OPTIONS


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call failed. ``violations``: field path and what is wrong with it. ``reason``: a stable word, or empty."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    retry_after_s: float | None = None


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
