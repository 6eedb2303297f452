"""Is it ready? Asked the standard way: gRPC health for services, PING for the cache."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc

# A proxy of the environment is for other hosts; a shared connection would still wait out the back-off of a first
# attempt, made while the service was starting.
_CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


def serves(target: str, service: str, timeout_s: float = 2.0) -> bool:
    """Whether ``target`` answers SERVING for the health service. Empty service: alive; its full name: ready."""
    with grpc.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its published types lack the methods
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def page_answers(url: str, timeout_s: float = 3.0) -> bool:
    """Whether an HTTP server answers this URL with success."""
    try:
        return httpx.get(url, timeout=timeout_s, trust_env=False).is_success
    except httpx.TransportError:
        return False


def cache_answers(url: str, timeout_s: float = 1.0) -> bool:
    """Whether a Redis or Valkey answers PING."""
    connection = redis.Redis.from_url(url, socket_timeout=timeout_s)
    try:
        return bool(connection.ping())
    except redis.RedisError:
        return False
    finally:
        connection.close()
