"""Overload, SIGTERM under load, Redis gone, a black hole: what they cost, as ratios within one run.

Capacity is that of a verifier that sleeps, so that what is measured is the policy of the services and not the speed of
a machine that the load generator shares with them. Prints a table and writes reports/load.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bioverify.client import ScoreItem
from bioverify.client.messages import item_to_wire, score_request
from bioverify.core.recipes import Recipe
from bioverify.transport.channels import CHANNEL_OPTIONS
from bioverify.v1 import reward_pb2_grpc
from tests.fixtures import servers
from tests.fixtures.proxy import proxied
from tests.fixtures.rewards import item, optional, recipe, required

CALL_ITEMS, WORK_S = 64, 0.05
DEADLINE_S = 5.0
REPORT = Path("reports/load.json")


def call(seed: int) -> list[ScoreItem]:
    return [item(f"{seed}-{i}", f"A{seed}", f"B{i}", group_id=f"{seed}-{i // 8}") for i in range(CALL_ITEMS)]


def p(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Load:
    """Calls at a rate, each on its own, whatever became of the earlier ones."""

    def __init__(self, target: str, asked: Recipe) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._stub = reward_pb2_grpc.RewardServiceStub(self._channel)
        self._recipe = asked
        self.ends: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {}

    async def one(self, seed: int, deadline_s: float = DEADLINE_S) -> None:
        request = score_request(list(map(item_to_wire, call(seed))), self._recipe, with_evidence=False)
        started = time.monotonic()
        try:
            reply = await self._stub.ScoreBatch(request, timeout=deadline_s)
            scored = sum(reward.HasField("reward") for reward in reply.rewards)
            end = "OK" if scored == CALL_ITEMS else "unscorable"
        except grpc.aio.AioRpcError as error:
            end = error.code().name
        self.ends[end] += 1
        self.seconds.setdefault(end, []).append(time.monotonic() - started)

    async def offer(self, calls_per_s: float, for_s: float, first_seed: int) -> float:
        """Calls per second that were scored."""
        tasks, started = [], time.monotonic()
        for number in range(int(calls_per_s * for_s)):
            await asyncio.sleep(max(0.0, started + number / calls_per_s - time.monotonic()))
            tasks.append(asyncio.create_task(self.one(first_seed + number)))
        offered_s = time.monotonic() - started
        await asyncio.gather(*tasks)
        return self.ends["OK"] / max(offered_s, time.monotonic() - started)

    async def close(self) -> None:
        await self._channel.close()


async def health_seconds(target: str, stop: asyncio.Event) -> list[float]:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its published types lack the methods
        seconds: list[float] = []
        while not stop.is_set():
            started = time.monotonic()
            await stub.Check(health_pb2.HealthCheckRequest(service=servers.REWARD_SERVICE), timeout=5)
            seconds.append(time.monotonic() - started)
            await asyncio.sleep(0.05)
        return seconds


async def overload() -> dict[str, Any]:
    """Four times what can be done, for six seconds."""
    asked = recipe(required("lookup"))
    limit = 10 * CALL_ITEMS
    with (
        servers.verifier("Lookup", parameters={"delay_s": WORK_S}) as verifier,
        servers.aggregator({"lookup": verifier.target}, max_items=CALL_ITEMS, max_items_in_flight=limit) as aggregator,
    ):
        closed = Load(aggregator.target, asked)
        started = time.monotonic()

        async def worker(number: int) -> None:
            for round_ in range(10):
                await closed.one(1_000_000 + 100 * number + round_)

        await asyncio.gather(*(worker(number) for number in range(8)))
        capacity = closed.ends["OK"] / (time.monotonic() - started)
        await closed.close()
        load, stop = Load(aggregator.target, asked), asyncio.Event()
        checks = asyncio.create_task(health_seconds(aggregator.target, stop))
        goodput = await load.offer(4 * capacity, 6, 0)
        stop.set()
        health = await checks
        refused = load.seconds.get("RESOURCE_EXHAUSTED", [0.0])
        await load.close()
    return {
        "capacity_calls_per_s": round(capacity, 1),
        "offered": "4 × capacity",
        "goodput_of_capacity": round(goodput / capacity, 3),
        "ends": dict(load.ends),
        "refused_after_ms_median": round(1000 * statistics.median(refused), 1),
        "accepted_after_ms_p99": round(1000 * p(load.seconds["OK"], 0.99), 1),
        "health_ms_median": round(1000 * statistics.median(health), 1),
        "health_ms_p99": round(1000 * p(health, 0.99), 1),
        "health_ms_max": round(1000 * max(health), 1),
    }


async def sigterm() -> dict[str, Any]:
    """SIGTERM while twelve calls are under way; a call is accepted where the service has counted it in."""
    asked = recipe(required("lookup"))
    with (
        servers.verifier("Lookup", parameters={"delay_s": WORK_S}) as verifier,
        servers.aggregator({"lookup": verifier.target}) as aggregator,
    ):
        load = Load(aggregator.target, asked)
        await load.one(0)
        calls = [asyncio.create_task(load.one(number)) for number in range(1, 13)]
        await asyncio.sleep(0.15)
        started = time.monotonic()
        aggregator.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*calls)
        code = await asyncio.to_thread(aggregator.process.wait, 20)
        gone_s = time.monotonic() - started
        await load.close()
    return {
        "calls": 12,
        "ends": dict(load.ends - Counter({"OK": 1})),
        "exit_code": code,
        "gone_after_s": round(gone_s, 2),
    }


async def redis_gone() -> dict[str, Any]:
    """Calls per second with a cold cache and with no Redis, in turns, on questions never asked before."""
    asked = recipe(required("lookup"), optional("text"))
    rates: dict[str, list[float]] = {"cold": [], "gone": []}
    ends: Counter[str] = Counter()
    with servers.verifier("Lookup") as lookup, servers.verifier("Text") as text, servers.valkey() as url:
        targets, nowhere = {"lookup": lookup.target, "text": text.target}, f"redis://127.0.0.1:{servers.free_port()}"
        with servers.aggregator(targets, redis_url=url) as cold, servers.aggregator(targets, redis_url=nowhere) as gone:
            for round_ in range(6):
                for name, service in (("cold", cold), ("gone", gone)):
                    load = Load(service.target, asked)
                    await load.one(10_000 * round_)
                    started = time.monotonic()
                    for start in range(1, 81, 8):
                        await asyncio.gather(*(load.one(10_000 * round_ + start + i) for i in range(8)))
                    rates[name].append(80 / (time.monotonic() - started))
                    ends += load.ends
                    await load.close()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {"throughput_of_cold_cache": round(medians["gone"] / medians["cold"], 2), "ends": dict(ends)}


async def black_hole() -> dict[str, Any]:
    """64-item calls while one optional verifier takes bytes and never answers."""
    asked, deadline_s = recipe(required("text"), optional("lookup")), 1.0
    with (
        servers.verifier("Lookup", listen=f"127.0.0.1:{servers.free_port()}") as lookup,
        servers.verifier("Text") as text,
        proxied(lookup.target) as proxy,
        servers.aggregator({"lookup": proxy.target, "text": text.target}, describe_ttl_s=1.0) as aggregator,
    ):
        load = Load(aggregator.target, asked)
        for seed in range(60):
            await load.one(seed, deadline_s)
        healthy = load.seconds["OK"][10:]
        proxy.set(is_black_hole=True)
        holed = []
        for seed in range(100, 150):
            started = time.monotonic()
            await load.one(seed, deadline_s)
            holed.append(time.monotonic() - started)
        ends = dict(load.ends)
        await load.close()
    late = holed[len(holed) // 2 :]
    return {
        "deadline_ms": 1000 * deadline_s,
        "healthy_p99_ms": round(1000 * p(healthy, 0.99), 1),
        "first_calls_max_ms": round(1000 * max(holed[:10]), 1),
        "p99_ms_of_the_last_half": round(1000 * p(late, 0.99), 1),
        "ends": ends,
    }


MEASUREMENTS = {"overload": overload, "sigterm": sigterm, "redis gone": redis_gone, "black hole": black_hole}


def main() -> None:
    report: dict[str, Any] = {}
    for name, measure in MEASUREMENTS.items():
        report[name] = asyncio.run(measure())
        print(f"{name}\n" + "".join(f"  {key}: {value}\n" for key, value in report[name].items()), flush=True)
    write(report)


def write(report: dict[str, Any]) -> None:
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report | {"load_average": round(os.getloadavg()[0], 1)}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
