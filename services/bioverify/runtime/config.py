"""How a service is hosted."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bioverify.transport.addresses import why_no_target
from bioverify.transport.channels import MAX_MESSAGE_BYTES
from bioverify.transport.tls import TlsIdentity

LogLevel = Literal["debug", "info", "warning", "error"]


class ServerConfig(BaseModel):
    """How one gRPC service is hosted."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    listen: str
    """host:port (port 0: any free one, written to the log) or unix:/path."""
    metrics_port: int | None = None
    """Prometheus text over HTTP, on the same host as `listen` (127.0.0.1 for a socket). Without it no metrics are
    served."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that share the port."""
    max_items: Annotated[int, Field(ge=1)] = 4096
    """Items of one call."""
    max_bytes: Annotated[int, Field(ge=1)] = MAX_MESSAGE_BYTES
    """Bytes of one call."""
    max_items_in_flight: Annotated[int, Field(ge=1)] = 16_384
    """Items that are queued or in work in one process; calls beyond it are refused at once."""
    grace_s: Annotated[float, Field(ge=0)] = 10.0
    """Seconds that accepted calls have to finish after SIGTERM."""
    log_level: LogLevel = "info"
    """debug, info, warning or error."""
    tls: TlsIdentity | None = None
    """Who the service is, and whose callers it takes. Without it plaintext, for loopback and for networks that protect
    themselves."""
    health_port: int | None = None
    """grpc.health.v1 alone, in plaintext, on the same host: probes of a cluster speak no TLS."""
    check_every_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between two looks at a verifier's canaries and the files of its artifact; after a batch only the files'
    stamps are looked at."""
    connection_age_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds after which a caller is asked to connect again, so that it finds processes that were started since."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.max_items_in_flight < self.max_items:
            raise ValueError(
                f"max_items_in_flight is {self.max_items_in_flight}, below max_items {self.max_items}: "
                "a full call would never be accepted"
            )
        if problem := why_no_target(self.listen):
            raise ValueError(f"listen: {problem}")
        if self.workers > 1 and self.listen.startswith("unix:"):
            raise ValueError("several workers share a TCP port, not a unix socket; listen on host:port")
        return self

    @property
    def host(self) -> str:
        """The interface that is listened on."""
        return "127.0.0.1" if self.listen.startswith("unix:") else self.listen.rpartition(":")[0].strip("[]")
