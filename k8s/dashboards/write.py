"""Writes the Grafana dashboards beside it: ``python k8s/dashboards/write.py``, and with ``--check`` says whether they
are fresh.

A dashboard is rows of panels, a panel one question with its PromQL. Grafana's own builders make the JSON, so what
stands here is only what differs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
RATE = "[$__rate_interval]"
SCORE = 'method="/bioverify.v1.RewardService/ScoreBatch"'


@dataclass(frozen=True)
class Panel:
    """``queries``: legend → PromQL. ``about``: what the figure says, and what to do when it is odd."""

    title: str
    unit: str
    queries: dict[str, str]
    about: str = ""


@dataclass(frozen=True)
class Page:
    uid: str
    title: str
    about: str
    rows: dict[str, list[Panel]] = field(default_factory=dict)
    by_verifier: str = ""


def rate(metric: str, by: str = "", where: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{f'{{{where}}}' if where else ''}{RATE}))"


def quantile(q: float, histogram: str, by: str = "", where: str = "") -> str:
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', f'le, {by}' if by else 'le', where)})"


def quantiles(histogram: str, by: str = "", where: str = "") -> dict[str, str]:
    name = "".join(f"{{{{{label}}}}} " for label in by.split(", ") if label)
    return {f"{name}p{round(100 * q)}": quantile(q, histogram, by, where) for q in (0.5, 0.95, 0.99)}


CHOSEN = 'verifier=~"$verifier"'

SERVICE = Page(
    "bioverify-service",
    "bioverify: service",
    "Do rewards come, how fast, and which verifier stands in the way?",
    {
        "Promises": [
            Panel(
                "Lost to faults",
                "percentunit",
                {"5 min": "bioverify:reward_errors:ratio_rate5m", "1 h": "bioverify:reward_errors:ratio_rate1h"},
                "Rows and calls that a fault of ours left without a reward. 0.5 % is promised over 30 days.",
            ),
            Panel(
                "Slower than 2.5 s",
                "percentunit",
                {"5 min": "bioverify:slow_calls:ratio_rate5m", "1 h": "bioverify:slow_calls:ratio_rate1h"},
                "Share of ScoreBatch calls. 1 % is promised over 30 days.",
            ),
            Panel(
                "Rows",
                "cps",
                {"{{result}} {{cause}}": rate("bioverify_rewards_total", "result, cause")},
                "Unscorable by fact: the question is outside of what a required verifier knows.",
            ),
            Panel(
                "Not read",
                "cps",
                {"{{what}} {{reason}}": rate("bioverify_items_not_read_total", "what, reason")},
                "Questions, thoughts and answers that could not be read, of how people send them. docs/reading.md.",
            ),
            Panel("Ready processes", "short", {"{{job}}": "sum by (job) (bioverify_ready)"}),
        ],
        "Aggregator": [
            Panel("Seconds of a ScoreBatch", "s", quantiles("bioverify_rpc_seconds", where=SCORE)),
            Panel("Calls by status", "cps", {"{{code}}": rate("bioverify_rpc_calls_total", "code", SCORE)}),
            Panel(
                "Seconds per stage, p95",
                "s",
                {"{{stage}}": quantile(0.95, "bioverify_aggregator_stage_seconds", "stage")},
                "Read and compose are the aggregator's own work; ask waits for cache and verifiers.",
            ),
            Panel(
                "In flight",
                "short",
                {"items {{job}}": "sum by (job) (bioverify_items_in_flight)", "calls": "sum(bioverify_rpc_active)"},
            ),
        ],
        "Verifiers, as the aggregator sees them": [
            Panel(
                "Breaker",
                "short",
                {"{{verifier}} {{target}}": f"max by (verifier, target) (bioverify_aggregator_breaker{{{CHOSEN}}})"},
                "0: asked, 1: tried one call at a time, 2: not asked.",
            ),
            Panel(
                "Failures by reason",
                "cps",
                {"{{verifier}} {{reason}}": rate("bioverify_aggregator_failures_total", "verifier, reason", CHOSEN)},
                "docs/reliability.md explains each reason.",
            ),
            Panel(
                "Retries, hedges, denied",
                "cps",
                {
                    "{{verifier}} retries": rate("bioverify_aggregator_retries_total", "verifier", CHOSEN),
                    "{{verifier}} hedge {{result}}": rate(
                        "bioverify_aggregator_hedges_total", "verifier, result", CHOSEN
                    ),
                    "{{verifier}} {{kind}} denied": rate(
                        "bioverify_aggregator_extra_calls_denied_total", "verifier, kind", CHOSEN
                    ),
                },
            ),
            Panel(
                "Waiting for a turn, p95",
                "s",
                {"{{verifier}}": quantile(0.95, "bioverify_aggregator_wait_seconds", "verifier", CHOSEN)},
                "Grows where a verifier is slower than what is asked of it: more replicas, or workers.",
            ),
            Panel(
                "Seconds per request and verifier, p95",
                "s",
                {"{{verifier}}": quantile(0.95, "bioverify_aggregator_verifier_seconds", "verifier", CHOSEN)},
            ),
            Panel(
                "Items that may be in flight",
                "short",
                {"{{target}}": f"sum by (target) (bioverify_aggregator_limit_items{{{CHOSEN}}})"},
                "Halved by each time-out and refusal, then grows again.",
            ),
        ],
        "Verifiers, by their own account": [
            Panel(
                "Outcomes",
                "cps",
                {
                    "{{verifier}} {{outcome}} {{reason}}": rate(
                        "bioverify_verifier_outcomes_total", "verifier, outcome, reason", CHOSEN
                    )
                },
            ),
            Panel("Work per call", "s", quantiles("bioverify_verifier_work_seconds", "verifier", CHOSEN)),
            Panel(
                "Queue, p95",
                "s",
                {"{{verifier}}": quantile(0.95, "bioverify_verifier_queue_seconds", "verifier", CHOSEN)},
                "What an autoscaler should look at.",
            ),
            Panel(
                "Items per call, mean",
                "short",
                {
                    "{{verifier}}": f"{rate('bioverify_verifier_batch_items_sum', 'verifier', CHOSEN)} / "
                    f"{rate('bioverify_verifier_batch_items_count', 'verifier', CHOSEN)}"
                },
            ),
            Panel(
                "Versions that serve",
                "short",
                {
                    "{{verifier}} {{version}} {{fingerprint}}": "count by (verifier, version, fingerprint) "
                    f"(bioverify_verifier_info{{{CHOSEN}}})"
                },
                "Two lines of one verifier for longer than a rollout: docs/runbooks/artifact-mismatch.md.",
            ),
            Panel(
                "Artifacts",
                "short",
                {
                    "{{verifier}} {{artifact}} simulated={{simulated}}": "count by (verifier, artifact, simulated) "
                    f"(bioverify_verifier_artifact_info{{{CHOSEN}}})"
                },
            ),
            Panel(
                "Batches that raised",
                "cps",
                {"{{verifier}}": rate("bioverify_verifier_exceptions_total", "verifier", CHOSEN)},
            ),
        ],
        "Gateway": [
            Panel(
                "Requests", "reqps", {"{{route}} {{status}}": rate("bioverify_http_requests_total", "route, status")}
            ),
            Panel("Seconds of a request, p95", "s", {"{{route}}": quantile(0.95, "bioverify_http_seconds", "route")}),
            Panel("Being answered", "short", {"requests": "sum(bioverify_http_in_flight)"}),
            Panel(
                "Jobs",
                "short",
                {
                    "{{state}}": "sum by (state) (bioverify_http_jobs)",
                    "lines {{result}} /s": rate("bioverify_http_job_lines_total", "result"),
                },
            ),
        ],
        "Processes": [
            Panel(
                "CPU",
                "short",
                {"{{job}} {{instance}}": f'rate(process_cpu_seconds_total{{job=~".*bioverify.*"}}{RATE})'},
            ),
            Panel("Memory", "bytes", {"{{job}} {{instance}}": 'process_resident_memory_bytes{job=~".*bioverify.*"}'}),
            Panel("Tasks of the event loop", "short", {"{{job}} {{instance}}": "bioverify_asyncio_tasks"}),
            Panel("Descriptors", "short", {"{{job}} {{instance}}": 'process_open_fds{job=~".*bioverify.*"}'}),
        ],
    },
    "bioverify_aggregator_breaker",
)

CACHE = Page(
    "bioverify-cache",
    "bioverify: cache",
    "What does the cache save, and does Redis answer?",
    {
        "What it saves": [
            Panel(
                "Hit ratio",
                "percentunit",
                {
                    "{{verifier}}": rate("bioverify_cache_lookups_total", "verifier", f'{CHOSEN},result="hit"')
                    + " / "
                    + rate("bioverify_cache_lookups_total", "verifier", CHOSEN)
                },
                "Of different questions: equal ones of a request are one. ROUGE reads the text and hits seldom.",
            ),
            Panel(
                "Lookups",
                "cps",
                {"{{verifier}} {{result}}": rate("bioverify_cache_lookups_total", "verifier, result", CHOSEN)},
            ),
            Panel(
                "Answered by another request's call",
                "cps",
                {"{{verifier}}": rate("bioverify_aggregator_shared_total", "verifier", CHOSEN)},
                "Single flight: equal questions that are asked at the same time.",
            ),
            Panel(
                "Mean work of a call, which a hit spares",
                "s",
                {
                    "{{verifier}}": rate("bioverify_verifier_work_seconds_sum", "verifier", CHOSEN)
                    + " / "
                    + rate("bioverify_verifier_work_seconds_count", "verifier", CHOSEN)
                },
            ),
        ],
        "Redis": [
            Panel("Seconds of an operation", "s", quantiles("bioverify_cache_seconds", "operation")),
            Panel("Operations", "ops", {"{{operation}}": rate("bioverify_cache_seconds_count", "operation")}),
            Panel(
                "Errors",
                "cps",
                {"{{operation}} {{kind}}": rate("bioverify_cache_errors_total", "operation, kind")},
                "paused: left out, because one failed shortly before. docs/runbooks/cache-down.md.",
            ),
            Panel(
                "Damaged values",
                "cps",
                {"{{verifier}}": rate("bioverify_cache_lookups_total", "verifier", f'{CHOSEN},result="invalid"')},
                "A checksum did not fit: counted as a miss, never a number.",
            ),
        ],
    },
    "bioverify_cache_lookups_total",
)

RUN = "bioverify_training"
TRAINING = Page(
    "bioverify-training",
    "bioverify: training",
    "Does the run go on, what is rewarded, and is the policy after something else?",
    {
        "Progress": [
            Panel(
                "Steps", "short", {"{{instance}} done": f"{RUN}_step", "{{instance}} planned": f"{RUN}_planned_steps"}
            ),
            Panel("Run", "short", {"{{recipe}} {{preset}}": f"count by (recipe, preset) ({RUN}_info)"}),
            Panel("Seconds of a step", "s", quantiles(f"{RUN}_step_seconds")),
            Panel(
                "Since the last step",
                "s",
                {"{{instance}}": f"time() - {RUN}_last_step_timestamp_seconds"},
                "Grows while training waits for services: docs/runbooks/training-stalled.md.",
            ),
            Panel(
                "Where a step's time goes",
                "percentunit",
                {"{{part}}": f"{RUN}_step_share_ratio"},
                "While rewards are waited for, GPUs compute nothing: docs/runbooks/training-waits-for-rewards.md.",
            ),
            Panel(
                "Speed",
                "short",
                {"tokens/s": f"{RUN}_tokens_per_second", "share of the cards' arithmetic": f"{RUN}_mfu_ratio"},
            ),
        ],
        "Reward": [
            Panel("Reward", "short", {"mean": f"{RUN}_reward", "deviation in a group": f"{RUN}_reward_deviation"}),
            Panel("Value of each term", "short", {"{{term}}": f"{RUN}_value"}),
            Panel("Contribution of each term", "short", {"{{term}}": f"{RUN}_contribution"}),
            Panel("Reward by source", "short", {"{{source}}": f"{RUN}_source_reward"}),
        ],
        "Services": [
            Panel(
                "Unscorable rows",
                "percentunit",
                {"{{instance}}": f"{RUN}_unscorable_ratio"},
                "Masked in the loss. Above rewards.max_unscorable_share training waits.",
            ),
            Panel("Failed, by verifier", "percentunit", {"{{verifier}}": f"{RUN}_verifier_failed_ratio"}),
            Panel("Seconds of the reward call", "s", quantiles(f"{RUN}_reward_call_seconds")),
            Panel(
                "Waiting, and calls",
                "short",
                {
                    "waited s/s": rate(f"{RUN}_waited_seconds_total"),
                    "{{result}} /s": rate(f"{RUN}_reward_calls_total", "result"),
                },
            ),
        ],
        "Policy": [
            Panel("Loss", "short", {"{{instance}}": f"{RUN}_loss"}),
            Panel("Entropy, divergence", "short", {"entropy": f"{RUN}_entropy", "KL": f"{RUN}_kl"}),
            Panel("Learning rate", "sci", {"{{instance}}": f"{RUN}_learning_rate"}),
            Panel(
                "What teaches",
                "percentunit",
                {
                    "groups rewarded alike": f"{RUN}_groups_alike_ratio",
                    "groups replaced": f"{RUN}_groups_replaced_ratio",
                    "draws that can never be scored": f"{RUN}_never_scorable_ratio",
                    "tokens that the loss clips": f"{RUN}_loss_clipped_ratio",
                    "trainer's probability / vLLM's": f"{RUN}_importance_ratio",
                },
                "A group whose members are all rewarded alike teaches nothing; with prompts.redraws others take their "
                "place. The ratio is near 1 if vLLM has the trainer's weights.",
            ),
            Panel(
                "Length",
                "short",
                {"tokens": f"{RUN}_completion_tokens", "share cut at the limit": f"{RUN}_clipped_ratio"},
            ),
            Panel(
                "Signs of reward hacking",
                "short",
                {"{{sign}}": f"{RUN}_sign"},
                "docs/training.md explains each.",
            ),
            Panel(
                "Not read",
                "percentunit",
                {"{{what}} {{reason}}": f"{RUN}_not_read_ratio"},
                "Share of the last step's completions, by what could not be read of them. docs/reading.md.",
            ),
            Panel(
                "Held-out questions",
                "percentunit",
                {"balanced accuracy": f"{RUN}_heldout_balanced_accuracy"},
                "Of presets with heldout; 0 before the first look. Rewards that rise while it does not: an alarm.",
            ),
        ],
    },
)

PAGES = {"service": SERVICE, "cache": CACHE, "training": TRAINING}


def panel_of(panel: Panel) -> TimeSeries:
    made = (
        TimeSeries()
        .title(panel.title)
        .description(panel.about)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(6)
        .height(7)
        .fill_opacity(8)
        .legend(
            VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        )
    )
    for number, (legend, expression) in enumerate(panel.queries.items()):
        made.with_target(
            Dataquery()
            .ref_id(chr(ord("A") + number))
            .expr(expression)
            .legend_format(legend)
            .datasource(SOURCE)
            .range()
            .exemplar("histogram_quantile" in expression)
        )
    return made


def written(page: Page) -> str:
    made = (
        Dashboard(page.title)
        .uid(page.uid)
        .description(page.about)
        .tags(["bioverify"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    if page.by_verifier:
        made.with_variable(
            QueryVariable("verifier")
            .label("Verifier")
            .datasource(SOURCE)
            .query(f"label_values({page.by_verifier}, verifier)")
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    ids = count(1)
    for title, panels in page.rows.items():
        made.with_row(Row(title).id(next(ids)))
        for panel in panels:
            made.with_panel(panel_of(panel).id(next(ids)))
    return str(JSONEncoder(sort_keys=True, indent=2).encode(made.build())) + "\n"


def main() -> int:
    stale = []
    for name, page in PAGES.items():
        path = Path(__file__).parent / f"{name}.json"
        text = written(page)
        if "--check" in sys.argv and (not path.exists() or path.read_text() != text):
            stale.append(path.name)
        elif "--check" not in sys.argv:
            path.write_text(text)
    if stale:
        print(f"{', '.join(stale)}: not what write.py says. Run: make dashboards", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
