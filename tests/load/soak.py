"""A long mixed load with random faults: do memory, descriptors and tasks stay flat, and is every value still right?

The job of the fault suite runs over and over (cold, warm, with evidence or without) while random scenarios of it come
and go. Once in a while, when everything is healed and idle, each process is measured: resident memory, open
descriptors, threads, and calls and asyncio tasks as its metrics tell. What grows from one such measurement to the next,
after the first third of the run, is a leak. Processes that a scenario kills start anew, so the kills are left to
Valkey; the other faults leave processes alive.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.items import Questions
from tests.fault.judge import Verdict, fault_free, run_job
from tests.fault.scenarios import SCENARIOS
from tests.fault.system import VALKEY, System
from tests.fixtures.artifacts import build_bundled

FAULTS = (
    "nothing, cold cache",
    "verifiers: SIGSTOP, SIGCONT",
    "Valkey: SIGKILL",
    "connections: 10 % reset mid-message",
    "one verifier: latency and jitter, five-fold",
    "one verifier: black hole",
    "Redis: slow",
    "Redis: poisoned",
    "rogue verifier that reads texts",
)
ITEMS = 2048
MAX_MEMORY_GROWTH = 0.10
"""Of resident memory, per hour, as the slope over the last two thirds says; and no less than `MEMORY_NOISE` in all."""
MEMORY_NOISE_BYTES = 12 * 2**20
MAX_DESCRIPTOR_GROWTH, MAX_TASK_GROWTH = 8, 4
REPORT = Path("reports/soak.json")


def metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def measure(system: System, minutes: float) -> list[dict[str, Any]]:
    rows = []
    for program in system.programs.values():
        process = program.ps()
        row = {
            "minutes": round(minutes, 2),
            "process": program.name,
            "pid": process.pid,
            "memory_mib": round(process.memory_info().rss / 2**20, 1),
            "descriptors": process.num_fds(),
            "threads": process.num_threads(),
        }
        if program.metrics_port is not None:
            row["calls"] = metric(program.metrics_port, "bioverify_rpc_active")
            row["tasks"] = metric(program.metrics_port, "bioverify_asyncio_tasks")
        rows.append(row)
    return rows


def verdict_on(rows: list[dict[str, Any]]) -> list[str]:
    """What grew, in words; empty where nothing did."""
    problems = []
    last = max(row["minutes"] for row in rows)
    for name in dict.fromkeys(row["process"] for row in rows):
        if name == VALKEY:
            # Killed and filled anew by the scenarios.
            continue
        late = [row for row in rows if row["process"] == name and row["minutes"] >= last / 3]
        if len(late) < 3:
            continue
        minutes = [row["minutes"] for row in late]
        slope = float(np.polyfit(minutes, [row["memory_mib"] for row in late], 1)[0])
        grown_mib = slope * (minutes[-1] - minutes[0])
        share_per_hour = slope * 60 / late[0]["memory_mib"]
        if grown_mib * 2**20 > MEMORY_NOISE_BYTES and share_per_hour > MAX_MEMORY_GROWTH:
            problems.append(f"{name}: memory grows by {share_per_hour:.0%} an hour ({grown_mib:.1f} MiB seen)")
        for key, most in (("descriptors", MAX_DESCRIPTOR_GROWTH), ("tasks", MAX_TASK_GROWTH), ("threads", 4)):
            if key in late[0] and late[-1][key] - late[0][key] > most:
                problems.append(f"{name}: {key} went from {late[0][key]:g} to {late[-1][key]:g}")
        if late[-1].get("calls"):
            problems.append(f"{name}: {late[-1]['calls']:g} calls are still active on an idle service")
    return problems


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 30,
    seed: Annotated[int, typer.Option(help="Of items, faults and moments.")] = 0,
) -> None:
    """Print what each process took, and a verdict; exit with 1 where something grew or a value was wrong."""
    draw = random.Random(seed)
    total, rows, rounds = Verdict(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        store = build_bundled(Path(folder))
        questions = Questions(store)
        with System(store) as system:
            started = time.monotonic()

            def elapsed() -> float:
                return (time.monotonic() - started) / 60

            while elapsed() < minutes:
                name = draw.choice(FAULTS)
                scenario = SCENARIOS[name]
                items = questions.draw(ITEMS, seed=draw.randrange(1000))
                expected = fault_free(items, store)
                disturbance = scenario.disturb(system, draw)
                next(disturbance)
                for part in range(0, ITEMS, ITEMS // 4):
                    total.add(
                        run_job(
                            system.target,
                            items[part : part + ITEMS // 4],
                            expected,
                            deadline_s=6,
                            fresh_connections=scenario.fresh_connections,
                        )
                    )
                    next(disturbance, None)
                disturbance.close()  # type: ignore[attr-defined]
                system.heal()
                total.add(run_job(system.target, items, expected, deadline_s=30))
                time.sleep(1)
                rounds += 1
                rows += measure(system, elapsed())
                own = {key: rows[-1][key] for key in ("memory_mib", "descriptors", "tasks")}
                judged = f"{total.judged:>9,} outcomes, {total.wrong} wrong, {total.lost} lost"
                print(f"{elapsed():6.1f} min  {name:<45} {judged}; aggregator: {own}", flush=True)
    problems = verdict_on(rows)
    if not total.is_clean:
        problems.append(f"values: {total.wrong} wrong, {total.lost} lost, {total.doubled} doubled: {total.examples}")
    report = {
        "minutes": round(elapsed(), 1),
        "seed": seed,
        "rounds": rounds,
        "outcomes": total.judged,
        "wrong": total.wrong,
        "lost": total.lost,
        "doubled": total.doubled,
        "failed_share": round(total.failed / max(1, total.judged), 4),
        "problems": problems,
        "measurements": rows,
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{rounds} rounds, {total.judged:,} outcomes.")
    print("\n".join(problems) or "Flat: nothing grew, nothing was wrong.")
    print(f"Written: {REPORT}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    typer.run(main)
