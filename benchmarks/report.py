"""The tables of a speed run as Markdown: what docs/performance.md shows, made from the JSON and from nothing else.

Run as a program, it puts them into that page: ``python -m benchmarks.report speed.json docs/performance.md``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

BEFORE = Path(__file__).with_name("stages_before.json")
BEGIN, END = "<!-- tables of a run: begin -->", "<!-- tables of a run: end -->"
WARM_STAGE = "aggregator: values from the cache (warm)"
ONLY_COLD = ("verifiers:", "aggregator: questions to bytes", "aggregator: replies checked", "aggregator: values for")


def markdown(measured: dict[str, Any]) -> str:
    sections = [_head, _targets, _race, _per_core, _stages, _processes, _sizes, _doors, _capacity]
    return "\n\n".join(section(measured) for section in sections) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def _rate(spread: dict[str, float]) -> str:
    return f"{spread['median']:,.0f} ({spread['min']:,.0f}–{spread['max']:,.0f})"


def _head(measured: dict[str, Any]) -> str:
    machine = measured["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; "
        f"{machine['packages']}. Load before the run: {machine['load_at_start']}. "
        f"{measured['runs']} runs after one that warms up; recipe `{measured['recipe']}`, evidence off."
    )


def _targets(measured: dict[str, Any]) -> str:
    race = {way: spread["median"] for way, spread in measured["race"].items()}
    cores = {case: one["per_s"] for case, one in measured["per_core"].items()}
    latency, start = measured["latency"], measured["start"]
    cold, warm = race["stack, cold"], race["stack, warm"]
    rouge = next(rate for case, rate in cores.items() if case.startswith("ROUGE"))
    resident = {name: one["resident_mb"] for name, one in start["processes"].items()}
    proportional = {name: one["proportional_mb"] for name, one in start["processes"].items()}
    lookups = ("experimental", "transcriptformer_pmi")
    transport = max(race["transport alone"], race["transport alone, 4 callers"])

    def at_least(name: str, found: float, target: float, unit: str = "/s") -> tuple[str, str, str, str]:
        return name, f"≥ {target:,.0f}{unit}", f"{found:,.0f}{unit}", _verdict(found >= target)

    def times(name: str, found: float, target: float) -> tuple[str, str, str, str]:
        return name, f"≥ {target:g} ×", f"{found:.2f} ×", _verdict(found >= target)

    def at_most(name: str, found: float, target: float, unit: str) -> tuple[str, str, str, str]:
        return name, f"≤ {target:,g} {unit}", f"{found:,.1f} {unit}", _verdict(found <= target)

    rows = [
        at_least("end to end, cold, 256-item calls, one caller", cold, 3000),
        at_least("the same, four callers", race["stack, cold, 4 callers"], 3000),
        times("against the same verifiers in one process", cold / race["in process, 256 items"], 0.5),
        at_least("end to end, warm, one caller", warm, 8000),
        at_least("the same, four callers", race["stack, warm, 4 callers"], 8000),
        times("cold against one-item HTTP servers, our scorers", cold / race["HTTP, one item, our scorers"], 10),
        times("cold against one-item HTTP servers, usual scorers", cold / race["HTTP, one item, usual scorers"], 30),
        times("cold against batch HTTP servers, our scorers", cold / race["HTTP, 256 items, our scorers"], 1),
        at_least("transport alone", transport, 10_000),
        times("cold against rbio's way", cold / race["rbio's way, usual scorers"], 19),
        times("warm against rbio's way", warm / race["rbio's way, usual scorers"], 50),
        at_most("512-item call, cold, median", latency["512 items, cold"]["p50_ms"], 200, "ms"),
        at_most("512-item call, warm, median", latency["512 items, warm"]["p50_ms"], 70, "ms"),
        *(
            at_most(
                f"512-item call, {way}, p99 / median",
                latency[f"512 items, {way}"]["p99_ms"] / latency[f"512 items, {way}"]["p50_ms"],
                2,
                "×",
            )
            for way in ("cold", "warm")
        ),
        at_most("one item at half load, p50", latency["one item, half of that load"]["p50_ms"], 6, "ms"),
        at_most("one item at half load, p99", latency["one item, half of that load"]["p99_ms"], 20, "ms"),
        at_least("GO ROUGE, 200 words against one gene's terms, per core", rouge, 8000),
        at_least("format and mention, 200 words, per core", cores["format: outcomes of items"], 12_000),
        at_least("PMI lookup, arrays, per core", cores["PMI lookup: pairs as arrays"], 1e6),
        at_least("experimental lookup, arrays, per core", cores["experimental lookup: pairs as arrays"], 1e6),
        at_least("MLP, batch 256, d = 2560, per core", cores["MLP, batch 256, d = 2560: genes seen before"], 200_000),
        at_most("cold start of the whole stack", start["seconds"]["median"], 6, "s"),
        at_most("memory of all processes, resident", sum(resident.values()), 1500, "MB"),
        *(at_most(f"memory of {name}, resident", resident[name], 120, "MB") for name in lookups),
        *(at_most(f"memory of {name}, proportional", proportional[name], 120, "MB") for name in lookups),
    ]
    return "### Targets\n\n" + _table(("case", "target", "measured", ""), rows)


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _race(measured: dict[str, Any]) -> str:
    race = measured["race"]
    cold, warm = race["stack, cold"]["median"], race["stack, warm"]["median"]
    rows = [
        (way, _rate(spread), f"{cold / spread['median']:.2f}", f"{warm / spread['median']:.2f}", spread["cpu_us"])
        for way, spread in race.items()
    ]
    trainers = measured["trainers"]
    after = (
        f"A trainer-shaped load, {trainers['callers']} callers × {trainers['items_each']} items at the same moment, "
        f"groups of 4 to 16, three in ten questions asked before: the slowest caller waits {trainers['p50_ms']:.0f} ms "
        f"(p99 {trainers['p99_ms']:.0f} ms) a step."
    )
    header = ("way", "completions/s, median (min–max)", "stack cold is × as fast", "warm ×", "CPU µs/completion")
    return f"### Side by side\n\n{_table(header, rows)}\n\n{after}"


def _per_core(measured: dict[str, Any]) -> str:
    rows = [(case, one["us"], f"{one['per_s']:,}") for case, one in measured["per_core"].items()]
    return "### One core, CPU time, 200 words\n\n" + _table(("case", "µs", "per second"), rows)


def _stages(measured: dict[str, Any]) -> str:
    before, after = json.loads(BEFORE.read_text()), measured["stages"]
    rows: list[tuple[Any, ...]] = [(stage, before.get(stage, "–"), us) for stage, us in after.items()]
    for name, is_counted in (("cold", _is_cold), ("warm", _is_warm)):
        sums = [sum(us for stage, us in table.items() if is_counted(stage)) for table in (before, after)]
        rows.append((f"**all of a {name} completion**", *(f"**{one:.0f}**" for one in sums)))
    return "### Stages, µs of CPU per completion\n\n" + _table(("stage", "before", "now"), rows)


def _is_cold(stage: str) -> bool:
    return stage != WARM_STAGE


def _is_warm(stage: str) -> bool:
    return not stage.startswith(ONLY_COLD)


def _processes(measured: dict[str, Any]) -> str:
    start, cpu = measured["start"], measured["cpu"]
    rows = []
    for name in cpu:
        at_start, later = start["processes"].get(name, {}), start["after_load"].get(name, {})
        memory = [at_start.get("resident_mb"), at_start.get("proportional_mb"), later.get("resident_mb")]
        rows.append((name, *("–" if one is None else f"{one:.0f}" for one in memory), *cpu[name].values()))
    totals = [sum(one[key] for one in start["processes"].values()) for key in ("resident_mb", "proportional_mb")]
    header = (
        "process", "resident MB", "proportional MB", "resident after load", "cold, µs/completion",
        "warm, µs/completion", "call of one item, µs",
    )  # fmt: skip
    seconds = start["seconds"]
    told = (
        f"Cold start {seconds['median']} s ({seconds['min']}–{seconds['max']}). "
        f"All processes: {totals[0]:,.0f} MB resident, {totals[1]:,.0f} MB proportional."
    )
    return f"### Processes\n\n{told}\n\n{_table(header, rows)}"


def _sizes(measured: dict[str, Any]) -> str:
    sizes = [(size, _rate(spread)) for size, spread in measured["sizes"]["items_per_call"].items()]
    callers = [(callers, _rate(spread)) for callers, spread in measured["sizes"]["callers"].items()]
    latency = measured["latency"]
    rows = [(case, one["p50_ms"], one["p99_ms"]) for case, one in latency.items() if isinstance(one, dict)]
    return "\n\n".join(
        [
            "### Batch, callers, latency",
            _table(("items per call, one caller, cold", "completions/s"), sizes),
            _table(("callers, 64-item calls, cold", "completions/s"), callers),
            f"Two worker processes per service, four callers, cold: {_rate(measured['two_workers'])} completions/s.",
            _table(("latency", "p50, ms", "p99, ms"), rows),
            f"Single items saturate at {latency['one item, saturated, per s']:,}/s (16 callers).",
        ]
    )


def _doors(measured: dict[str, Any]) -> str:
    rows = [(case, _rate(spread), spread["cpu_us"]) for case, spread in measured["doors"].items()]
    return "### Other ways in\n\n" + _table(("case", "completions/s, median (min–max)", "CPU µs/completion"), rows)


def _capacity(measured: dict[str, Any]) -> str:
    plans = measured["capacity"]
    names = list(plans[0]["replicas"])
    rows = [
        (
            plan["trainers"], f"{plan['completions_per_s']:,}", *plan["replicas"].values(), plan["cores"],
            plan["mean_wait_s"], plan["p95_wait_s"],
        )
        for plan in plans
    ]  # fmt: skip
    header = ("trainers", "completions/s", *names, "cores", "mean wait, s", "p95 wait, s")
    return "### Replicas for N trainers\n\n" + _table(header, rows)


def main(source: Path, page: Path) -> None:
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{markdown(json.loads(source.read_text()))}\n{END}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
