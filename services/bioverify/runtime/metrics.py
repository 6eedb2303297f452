"""Prometheus metrics of every service, and the HTTP endpoint that shows them.

Labels hold names from code and configuration only: no gene, no item id. With several worker processes each writes its
numbers into a shared folder (`PROMETHEUS_MULTIPROC_DIR`, which must be set before this module is imported) and a
process of its own sums them up.
"""

from __future__ import annotations

import os

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.multiprocess import MultiProcessCollector

from bioverify.core.outcomes import Failed, NotApplicable, Outcome
from bioverify.core.verifier import Description
from bioverify.transport.addresses import for_both_families

# They would double the series, and tell nothing that a counter's start at zero does not.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ITEMS = (1, 4, 16, 64, 256, 1024, 4096)

RPC_CALLS = Counter("bioverify_rpc_calls", "Calls by method and gRPC status.", ["method", "code"])
RPC_SECONDS = Histogram("bioverify_rpc_seconds", "Seconds from arrival to answer.", ["method"], buckets=_SECONDS)
RPC_ACTIVE = Gauge("bioverify_rpc_active", "Calls accepted and not answered yet.", multiprocess_mode="livesum")

OUTCOMES = Counter("bioverify_verifier_outcomes", "Outcomes given.", ["verifier", "outcome", "reason"])
EXCEPTIONS = Counter("bioverify_verifier_exceptions", "Batches whose scoring raised an exception.", ["verifier"])
QUEUE_SECONDS = Histogram(
    "bioverify_verifier_queue_seconds", "Seconds that a call waited for its turn.", ["verifier"], buckets=_SECONDS
)
WORK_SECONDS = Histogram("bioverify_verifier_work_seconds", "Seconds of scoring.", ["verifier"], buckets=_SECONDS)
BATCH_ITEMS = Histogram("bioverify_verifier_batch_items", "Items per call.", ["verifier"], buckets=_ITEMS)
ITEMS_IN_FLIGHT = Gauge("bioverify_items_in_flight", "Items queued or in work.", multiprocess_mode="livesum")
READY = Gauge("bioverify_ready", "1 if the service answers with scores.", multiprocess_mode="livemin")
TASKS = Gauge("bioverify_asyncio_tasks", "Tasks of the event loop that are not done.", multiprocess_mode="livesum")
VERIFIER = Gauge(
    "bioverify_verifier_info",
    "Always 1: which version serves; the fingerprint covers code, parameters and artifacts.",
    ["verifier", "version", "fingerprint"],
    multiprocess_mode="livemax",
)
ARTIFACT = Gauge(
    "bioverify_verifier_artifact_info",
    "Always 1: what the verifier opened.",
    ["verifier", "artifact", "digest", "simulated"],
    multiprocess_mode="livemax",
)


def outcome_labels(outcome: Outcome) -> tuple[str, str]:
    """Kind and reason, as they stand in the labels."""
    if isinstance(outcome, Failed):
        return "failed", outcome.reason
    if isinstance(outcome, NotApplicable):
        return "not_applicable", outcome.reason
    return "scored", ""


def show(description: Description) -> None:
    """What serves from now on, and zeros for what has not happened to it yet."""
    VERIFIER.labels(description.name, description.version, description.fingerprint).set(1)
    OUTCOMES.labels(description.name, "scored", "")
    OUTCOMES.labels(description.name, "failed", "internal")
    EXCEPTIONS.labels(description.name)
    for artifact in description.artifacts:
        ARTIFACT.labels(
            description.name,
            artifact.name,
            artifact.digest,
            str(artifact.simulated).lower(),
        ).set(1)


def expose(host: str, port: int) -> None:
    """Serve the metrics in a background thread of this process. Raises OSError if the port is taken."""
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    start_http_server(port, for_both_families(host), registry)
