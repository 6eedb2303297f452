"""How the aggregator runs."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bioverify.core.consensus import CONSENSUS, Consensus
from bioverify.runtime.config import LogLevel, ServerConfig
from bioverify.transport.addresses import why_no_target
from bioverify.transport.channels import MAX_CALL_ITEMS, MAX_MESSAGE_BYTES
from bioverify.transport.redis_address import RedisAddress, RedisAddressError, read_address
from bioverify.transport.tls import TlsIdentity

_LEAST_SECRET_CHARACTERS = 32


class AggregatorConfig(BaseModel):
    """Settings of one aggregator process."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    listen: str
    """host:port (port 0: any free one, written to the log) or unix:/path."""
    verifiers: Mapping[str, str]
    """Name → gRPC target, host:port or unix:/path; several with commas are replicas of one verifier. dns:///name:port
    spreads calls over all addresses of a name, which then count as one replica."""
    redis_url: str | None = None
    """redis://host:port/0, redis+cluster://host:port, redis+sentinel://host:port,host:port/service/0 or unix:///path;
    rediss is TLS, with the certificates of `tls` if there are any. Without it nothing is remembered."""
    redis_password_file: Path | None = None
    """Holds the password of `redis_url`, read again at each connection, so that a rotated one is taken up."""
    cache_secret_file: Path | None = None
    """Holds a secret of 32 characters or more that remembered outcomes are signed with, so that nobody else who writes
    to Redis can make a reward. It is the same for all aggregators of one Redis, and read at the start. Without it a
    checksum tells damage and no forgery."""
    metrics_port: int | None = None
    """Prometheus text over HTTP, on the same host as `listen`. Without it no metrics are served."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that share the port."""
    default_deadline_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds of a call whose caller set no deadline."""
    deadline_margin_s: Annotated[float, Field(ge=0)] = 0.5
    """At most so many seconds of a call are kept for composing and answering."""
    verifier_deadlines_s: Mapping[str, float] = {}
    """Name → seconds of a call that this verifier may take, waiting for its turn included; otherwise all that the call
    has."""
    consensus: Consensus | None = None
    """Weights of the verifiers' beliefs. Without them no recipe can name the consensus."""
    describe_ttl_s: Annotated[float, Field(ge=0)] = 1.0
    """Seconds that a verifier's description of itself is trusted while its connection stands."""
    cache_ttl_s: Annotated[int, Field(ge=1)] = 7 * 24 * 3600
    """Seconds that a remembered outcome lives."""
    cache_timeout_s: Annotated[float, Field(gt=0)] = 0.25
    """What Redis may cost a call at most, per read and per write."""
    cache_pause_s: Annotated[float, Field(ge=0)] = 1.0
    """Seconds for which Redis is left alone after a failure."""
    max_items: Annotated[int, Field(ge=1)] = MAX_CALL_ITEMS
    """Items of one call."""
    max_bytes: Annotated[int, Field(ge=1)] = MAX_MESSAGE_BYTES
    """Bytes of one call."""
    max_items_in_flight: Annotated[int, Field(ge=1)] = 32_768
    """Items that are queued or in work in one process; calls beyond it are refused at once."""
    grace_s: Annotated[float, Field(ge=0)] = 10.0
    """Seconds that accepted calls have to finish after SIGTERM."""
    log_level: LogLevel = "info"
    """debug, info, warning or error."""
    tls: TlsIdentity | None = None
    """Who the service is, and whose callers it takes; the verifiers are called with the same identity."""
    health_port: int | None = None
    """grpc.health.v1 alone, in plaintext, on the same host: probes of a cluster speak no TLS."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        unknown = [name for name in self.verifier_deadlines_s if name not in self.verifiers]
        if unknown:
            raise ValueError(f"verifier_deadlines_s names {', '.join(unknown)}, which verifiers lacks")
        places = [("listen", self.listen)]
        places += [(f"verifiers.{name}", one) for name, targets in self.verifiers.items() for one in targets.split(",")]
        for place, target in places:
            if problem := why_no_target(target):
                raise ValueError(f"{place}: {problem}")
        absent = [name for name in self.members if name not in self.verifiers]
        if absent:
            raise ValueError(f"the consensus is made of {', '.join(absent)}, which verifiers lacks")
        # Here and not at the field, whose faults are told with the value that was given: this one holds a password.
        try:
            address = self.redis_address
        except RedisAddressError as error:
            raise ValueError(f"redis_url: {error}") from None
        if self.redis_password_file is not None and (address is None or address.password is not None):
            what = "has a password of its own" if address is not None else "is missing"
            raise ValueError(
                f"redis_password_file: redis_url {what}. Give the address without a password, and the file"
            )
        self.cache_secret()
        if CONSENSUS in self.verifiers:
            raise ValueError(f"{CONSENSUS} is no verifier: it is made of the others' beliefs")
        return self

    @property
    def redis_address(self) -> RedisAddress | None:
        """Where outcomes are remembered. Raises RedisAddressError."""
        return read_address(self.redis_url) if self.redis_url is not None else None

    def cache_secret(self) -> bytes:
        """64 bytes made of what `cache_secret_file` holds; none without it. Raises ValueError."""
        if self.cache_secret_file is None:
            return b""
        try:
            text = self.cache_secret_file.read_bytes().strip()
        except OSError as error:
            raise ValueError(f"cache_secret_file: {self.cache_secret_file}: {error.strerror}") from error
        if len(text) < _LEAST_SECRET_CHARACTERS:
            raise ValueError(
                f"cache_secret_file: {self.cache_secret_file} holds {len(text)} characters; a secret that nobody can "
                f"guess has {_LEAST_SECRET_CHARACTERS} or more: openssl rand -hex 32"
            )
        return blake2b(text).digest()

    @property
    def members(self) -> tuple[str, ...]:
        """The verifiers that a consensus needs; none without one."""
        return tuple(self.consensus.members) if self.consensus is not None else ()

    @property
    def max_waiting(self) -> int:
        """Items that may wait for one replica: half of what is taken in, so that one queue never fills the service."""
        return self.max_items_in_flight // 2

    @property
    def server(self) -> ServerConfig:
        return ServerConfig(
            listen=self.listen,
            metrics_port=self.metrics_port,
            workers=self.workers,
            max_items=self.max_items,
            max_bytes=self.max_bytes,
            max_items_in_flight=self.max_items_in_flight,
            grace_s=self.grace_s,
            log_level=self.log_level,
            tls=self.tls,
            health_port=self.health_port,
        )
