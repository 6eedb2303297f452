"""Completions per second through the whole stack, cold and warm, beside the same verifiers called in process.

Per run, on items that no earlier run has used: the in-process way (read, score with the five verifiers in turn,
compose), then the same items through client, aggregator, Valkey and the five services with nothing cached, then once
more with everything cached. The ways take turns within a run, so their ratios hold on a machine whose speed drifts.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.items import Questions
from bioverify import recipes
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import open_verifier
from bioverify.client import Client, ScoreItem
from bioverify.client.messages import item_to_wire
from bioverify.core.answers import ParseMode
from bioverify.core.rewards import Row, compose
from bioverify.core.verifier import Reads, Verifier
from bioverify.wire.tasks import read_item

RECIPE = "all"
CALL_SIZE = 256
EVERYTHING = Reads.TASK | Reads.ANSWER | Reads.COMPLETION


def score_in_process(items: Sequence[ScoreItem], verifiers: dict[str, Verifier]) -> list[float | None]:
    """What the services do, without services: read each item once, ask each verifier, compose."""
    read = [read_item(item_to_wire(item), ParseMode.WHOLE_WORDS, EVERYTHING) for item in items]
    outcomes = {name: verifier.score(read, with_evidence=False) for name, verifier in verifiers.items()}
    rows = [
        Row(item.group_id, "", one.task.kind if one.task else None, {name: outcomes[name][i] for name in verifiers})
        for i, (item, one) in enumerate(zip(items, read, strict=True))
    ]
    return [reward.reward for reward in compose(recipes.load(RECIPE), rows)]


@contextmanager
def running_stack(port_base: int) -> Iterator[str]:
    """A stack of its own state folder on its own ports, over the artifacts that are there."""
    with tempfile.TemporaryDirectory() as state:
        environment = {**os.environ, "BIOVERIFY_STATE": state}
        base = ["--port-base", str(port_base)]
        bioverify = [sys.executable, "-m", "bioverify.cli"]
        subprocess.run([*bioverify, "up", *base], check=True, env=environment)
        try:
            yield f"127.0.0.1:{port_base}"
        finally:
            subprocess.run([*bioverify, "down"], check=True, env=environment)


def timed(work: Callable[[], list[float | None]]) -> tuple[float, list[float | None]]:
    started = time.perf_counter()
    rewards = work()
    return time.perf_counter() - started, rewards


def through_stack(client: Client, items: Sequence[ScoreItem]) -> list[float | None]:
    rewards: list[float | None] = []
    for start in range(0, len(items), CALL_SIZE):
        batch = client.score(items[start : start + CALL_SIZE], RECIPE, with_evidence=False)
        rewards += [reward.reward for reward in batch.rewards]
    return rewards


def summary(seconds: Sequence[float], n_items: int) -> dict[str, float]:
    rates = sorted(n_items / s for s in seconds)
    return {"median": round(statistics.median(rates), 1), "min": round(rates[0], 1), "max": round(rates[-1], 1)}


def main(
    n_items: Annotated[int, typer.Option(help="Items per run and way.")] = 1024,
    runs: Annotated[int, typer.Option(help="Counted runs; one more warms up.")] = 5,
    port_base: Annotated[int, typer.Option(help="First of the ports to use.")] = 51500,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("benchmarks/results/throughput.json"),
) -> None:
    """Print a Markdown table and write JSON."""
    store = ArtifactStore.default()
    questions = Questions(store)
    verifiers = {name: open_verifier(name, store) for name in recipes.load(RECIPE).verifiers}
    seconds: dict[str, list[float]] = {"in process": [], "stack, cold": [], "stack, warm": []}
    with running_stack(port_base) as target, Client(target) as client:
        for run in track(range(runs + 1), description="Runs"):
            items = questions.draw(n_items, seed=run)
            alone_s, alone = timed(lambda items=items: score_in_process(items, verifiers))  # type: ignore[misc]
            cold_s, cold = timed(lambda items=items: through_stack(client, items))  # type: ignore[misc]
            warm_s, warm = timed(lambda items=items: through_stack(client, items))  # type: ignore[misc]
            if not alone == cold == warm:
                raise SystemExit("the three ways do not give the same rewards; their speed is of no interest")
            if run > 0:
                for way, one in zip(seconds, (alone_s, cold_s, warm_s), strict=True):
                    seconds[way].append(one)

    rates = {way: summary(values, n_items) for way, values in seconds.items()}
    ratios = {
        way: round(statistics.median(a / b for a, b in zip(seconds["in process"], seconds[way], strict=True)), 2)
        for way in seconds
    }
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    report = {
        "machine": machine,
        "items_per_run": n_items,
        "items_per_call": CALL_SIZE,
        "runs": runs,
        "recipe": RECIPE,
        "simulated_screen": questions.is_simulated,
        "completions_per_s": rates,
        "times_in_process": ratios,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{machine}; {runs} runs of {n_items} completions, {CALL_SIZE} a call, recipe {RECIPE}, no evidence\n")
    print("| way | completions/s, median (min–max) | × in process |\n|---|---|---|")
    for way, rate in rates.items():
        print(f"| {way} | {rate['median']:,.0f} ({rate['min']:,.0f}–{rate['max']:,.0f}) | {ratios[way]:.2f} |")
    print(f"\nWritten: {output}")


if __name__ == "__main__":
    typer.run(main)
