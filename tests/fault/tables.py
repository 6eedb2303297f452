"""The tables of docs/reliability.md, out of what the suites measured: ``python -m tests.fault.tables``.

Between a pair of marks in the document (``<!-- fault -->`` … ``<!-- end fault -->``) stands what `make test-fault` and
`make soak` wrote to reports/ when they were last run as a whole. A report that is not there leaves its part as it is.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.fault.scenarios import SCENARIOS

DOCUMENT = Path("docs/reliability.md")
REPORTS = Path("reports")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def faults(report: dict[str, Any]) -> str:
    if missing := set(SCENARIOS) - {row["scenario"] for row in report["scenarios"]}:
        raise SystemExit(f"reports/fault.json lacks {', '.join(sorted(missing))}: run make test-fault as a whole")
    rows = [
        [
            row["scenario"],
            f"{row['outcomes']:,}",
            *(str(row[key]) for key in ("wrong", "lost", "doubled", "reordered")),
            f"{row['failed_share']:.1%}",
            str(row["refused_calls"]),
            f"{row['slowest_call_s']:.1f} s",
            f"{row['seconds']:.0f} s",
            f"{row['recovered_after_s']:.1f} s",
        ]
        for row in report["scenarios"]
    ]
    total = report["total"]
    sums = [f"{total[key]:,}" for key in ("outcomes", "wrong", "lost", "doubled", "reordered")]
    rows.append([f"**{cell}**" if cell else "" for cell in ["all", *sums, *[""] * 5]])
    head = "scenario | outcomes | wrong | lost | doubled | reordered | failed | calls made again | slowest call"
    return table([*head.split(" | "), "duration", "all well after"], rows) + (
        f"\nSeed {report['seed']}; load average of the two cores "
        f"{report['load_average'][0]} to {report['load_average'][1]}.\n"
    )


def load(report: dict[str, Any]) -> str:
    over, term, redis, hole = (report[name] for name in ("overload", "sigterm", "redis gone", "black hole"))
    health = ", ".join(f"{over[f'health_ms_{what}']}" for what in ("median", "p99", "max"))
    failed = sum(count for end, count in redis["ends"].items() if end != "OK")
    answered = f"{term['ends'].get('OK', 0)} of {term['calls']}"
    healthy = f"{hole['p99_ms_of_the_last_half']} ms (healthy {hole['healthy_p99_ms']} ms)"
    rows = [
        ["goodput at four times capacity", f"{over['goodput_of_capacity']} × capacity", "≥ 0.9"],
        ["the excess gets RESOURCE_EXHAUSTED after, median", f"{over['refused_after_ms_median']} ms", "≤ 20 ms"],
        ["health checks meanwhile, median, p99, longest", f"{health} ms", "< 100 ms"],
        [
            "SIGTERM under load: accepted calls answered",
            f"{answered}, process gone after {term['gone_after_s']} s",
            "all, within 10 s",
        ],
        [
            "throughput without Redis",
            f"{redis['throughput_of_cold_cache']} × cold cache, failed calls {failed}",
            "≥ 0.8, 0",
        ],
        [
            "one optional verifier black-holed: first calls of 64 items",
            f"≤ {hole['first_calls_max_ms']} ms of a deadline of {hole['deadline_ms']:.0f} ms",
            "≤ deadline + 50 ms",
        ],
        ["… p99 once the breaker is open", healthy, "≤ 1.2 × healthy"],
    ]
    return table(["what", "seen", "bound"], rows) + (f"\nCapacity was {over['capacity_calls_per_s']} calls/s.\n")


def training(report: dict[str, Any]) -> str:
    rows = [
        ["steps × rows, services killed and restarted", f"{report['steps']} × {report['rows']}, {report['killed']}"],
        ["rewards equal to the undisturbed run's", str(report["equal"])],
        ["rewards without the optional terms that failed", str(report["fewer_terms"])],
        ["rows unscorable and counted", f"{report['unscorable']}, of these {report['lost']} in calls that were lost"],
        ["wrong", str(report["wrong"])],
    ]
    return table(["training", "seen"], rows)


def soak(report: dict[str, Any]) -> str:
    by_process = defaultdict(list)
    for row in report["measurements"]:
        by_process[row["process"]].append(row)
    rows = []
    for name, seen in by_process.items():
        late = [row for row in seen if row["minutes"] >= report["minutes"] / 3]
        cells = [name]
        for key in ("memory_mib", "descriptors", "threads", "tasks"):
            values = [row[key] for row in late if key in row]
            cells.append(f"{values[0]:g} → {values[-1]:g} (≤ {max(values):g})" if values else "–")
        slope = np.polyfit([row["minutes"] for row in late], [row["memory_mib"] for row in late], 1)[0]
        cells.insert(2, f"{60 * slope:+.0f}")
        rows.append(cells)
    verdict = "; ".join(report["problems"]) or "nothing grew beyond the bounds of the soak"
    return (
        f"{report['minutes']:g} minutes, {report['rounds']} rounds of random faults, {report['outcomes']:,} outcomes: "
        f"{report['wrong']} wrong, {report['lost']} lost, {report['doubled']} doubled, "
        f"{report['failed_share']:.1%} failed. Verdict: {verdict}.\n\n"
        "After a third of the time → at the end (most in between):\n\n"
        + table(["process", "memory, MiB", "slope, MiB an hour", "descriptors", "threads", "asyncio tasks"], rows)
    )


PARTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "fault": faults,
    "load": load,
    "training": training,
    "soak": soak,
}


def main() -> None:
    text = DOCUMENT.read_text()
    for name, write in PARTS.items():
        path = REPORTS / f"{name}.json"
        if not path.exists():
            print(f"{path} is not there: its part stays as it is")
            continue
        part = f"<!-- {name} -->\n{write(json.loads(path.read_text()))}<!-- end {name} -->\n"
        text, found = re.subn(
            rf"<!-- {name} -->\n.*?<!-- end {name} -->\n", lambda _, part=part: part, text, flags=re.DOTALL
        )
        if found != 1:
            raise SystemExit(f"{DOCUMENT}: the marks of {name!r} are there {found} times, expected once")
        print(f"{path} → {DOCUMENT}")
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
