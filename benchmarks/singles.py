"""One item at a time beside batches: what callers pay who cannot batch; in one run, if wanted against another checkout.

Frameworks that reward one rollout a call are the case: 64 of them at once, each with one call of one item under way.
Ways take turns within a round, on items that no earlier one has used; ratios are taken within a round, and the median
of the rounds counts, so that the machine's other work falls on all. The client is part of every figure.

``--against CHECKOUT`` does the same over a stack of another checkout, started from its own code beside this one's
(``--against-home``: artifacts that its code opens), turn about; the client is that checkout's too. It is asked its own
recipe `all`, and this one the same six verifiers, `all` without the `claims` that came later, unless a case says seven.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

CALLERS = 64
CALL = 256
SINGLES, BATCHED = 384, 1024
ALONE, PACED = 120, 300
# A stack also takes the ports from a thousand above on, for metrics.
PORT_BASE, OTHER_PORT_BASE = 22500, 25500


class Side:
    """A checkout's stack and client, asked by case. Lives in a process of its own, so imports are that checkout's."""

    def __init__(self, target: str, state: str, recipe: Any = "all") -> None:
        from benchmarks.items import Questions
        from bioverify.artifacts.store import ArtifactStore

        self.target, self.state, self.recipe = target, state, recipe
        self.questions = Questions(ArtifactStore.default())

    def rate(self, work: Callable[[], int]) -> dict[str, float]:
        """Completions a second, and the CPU of each in all processes; ``work`` returns how many there were."""
        from benchmarks.measuring import cpu_of_all

        before_s, started = cpu_of_all(self.state), time.perf_counter()
        n = work()
        seconds = time.perf_counter() - started
        return {"per_s": n / seconds, "cpu_us": (cpu_of_all(self.state) - before_s) / n * 1e6}

    def singles(self, seed: int, callers: int = CALLERS, recipe: Any = None) -> dict[str, float]:
        items = self.questions.draw(SINGLES, seed)
        return self.rate(lambda: len(asyncio.run(self._one_by_one(items, callers, recipe or self.recipe))))

    def batches(self, seed: int, callers: int, recipe: Any = None) -> dict[str, float]:
        from bioverify.client import Client

        items = self.questions.draw(BATCHED, seed)
        calls = [items[start : start + CALL] for start in range(0, BATCHED, CALL)]
        with Client(self.target) as client, ThreadPoolExecutor(callers) as pool:

            def one(call: Sequence[Any]) -> int:
                return len(client.score(call, recipe or self.recipe, deadline_s=240, with_evidence=False).rewards)

            return self.rate(lambda: sum(pool.map(one, calls)))

    def alone(self, seed: int) -> dict[str, float]:
        """Milliseconds of a call that has the stack to itself."""
        return _quantiles(asyncio.run(self._one_by_one(self.questions.draw(ALONE, seed), 1, self.recipe))[10:])

    def paced(self, seed: int, per_s: float) -> dict[str, float]:
        """Milliseconds of calls that arrive at random (Poisson), whether or not earlier ones are answered."""
        return _quantiles(asyncio.run(self._paced(self.questions.draw(PACED, seed), per_s))[50:])

    async def _one_by_one(self, items: Sequence[Any], callers: int, recipe: Any) -> list[float]:
        from bioverify.client import AsyncClient

        left = iter(items)
        seconds: list[float] = []
        async with AsyncClient(self.target) as client:

            async def caller() -> None:
                for item in left:
                    started = time.perf_counter()
                    await client.score([item], recipe, deadline_s=240, with_evidence=False)
                    seconds.append(time.perf_counter() - started)

            await asyncio.gather(*(caller() for _ in range(callers)))
        return seconds

    async def _paced(self, items: Sequence[Any], per_s: float) -> list[float]:
        from bioverify.client import AsyncClient

        choose = random.Random(0)
        async with AsyncClient(self.target) as client:

            async def one(item: Any) -> float:
                started = time.perf_counter()
                await client.score([item], self.recipe, deadline_s=240, with_evidence=False)
                return time.perf_counter() - started

            asked = []
            for item in items:
                asked.append(asyncio.ensure_future(one(item)))
                await asyncio.sleep(choose.expovariate(per_s))
            return list(await asyncio.gather(*asked))


class Here(Side):
    """This checkout's, with what only it is asked: the rivals, fewer verifiers, JSON, the transport alone."""

    def __init__(self, target: str, state: str, rivals: dict[str, str], gateway: str, nothing: str) -> None:
        from benchmarks.rivals import all_but

        super().__init__(target, state, all_but("claims"))
        self.rivals, self.gateway, self.nothing = rivals, gateway, nothing

    def http(self, seed: int, call_size: int) -> dict[str, float]:
        from benchmarks.rivals import over_http

        items = self.questions.draw(CALL if call_size == 1 else BATCHED, seed)
        return self.rate(lambda: len(over_http(items, self.rivals, call_size)))

    def five(self, seed: int, callers: int, *, one_item: bool = False) -> dict[str, float]:
        """The recipe without `analogy` and `claims`, which the rivals do not serve."""
        from benchmarks.rivals import RECIPE as FIVE

        return self.singles(seed, callers, FIVE) if one_item else self.batches(seed, callers, FIVE)

    def seven(self, seed: int, callers: int, *, one_item: bool = False) -> dict[str, float]:
        """With `claims`."""
        return self.singles(seed, callers, "all") if one_item else self.batches(seed, callers, "all")

    def json(self, seed: int) -> dict[str, float]:
        import httpx

        from benchmarks.doors import over_json

        items = self.questions.draw(BATCHED, seed)
        with httpx.Client(base_url=self.gateway, timeout=240) as http:
            return self.rate(lambda: over_json(http, items))

    def transport(self, seed: int, callers: int) -> dict[str, float]:
        """Verifiers that return a constant, behind the real runtime and aggregator."""
        target, self.target = self.target, self.nothing
        try:
            return self.five(seed, callers)
        finally:
            self.target = target


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000}


