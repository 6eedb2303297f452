"""How many replicas N trainers need: a queueing simulation (simpy), fed with measured service times.

Each trainer generates for a while (normal, a tenth as standard deviation), then asks for the rewards of all completions
of its step at once, in calls of 1,024 as the client cuts them, and waits for the last. A call goes to the aggregator
(half of its time before, half after), in between to all verifiers at the same time. Replicas have one core each and
one queue together, and serve calls in order; a call of n items takes ``fixed + each · n`` of CPU, as measured. Not in
the model: the network (0.3 ms a call on one machine), repeated texts, failures, and that gRPC deals calls out without
knowing the queues, which costs some waiting at high load.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

COMPLETIONS, CALL = 4096, 1024
GENERATION_S = 30.0
TARGET_SHARE = 0.01
STEPS = 10
AGGREGATOR = "aggregator"


@dataclass(frozen=True)
class Service:
    """Seconds of CPU: ``fixed`` per call, ``each`` per completion of the call."""

    fixed: float
    each: float

    def seconds(self, items: int) -> float:
        return self.fixed + self.each * items


def waits_s(n_trainers: int, replicas: Mapping[str, int], services: Mapping[str, Service]) -> list[float]:
    """How long the trainers waited for rewards, per trainer and step, without the first steps, which start together."""
    rng = np.random.default_rng(0)
    world = simpy.Environment()
    queues = {name: simpy.Resource(world, replicas[name]) for name in services}
    waits: list[float] = []

    def work(name: str, seconds: float) -> Generator[Any, Any, None]:
        with queues[name].request() as turn:
            yield turn
            yield world.timeout(seconds)

    def call() -> Generator[Any, Any, None]:
        half = services[AGGREGATOR].seconds(CALL) / 2
        yield world.process(work(AGGREGATOR, half))
        asked = [world.process(work(name, one.seconds(CALL))) for name, one in services.items() if name != AGGREGATOR]
        yield world.all_of(asked)
        yield world.process(work(AGGREGATOR, half))

    def trainer() -> Generator[Any, Any, None]:
        yield world.timeout(rng.uniform(0, GENERATION_S))
        for step in range(STEPS):
            yield world.timeout(max(0.0, rng.normal(GENERATION_S, GENERATION_S / 10)))
            asked_at = world.now
            yield world.all_of([world.process(call()) for _ in range(COMPLETIONS // CALL)])
            if step >= STEPS // 10:
                waits.append(world.now - asked_at)

    for _ in range(n_trainers):
        world.process(trainer())
    world.run()
    return waits


def plan(n_trainers: int, services: Mapping[str, Service]) -> dict[str, Any]:
    """Replicas with which the mean wait is below a hundredth of a step: ever one more where it is busiest.

    Where a call alone takes longer than that, the target is a fifth more than a call alone.
    """
    per_step = {name: COMPLETIONS // CALL * one.seconds(CALL) for name, one in services.items()}
    verifiers = [one.seconds(CALL) for name, one in services.items() if name != AGGREGATOR]
    alone = services[AGGREGATOR].seconds(CALL) + max(verifiers)
    target = max(TARGET_SHARE * GENERATION_S, 1.2 * alone)
    rate = n_trainers / GENERATION_S
    replicas = {name: max(1, math.ceil(rate * seconds)) for name, seconds in per_step.items()}
    while True:
        waits = waits_s(n_trainers, replicas, services)
        if np.mean(waits) <= target:
            break
        slowest = max(services, key=lambda name: per_step[name] / replicas[name])
        # Beyond one replica per call of a step and trainer there is nothing left to gain.
        if replicas[slowest] >= n_trainers * COMPLETIONS // CALL:
            break
        replicas[slowest] += 1
    return {
        "trainers": n_trainers,
        "completions_per_s": round(n_trainers * COMPLETIONS / GENERATION_S),
        "replicas": replicas,
        "cores": sum(replicas.values()),
        "mean_wait_s": round(float(np.mean(waits)), 3),
        "p95_wait_s": round(float(np.percentile(waits, 95)), 3),
    }
