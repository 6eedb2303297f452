"""How a service is hosted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bioverify.transport.channels import MAX_MESSAGE_BYTES
from bioverify.transport.tls import TlsIdentity

LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """``listen``: "host:port" (port 0: any free one, written to the log) or "unix:/path".

    ``metrics_port``: Prometheus text over HTTP, on the same host as ``listen`` (127.0.0.1 for a socket); None: none.
    ``tls``: who the service is, and whose callers it takes; None: plaintext, for loopback and networks that protect
    themselves. ``health_port``: grpc.health.v1 alone, in plaintext, on the same host: probes of a cluster speak no TLS.
    ``workers``: processes that share the port. ``max_items`` and ``max_bytes``: of one call. ``max_items_in_flight``:
    queued or in work in one process. ``grace_s``: seconds that accepted calls have to finish after SIGTERM.
    ``connection_age_s``: after it a caller is asked to connect anew, and so finds processes that came since.
    """

    listen: str
    metrics_port: int | None = None
    workers: int = 1
    max_items: int = 4096
    max_bytes: int = MAX_MESSAGE_BYTES
    max_items_in_flight: int = 16_384
    grace_s: float = 10.0
    log_level: LogLevel = "info"
    tls: TlsIdentity | None = None
    health_port: int | None = None
    connection_age_s: float = 300.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; at least one process has to serve")
        if self.max_items_in_flight < self.max_items:
            raise ValueError(
                f"max_items_in_flight is {self.max_items_in_flight}, below max_items {self.max_items}: "
                "a full call would never be accepted"
            )
        if self.workers > 1 and self.listen.startswith("unix:"):
            raise ValueError("several workers share a TCP port, not a unix socket; listen on host:port")

    @property
    def host(self) -> str:
        """The interface that is listened on."""
        return "127.0.0.1" if self.listen.startswith("unix:") else self.listen.rpartition(":")[0].strip("[]")
