"""Whom a listener can be reached by, whatever its address is written as: `127.1`, `0`, `LOCALHOST`, a name."""

from __future__ import annotations

import ipaddress
import socket

from bioverify import ports

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def addresses_of(host: str) -> set[Address]:
    """What the system makes of a host to listen on; empty for a name that it does not know."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}


def is_loopback(host: str) -> bool:
    """Whether this machine alone can reach a listener on ``host``."""
    found = addresses_of(host)
    return bool(found) and all(address.is_loopback for address in found)


def for_both_families(host: str) -> str:
    """What to bind to for ``host``: gRPC takes 0.0.0.0 and :: for the same, callers of both families, and so do we."""
    address = literal(host)
    if address is not None and address.is_unspecified:
        return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104
    return host.strip("[]")


def listen_everywhere(host: str, port: int) -> socket.socket | None:
    """A socket for callers of both families if ``host`` is 0.0.0.0 or ::, else None. Raises OSError."""
    address = for_both_families(host)
    if address == "::":
        return socket.create_server((address, port), family=socket.AF_INET6, backlog=2048, dualstack_ipv6=True)
    return socket.create_server((address, port), backlog=2048) if address == "0.0.0.0" else None  # noqa: S104


def why_no_target(target: str) -> str:
    """What is wrong with a target of gRPC that was written as a URL; empty if it is none."""
    scheme, _, place = target.partition("://")
    if scheme.lower() not in {"http", "https", "grpc", "grpcs", "tcp"}:
        return ""
    place = place.partition("/")[0] or f"{ports.HOST}:{ports.PORT_BASE}"
    port = place.rpartition(":")[2]
    is_gateway = port == ports.GATEWAY.rpartition(":")[2]
    http = place if is_gateway else ports.GATEWAY
    grpc = ports.AGGREGATOR if is_gateway else place
    return f"{target} is a URL; gRPC wants host:port, for instance {grpc}. HTTP is at http://{http}, docs/http.md"


def literal(host: str) -> Address | None:
    """The address that ``host`` is, as URLs write it; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
