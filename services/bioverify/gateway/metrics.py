"""What the gateway counts, beside the process's own figures. Routes are templates: no id becomes a label."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]

REQUESTS = Counter("bioverify_http_requests", "Requests by route and status.", ["method", "route", "status"])
SECONDS = Histogram(
    "bioverify_http_seconds",
    "Seconds from a request's head to the end of its answer.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
IN_FLIGHT = Gauge("bioverify_http_in_flight", "Requests that are being answered.")
REFUSED_KEYS = Counter("bioverify_http_keys_refused", "Requests refused for their key.", ["status"])
JOBS = Gauge("bioverify_http_jobs", "Jobs that are kept, by state.", ["state"])
JOB_LINES = Counter("bioverify_http_job_lines", "Lines of jobs: scored, unscorable, bad.", ["result"])
# A rate cannot see the first event of a new series.
for _result in ("scored", "unscorable", "bad"):
    JOB_LINES.labels(_result)
