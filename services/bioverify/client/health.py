"""Is a service ready? Asked the standard way, by grpc.health.v1."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bioverify.wire.identity import TlsIdentity, open_channel

# A proxy of the environment is for other hosts; a shared connection would still wait out the back-off of a first
# attempt, made while the service was starting.
_CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


def serves(target: str, service: str, timeout_s: float = 2.0, *, tls: TlsIdentity | None = None) -> bool:
    """Whether ``target`` answers SERVING for the health service. Empty service: alive; its full name: ready.

    Raises TlsError where the files of ``tls`` are unusable.
    """
    with open_channel(target, _CHANNEL_OPTIONS, tls.read() if tls is not None else None) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its published types lack the methods
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
