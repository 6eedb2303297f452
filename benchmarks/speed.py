"""How fast is it? All speed cases in one run: JSON with every figure, Markdown with the tables (`benchmarks.report`).

Ways take turns within a run, on items that no earlier run has used, so their ratios hold on a machine whose speed
drifts; one run warms up and is not counted. The client is part of every figure.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import capacity, constant, report, rivals
from benchmarks.cores import per_core
from benchmarks.doors import doors
from benchmarks.items import Questions
from benchmarks.measuring import cpu_of_all, machine, processes_of, running_stack, spread
from benchmarks.rivals import NAMES, RECIPE
from benchmarks.stages import stage_table
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import open_verifier
from bioverify.client import AsyncClient, Client, ScoreItem

CALL = 256
N, N_SLOW = 1024, 48
TRAINERS, TRAINER_ITEMS, TRAINER_STEPS = 8, 64, 15


def ask(client: Client, items: Sequence[ScoreItem], call_size: int = CALL, callers: int = 1) -> list[float | None]:
    calls = [items[start : start + call_size] for start in range(0, len(items), call_size)]

    def one(call: Sequence[ScoreItem]) -> list[float | None]:
        return [reward.reward for reward in client.score(call, RECIPE, deadline_s=120, with_evidence=False).rewards]

    if callers == 1:
        return [reward for call in calls for reward in one(call)]
    with ThreadPoolExecutor(callers) as pool:
        return [reward for rewards in pool.map(one, calls) for reward in rewards]


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done


def race(
    questions: Questions, verifiers: dict[str, Any], target: str, state: str, port: int, runs: int
) -> dict[str, Any]:
    """All ways side by side: completions/s, and the CPU that a completion costs in all processes together."""
    store = ArtifactStore.default()
    scorers = {kind: {name: rivals.scorer(name, store, kind) for name in NAMES} for kind in ("usual", "ours")}
    rivals.check_usual(questions.draw(32, seed=9999), scorers["usual"], verifiers)
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with (
        Client(target) as client,
        rivals.servers(port, "usual") as usual,
        rivals.servers(port + 10, "ours") as ours,
        constant.running(port + 20) as nothing,
        Client(nothing) as to_nothing,
    ):
        for run in range(runs + 1):
            items = questions.draw(N, seed=run)
            others = questions.draw(N, seed=100 + run)
            few = items[:N_SLOW]
            ways: dict[str, tuple[int, Callable[[], Any]]] = {
                "rbio's way, usual scorers": (N_SLOW, lambda few=few: rivals.one_by_one(few, scorers["usual"])),
                "rbio's way, our scorers": (N, lambda items=items: rivals.one_by_one(items, scorers["ours"])),
                "HTTP, one item, usual scorers": (N_SLOW, lambda few=few: rivals.over_http(few, usual, 1)),
                "HTTP, one item, our scorers": (CALL, lambda items=items: rivals.over_http(items[:CALL], ours, 1)),
                "HTTP, 256 items, usual scorers": (N_SLOW, lambda few=few: rivals.over_http(few, usual, CALL)),
                "HTTP, 256 items, our scorers": (N, lambda items=items: rivals.over_http(items, ours, CALL)),
                "in process, 256 items": (N, lambda items=items: rivals.in_process(items, verifiers, CALL)),
                "stack, cold": (N, lambda items=items: ask(client, items)),
                "stack, warm": (N, lambda items=items: ask(client, items)),
                "stack, cold, 4 callers": (N, lambda others=others: ask(client, others, callers=4)),
                "stack, warm, 4 callers": (N, lambda others=others: ask(client, others, callers=4)),
                "transport alone": (N, lambda items=items: ask(to_nothing, items)),
                "transport alone, 4 callers": (N, lambda items=items: ask(to_nothing, items, callers=4)),
            }
            rewards = {}
            for way, (n, work) in ways.items():
                before_s = cpu_of_all(state)
                seconds, rewards[way] = seconds_of(work)
                if run > 0:
                    rates.setdefault(way, []).append(n / seconds)
                    cpu.setdefault(way, []).append((cpu_of_all(state) - before_s) / n * 1e6)
            if not rewards["in process, 256 items"] == rewards["stack, cold"] == rewards["stack, warm"]:
                raise SystemExit("stack and process do not give the same rewards; their speed is of no interest")
    return {way: spread(values) | {"cpu_us": round(statistics.median(cpu[way]))} for way, values in rates.items()}


def by_size(questions: Questions, target: str, runs: int) -> dict[str, Any]:
    """Cold calls of one caller, by items per call; and 64-item calls, by callers."""
    found: dict[str, Any] = {"items_per_call": {}, "callers": {}}
    with Client(target) as client:
        for at, size in enumerate((1, 16, 64, 256, 1024)):
            drawn = [questions.draw(min(64 * size, N), 10_000 + 100 * at + run) for run in range(runs)]
            rates = [len(items) / seconds_of(lambda i=items: ask(client, i, size))[0] for items in drawn]  # noqa: B023
            found["items_per_call"][size] = spread(rates)
        for at, callers in enumerate((1, 4, 16, 64)):
            drawn = [questions.draw(2 * N, 20_000 + 100 * at + run) for run in range(3)]
            rates = [len(items) / seconds_of(lambda i=items: ask(client, i, 64, callers))[0] for items in drawn]  # noqa: B023
            found["callers"][callers] = spread(rates)
    return found


def latency(questions: Questions, target: str) -> dict[str, Any]:
    """Milliseconds of a 512-item call, and of one item at half of the load at which single items saturate."""
    found: dict[str, Any] = {}
    with Client(target) as client:
        drawn = [questions.draw(512, 30_000 + i) for i in range(20)]
        for way in ("cold", "warm"):
            found[f"512 items, {way}"] = _quantiles([seconds_of(lambda i=i: ask(client, i, 512))[0] for i in drawn])
        singles = questions.draw(400, 40_000)
        found["one item, alone"] = _quantiles([seconds_of(lambda i=i: ask(client, [i], 1))[0] for i in singles])
        singles = questions.draw(800, 40_001)
        saturated_s, _ = seconds_of(lambda: ask(client, singles, 1, callers=16))
    rate = len(singles) / saturated_s
    found["one item, saturated, per s"] = round(rate)
    found["one item, half of that load"] = _quantiles(
        asyncio.run(_paced(target, questions.draw(800, 40_002), rate / 2))
    )
    return found


async def _paced(target: str, items: Sequence[ScoreItem], per_s: float) -> list[float]:
    """Single items that arrive at random (Poisson), whether or not earlier ones are answered."""
    choose = random.Random(0)
    async with AsyncClient(target) as client:

        async def one(item: ScoreItem) -> float:
            started = time.perf_counter()
            await client.score([item], RECIPE, with_evidence=False)
            return time.perf_counter() - started

        asked = []
        for item in items:
            asked.append(asyncio.ensure_future(one(item)))
            await asyncio.sleep(choose.expovariate(per_s))
        return (await asyncio.gather(*asked))[50:]


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(np.array(seconds) * 1000, (50, 99))
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def trainers(questions: Questions, target: str) -> dict[str, Any]:
    """Eight callers that ask at the same moment, step by step: how long the slowest of them waits."""
    asked: list[dict[str, str]] = []
    waits = []
    with Client(target) as client, ThreadPoolExecutor(TRAINERS) as pool:
        for step in range(TRAINER_STEPS):
            shares = [questions.step(TRAINER_ITEMS, 50_000 + 100 * step + one, asked) for one in range(TRAINERS)]
            seconds, _ = seconds_of(lambda: list(pool.map(lambda share: ask(client, share), shares)))  # noqa: B023
            waits.append(seconds)
    return {"callers": TRAINERS, "items_each": TRAINER_ITEMS, "steps": TRAINER_STEPS - 1, **_quantiles(waits[1:])}


def cpu_by_process(questions: Questions, target: str, state: str) -> dict[str, dict[str, float]]:
    """CPU of each process: µs per completion in cold 1,024-item calls and in warm ones, µs per call of one item."""
    found: dict[str, dict[str, float]] = {}

    def spent(key: str, n: int, work: Callable[[], Any]) -> None:
        before = processes_of(state) | {"client": {"cpu_s": time.process_time()}}
        work()
        after = processes_of(state) | {"client": {"cpu_s": time.process_time()}}
        for name, one in after.items():
            found.setdefault(name, {})[key] = round((one["cpu_s"] - before[name]["cpu_s"]) / n * 1e6, 1)

    with Client(target) as client:
        items = questions.draw(4 * N, 60_000)
        spent("cold", len(items), lambda: ask(client, items, 1024))
        spent("warm", len(items), lambda: ask(client, items, 1024))
        singles = questions.draw(600, 60_001)
        spent("call_of_one", len(singles), lambda: ask(client, singles, 1))
    return found


def main(
    runs: Annotated[int, typer.Option(help="Counted runs; one more warms up.")] = 5,
    port_base: Annotated[int, typer.Option(help="First of the ports to use.")] = 21500,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("benchmarks/results/speed.json"),
    markdown: Annotated[Path, typer.Option(help="Where the Markdown goes.")] = Path("benchmarks/results/speed.md"),
) -> None:
    """Measure all cases; write JSON and Markdown. About three minutes."""
    measured: dict[str, Any] = {"machine": machine(), "runs": runs, "recipe": RECIPE.name}
    store = ArtifactStore.default()
    questions = Questions(store)
    measured["simulated_screen"] = questions.is_simulated
    verifiers = {name: open_verifier(name, store) for name in NAMES}

    output.parent.mkdir(parents=True, exist_ok=True)

    def tell(case: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {case}", flush=True)
        output.write_text(json.dumps(measured, indent=2) + "\n")

    starts = []
    with running_stack(port_base) as (target, started):
        starts.append(started["seconds"])
        tell("race")
        measured["race"] = race(questions, verifiers, target, started["state"], port_base + 100, runs)
        tell("latency")
        measured["latency"] = latency(questions, target)
        tell("CPU by process")
        measured["cpu"] = cpu_by_process(questions, target, started["state"])
        measured["start"] = {"processes": started["processes"], "after_load": processes_of(started["state"])}
        tell("sizes and callers")
        measured["sizes"] = by_size(questions, target, runs)
        tell("gateway and streams")
        measured["doors"] = doors(questions, port_base, started["state"], runs)
        tell("trainers")
        measured["trainers"] = trainers(questions, target)
    tell("per core")
    measured["per_core"] = per_core(questions, verifiers)
    tell("stages")
    measured["stages"] = stage_table(questions, verifiers)
    tell("two workers each")
    with running_stack(port_base, workers=2) as (target, _), Client(target) as client:
        drawn = [questions.draw(N, 70_000 + i) for i in range(runs + 1)]
        rates = [len(i) / seconds_of(lambda i=i: ask(client, i, callers=4))[0] for i in drawn]
        measured["two_workers"] = spread(rates[1:])
    for _ in range(2):
        tell("start-up")
        with running_stack(port_base) as (_, started):
            starts.append(started["seconds"])
    measured["start"]["seconds"] = spread(starts, 2)
    tell("capacity")
    services = {
        name: capacity.Service(max(own["call_of_one"] - own["cold"], 0.0) / 1e6, own["cold"] / 1e6)
        for name, own in measured["cpu"].items()
        if name in (*NAMES, capacity.AGGREGATOR)
    }
    measured["capacity"] = [capacity.plan(n, services) for n in (1, 4, 16, 64)]
    tell("done")
    markdown.write_text(report.markdown(measured))
    print(f"Written: {output}, {markdown}")


if __name__ == "__main__":
    typer.run(main)
