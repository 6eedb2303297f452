"""Is it ready? Asked the standard way, and for little: `python -m bioverify.health 127.0.0.1:50051 SERVICE`.

A container engine starts this again every few seconds for each service, so nothing is imported that the question does
not need: a fifth of the CPU of `bioverify healthcheck`, which speaks mutual TLS as well (docs/deployment.md).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bioverify.transport.tls import TlsIdentity

# A proxy of the environment is for other hosts; a shared connection would still wait out the back-off of a first
# attempt, made while the service was starting.
_CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


def serves(target: str, service: str, timeout_s: float = 2.0, *, tls: TlsIdentity | None = None) -> bool:
    """Whether ``target`` answers SERVING for the health service. Empty service: alive; its full name: ready.

    Raises TlsError if the files of ``tls`` are unusable.
    """
    import grpc
    from grpc_health.v1 import health_pb2

    if tls is None:
        channel = grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
    else:
        from bioverify.transport.tls import open_channel

        channel = open_channel(target, _CHANNEL_OPTIONS, tls.read())
    with channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def page_answers(url: str, timeout_s: float = 3.0) -> bool:
    """Whether an HTTP server answers this URL with success."""
    from http.client import HTTPException
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(url, timeout=timeout_s):
            return True
    except (OSError, HTTPException):  # refused, timed out, answered with an error or not in HTTP
        return False


def cache_answers(url: str, timeout_s: float = 1.0) -> bool:
    """Whether a Redis or Valkey answers PING, or asks who we are; of a cluster the node that is named.

    Raises RedisAddressError."""
    import redis
    from redis.sentinel import Sentinel

    from bioverify.transport.redis_address import read_address

    address = read_address(url)
    login = {"username": address.username, "password": address.password}
    settings: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    if address.kind == "sentinel":
        settings["ssl"] = address.is_tls
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            address.hosts, sentinel_kwargs=settings | (login if address.sentinels_ask else {})
        )
        connection: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
            address.service, **settings, **login
        )
    else:
        connection = redis.Redis.from_url(address.url, **settings, **login)
    try:
        return bool(connection.ping())
    except redis.AuthenticationError:
        # The password is the aggregator's alone; a server that asks for it is there.
        return True
    except redis.RedisError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    target, service = (*sys.argv[1:3], "")[:2]
    is_ready = page_answers(target) if "://" in target else serves(target, service)
    sys.exit(0 if is_ready else f"{target} is not serving {service or '(alive)'}")