def serve() -> None:
    """A `Side` as a program: its stack on the ports of the other; a line of JSON in, one out."""
    from benchmarks.measuring import running_stack

    with running_stack(OTHER_PORT_BASE) as (target, started):
        side = Side(target, started["state"])
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            case, arguments = json.loads(line)
            print(json.dumps(getattr(side, case)(*arguments)), flush=True)


@contextmanager
def other_side(checkout: Path, home: Path) -> Iterator[Callable[..., Any]]:
    """Asks the other checkout's `Side`: its case, then the arguments."""
    paths = os.pathsep.join(str(checkout / part) for part in ("services", "trainer", "."))
    environment = {**os.environ, "PYTHONPATH": paths, "BIOVERIFY_HOME": str(home)}
    command = [sys.executable, __file__, "--serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, cwd=checkout, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def answer() -> Any:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the stack of {checkout} ended; what it said is above")
            return json.loads(line)

        def ask(case: str, *arguments: Any) -> Any:
            assert process.stdin is not None
            process.stdin.write(json.dumps([case, arguments]) + "\n")
            process.stdin.flush()
            return answer()

        answer()
        yield ask
        process.stdin.close()


def one_round(here: Here, there: Callable[..., Any] | None, number: int) -> dict[str, dict[str, float]]:
    """Every case once: name → what was measured."""
    seed = 200_000 + 100 * number
    found: dict[str, dict[str, float]] = {}
    for seeds in (seed, seed):
        # The second time all of it is remembered.
        way = "cold" if f"one item, {CALLERS} callers, cold" not in found else "warm"
        found[f"one item, {CALLERS} callers, {way}"] = here.singles(seeds)
        if there:
            found[f"256 items, 4 callers, {way}, there"] = there("batches", seeds + 1, 4)
        found[f"256 items, 4 callers, {way}"] = here.batches(seeds + 1, 4)
        if there:
            found[f"one item, {CALLERS} callers, {way}, there"] = there("singles", seeds)
    found["256 items, 4 callers, cold, five verifiers"] = here.five(seed + 2, 4)
    found["256 items, 4 callers, cold, seven verifiers"] = here.seven(seed + 12, 4)
    found[f"one item, {CALLERS} callers, cold, seven verifiers"] = here.seven(seed + 13, CALLERS, one_item=True)
    found["HTTP, one item"] = here.http(seed + 3, 1)
    found[f"one item, {CALLERS} callers, cold, five verifiers"] = here.five(seed + 4, CALLERS, one_item=True)
    found["HTTP, 256 items"] = here.http(seed + 5, CALL)
    found["256 items, one caller, cold, five verifiers"] = here.five(seed + 6, 1)
    found["gateway, JSON, 256 items, cold, five verifiers"] = here.json(seed + 7)
    found["transport alone, 4 callers"] = here.transport(seed + 8, 4)
    found["one item, 16 callers, cold"] = here.singles(seed + 9, 16)
    half = found["one item, 16 callers, cold"]["per_s"] / 2
    found["one item, alone"] = here.alone(seed + 10)
    if there:
        found["one item, alone, there"] = there("alone", seed + 10)
    found["one item, at half of that load"] = here.paced(seed + 11, half)
    if there:
        found["one item, 16 callers, cold, there"] = there("singles", seed + 9, 16)
        own_half = found["one item, 16 callers, cold, there"]["per_s"] / 2
        found["one item, at half of that load, there"] = there("paced", seed + 11, own_half)
    return found


Round = dict[str, dict[str, float]]
ONE = f"one item, {CALLERS} callers"


def _per(figure: str, above: str, below: str) -> Callable[[Round], float]:
    return lambda found: found[above][figure] / found[below][figure]


