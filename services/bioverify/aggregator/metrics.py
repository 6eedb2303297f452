"""Prometheus metrics of the aggregator. Labels hold names from code and configuration only.

`show_zeros` makes the series of each verifier before anything has happened to it: a counter that appears with its first
fault has no value before it, so a rate would miss just that one.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from bioverify.aggregator.faults import REASONS
from bioverify.core.readings import ALL_REASONS

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REWARDS = Counter(
    "bioverify_rewards",
    "Items: rewarded, or unscorable because of a fact about the item, or of a fault of ours.",
    ["result", "cause"],
)
NOT_READ = Counter(
    "bioverify_items_not_read", "Items of which the question, a thought or the answer was not read.", ["what", "reason"]
)
OUTCOMES = Counter("bioverify_aggregator_outcomes", "Items by verifier and kind of outcome.", ["verifier", "outcome"])
FAILURES = Counter("bioverify_aggregator_failures", "Questions that a fault left open.", ["verifier", "reason"])
VERIFIER_CALLS = Counter("bioverify_aggregator_verifier_calls", "Calls to verifiers.", ["verifier", "code"])
VERIFIER_SECONDS = Histogram(
    "bioverify_aggregator_verifier_seconds",
    "Seconds from the first call to a verifier to its last reply, per request.",
    ["verifier"],
    buckets=_SECONDS,
)
RETRIES = Counter("bioverify_aggregator_retries", "Calls repeated because a verifier was unavailable.", ["verifier"])
HEDGES = Counter(
    "bioverify_aggregator_hedges", "Second requests to another replica: won, lost.", ["verifier", "result"]
)
SHARED = Counter(
    "bioverify_aggregator_shared", "Questions answered by a call that another request had under way.", ["verifier"]
)
EXTRA_DENIED = Counter(
    "bioverify_aggregator_extra_calls_denied",
    "Retries and hedges that their budget did not allow.",
    ["verifier", "kind"],
)
BREAKER = Gauge(
    "bioverify_aggregator_breaker",
    "0: the replica is asked, 1: one call at a time, 2: not asked.",
    ["verifier", "target"],
    multiprocess_mode="livemax",
)
NEW_CONNECTIONS = Counter(
    "bioverify_aggregator_new_connections",
    "Connections given up for a new one, because a probe over them heard nothing.",
    ["verifier", "target"],
)
LIMIT_ITEMS = Gauge(
    "bioverify_aggregator_limit_items",
    "Items that may be in flight at a replica.",
    ["verifier", "target"],
    multiprocess_mode="livesum",
)
WAIT_SECONDS = Histogram(
    "bioverify_aggregator_wait_seconds",
    "Seconds that a call waited in the aggregator for its turn.",
    ["verifier"],
    buckets=_SECONDS,
)
STAGE_SECONDS = Histogram(
    "bioverify_aggregator_stage_seconds", "Seconds per stage of a request.", ["stage"], buckets=_SECONDS
)
CACHE_LOOKUPS = Counter(
    "bioverify_cache_lookups", "Questions looked up: hit, miss, invalid, unavailable.", ["verifier", "result"]
)
CACHE_ERRORS = Counter(
    "bioverify_cache_errors", "Redis operations that failed or were left out.", ["operation", "kind"]
)
CACHE_SECONDS = Histogram(
    "bioverify_cache_seconds", "Seconds of a Redis operation, failed ones included.", ["operation"], buckets=_SECONDS
)


def show_zeros(verifiers: Iterable[str]) -> None:
    for result, cause in (("rewarded", ""), ("unscorable", "fact"), ("unscorable", "fault")):
        REWARDS.labels(result, cause)
    for what, why in ALL_REASONS:
        NOT_READ.labels(what, why)
    for operation in ("read", "write"):
        CACHE_ERRORS.labels(operation, "paused")
    for verifier in verifiers:
        RETRIES.labels(verifier)
        SHARED.labels(verifier)
        for outcome in ("scored", "not_applicable", "failed"):
            OUTCOMES.labels(verifier, outcome)
        for reason in REASONS:
            FAILURES.labels(verifier, reason)
        for result in ("won", "lost"):
            HEDGES.labels(verifier, result)
        for kind in ("retry", "hedge"):
            EXTRA_DENIED.labels(verifier, kind)
        for result in ("hit", "miss", "invalid", "unavailable"):
            CACHE_LOOKUPS.labels(verifier, result)
