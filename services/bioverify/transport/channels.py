"""The options of both ends of a connection.

gRPC's default limit of 4 MiB is broken by 512 completions of 8 KiB, so it is raised at both ends.
"""

from __future__ import annotations

from typing import Any

MAX_MESSAGE_BYTES = 64 * 2**20
MAX_CALL_ITEMS = 4096
"""Items of one call for rewards, unless a service is told otherwise. A group is never cut, so this is its limit too."""
KEEPALIVE_MS = 10_000
MAX_PENDING_REQUESTS = 1_000_000
MAX_UNREQUESTED_S = 3600
CHANNEL_OPTIONS = (
    # A proxy of the environment is for other hosts: it would lose every call between services, unseen by probes.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A restarted service is found again within two seconds; gRPC's own default backs off to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # An attempt to connect that meets silence is given up after three seconds, not gRPC's twenty.
    ("grpc.min_reconnect_backoff_ms", 3000),
    # A connection whose other end vanished silently (half-open) is given up after twelve seconds, idle or not.
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 2000),
    # gRPC waits for the answer to a ping by this one, a minute unless told, if it is the longer of the two.
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
# Not for every target: this policy reconnects in growing pauses without being asked, and so finds a single process that
# was restarted up to two seconds later than gRPC's ordinary one, which connects when a call is made.
_TO_EACH_ADDRESS_IN_TURN = (("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),)
SERVER_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # gRPC's own backlog (1,000 and 3,000 calls, 30 s) cancels calls that nobody has looked at yet; admission refuses
    # them with a reason and a time to wait, and deadlines are the callers' own.
    ("grpc.server.max_pending_requests", MAX_PENDING_REQUESTS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_REQUESTS),
    ("grpc.server_max_unrequested_time_in_server", MAX_UNREQUESTED_S),
    # Without these gRPC takes pings of the clients above for an attack and hangs up.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.keepalive_permit_without_calls", 1),
)


def channel_options(target: str) -> tuple[tuple[str, Any], ...]:
    """Of a client's channel. Calls to a name ("dns:///service:port") are spread over all of its addresses."""
    return (*CHANNEL_OPTIONS, *_TO_EACH_ADDRESS_IN_TURN) if target.startswith("dns:") else CHANNEL_OPTIONS