# What is told, the ratio within a round, and its target: at least, or at most if negative.
RATIOS: list[tuple[str, Callable[[Round], float], float]] = [
    (f"{ONE}, cold ÷ 256 items there", _per("per_s", f"{ONE}, cold", "256 items, 4 callers, cold, there"), 0.5),
    (f"{ONE}, warm ÷ 256 items there", _per("per_s", f"{ONE}, warm", "256 items, 4 callers, warm, there"), 0.4),
    (f"{ONE}, cold ÷ 256 items", _per("per_s", f"{ONE}, cold", "256 items, 4 callers, cold"), 0.5),
    (f"{ONE}, warm ÷ 256 items", _per("per_s", f"{ONE}, warm", "256 items, 4 callers, warm"), 0.4),
    (f"{ONE}, cold ÷ the same there", _per("per_s", f"{ONE}, cold", f"{ONE}, cold, there"), 1),
    (f"{ONE}, five verifiers ÷ HTTP, one item", _per("per_s", f"{ONE}, cold, five verifiers", "HTTP, one item"), 8),
    ("one item alone ÷ there, p50", _per("p50_ms", "one item, alone", "one item, alone, there"), -0.6),
    ("half load ÷ alone, p50", _per("p50_ms", "one item, at half of that load", "one item, alone"), -1.5),
    ("half load ÷ alone, p99", _per("p99_ms", "one item, at half of that load", "one item, alone"), -4),
    (
        "256 items, five verifiers ÷ HTTP, 256 items",
        _per("per_s", "256 items, one caller, cold, five verifiers", "HTTP, 256 items"),
        1,
    ),
    (
        "256 items, 4 callers, six verifiers ÷ five",
        _per("per_s", "256 items, 4 callers, cold", "256 items, 4 callers, cold, five verifiers"),
        0.8,
    ),
    (
        "256 items, 4 callers, seven verifiers ÷ six",
        _per("per_s", "256 items, 4 callers, cold, seven verifiers", "256 items, 4 callers, cold"),
        0.8,
    ),
    (
        "256 items, 4 callers ÷ the same there",
        _per("per_s", "256 items, 4 callers, cold", "256 items, 4 callers, cold, there"),
        0.95,
    ),
    (
        "256 items, 4 callers, warm ÷ the same there",
        _per("per_s", "256 items, 4 callers, warm", "256 items, 4 callers, warm, there"),
        0.95,
    ),
    (
        "gateway, JSON ÷ gRPC, 256 items, one caller",
        _per("per_s", "gateway, JSON, 256 items, cold, five verifiers", "256 items, one caller, cold, five verifiers"),
        0.8,
    ),
    ("transport alone, µs of CPU", lambda found: found["transport alone, 4 callers"]["cpu_us"], -150),
]


def markdown(rounds: Sequence[Round]) -> str:
    """Ratios with their targets, then the figures themselves: medians, least and most of the rounds."""
    lines = ["| ratio within a round | target | median (min–max) |", "|---|---|---|"]
    for name, ratio, target in RATIOS:
        try:
            values = [ratio(found) for found in rounds]
        except KeyError:  # No other checkout was asked.
            continue
        sign = "≥" if target > 0 else "≤"
        lines.append(f"| {name} | {sign} {abs(target):g} | {_spread(values)} |")
    lines += ["", "| case | completions/s, or p50, ms | CPU µs, or p99, ms |", "|---|---|---|"]
    for case, first in rounds[0].items():
        told = [_spread([found[case][figure] for found in rounds]) for figure in first]
        lines.append(f"| {case} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    shown = [statistics.median(values), min(values), max(values)]
    digits = 2 if max(values) < 20 else 0
    median, least, most = (f"{value:,.{digits}f}" for value in shown)
    return f"{median} ({least}–{most})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout, asked turn about with this one")
    parser.add_argument("--against-home", type=Path, help="BIOVERIFY_HOME of its artifacts")
    parser.add_argument("--rounds", type=int, default=5, help="counted ones (5); one more warms up")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/singles.json"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return

    from benchmarks import constant, rivals
    from benchmarks.measuring import machine, running_stack
    from bioverify.ports import GATEWAY_OFFSET, HOST

    measured: dict[str, Any] = {"machine": machine(), "rounds": []}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        target, started = stack.enter_context(running_stack(PORT_BASE))
        ours = stack.enter_context(rivals.servers(PORT_BASE + 100, "ours"))
        nothing = stack.enter_context(constant.running(PORT_BASE + 120))
        gateway = f"http://{HOST}:{PORT_BASE + GATEWAY_OFFSET}"
        here = Here(target, started["state"], ours, gateway, nothing)
        there = None
        if options.against:
            home = options.against_home or Path(os.environ["BIOVERIFY_HOME"])
            there = stack.enter_context(other_side(options.against.resolve(), home))
        for number in range(options.rounds + 1):
            found = one_round(here, there, number)
            print(f"{time.strftime('%H:%M:%S')} round {number} of {options.rounds}", flush=True)
            if number > 0:
                measured["rounds"].append(found)
                # Kept as it comes, so that a run that is cut short leaves what it has.
                options.output.write_text(json.dumps(measured, indent=2) + "\n")
    table = markdown(measured["rounds"])
    options.output.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
