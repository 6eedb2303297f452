"""How the aggregator runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bioverify.core.consensus import CONSENSUS, Consensus
from bioverify.runtime.config import LogLevel, ServerConfig
from bioverify.transport.channels import MAX_CALL_ITEMS, MAX_MESSAGE_BYTES
from bioverify.transport.tls import TlsIdentity


@dataclass(frozen=True, slots=True)
class AggregatorConfig:
    """``verifiers``: name → gRPC target, "host:port" or "unix:/path"; several with commas are replicas of one verifier.
    "dns:///name:port" spreads calls over all addresses of a name, which then count as one replica.

    ``redis_url``: "redis://host:port/0", "redis+cluster://host:port" or "unix:///path"; "rediss" is TLS, with the
    certificates of ``tls`` where there are any; None: nothing is remembered.
    ``default_deadline_s``: for callers that set none. ``deadline_margin_s``: at most so much of a call's time is kept
    for composing and answering. ``verifier_deadlines_s``: name → seconds of a call that this verifier may take, waiting
    for its turn included; absent: all that the call has. ``consensus``: weights of the verifiers' beliefs; without them
    no recipe can name it. ``describe_ttl_s``: for so long a verifier's account of itself is trusted while its
    connection stands. ``cache_ttl_s``: seconds that a remembered outcome lives.
    ``cache_timeout_s``: what Redis may cost a call at most, per read and per write; after a failure it is left alone
    for ``cache_pause_s``. The rest as for `ServerConfig`; the verifiers
    are called with the identity that is served with.
    """

    listen: str
    verifiers: Mapping[str, str]
    redis_url: str | None = None
    metrics_port: int | None = None
    workers: int = 1
    default_deadline_s: float = 30.0
    deadline_margin_s: float = 0.5
    verifier_deadlines_s: Mapping[str, float] = field(default_factory=dict)
    consensus: Consensus | None = None
    describe_ttl_s: float = 1.0
    cache_ttl_s: int = 7 * 24 * 3600
    cache_timeout_s: float = 0.25
    cache_pause_s: float = 1.0
    max_items: int = MAX_CALL_ITEMS
    max_bytes: int = MAX_MESSAGE_BYTES
    max_items_in_flight: int = 32_768
    grace_s: float = 10.0
    log_level: LogLevel = "info"
    tls: TlsIdentity | None = None
    health_port: int | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.verifier_deadlines_s if name not in self.verifiers]
        if unknown:
            raise ValueError(f"verifier_deadlines_s names {', '.join(unknown)}, which verifiers lacks")
        absent = [name for name in self.members if name not in self.verifiers]
        if absent:
            raise ValueError(f"the consensus is made of {', '.join(absent)}, which verifiers lacks")
        if CONSENSUS in self.verifiers:
            raise ValueError(f"{CONSENSUS} is no verifier: it is made of the others' beliefs")

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
