"""What goes wrong while the job runs, one function per scenario, by name in `SCENARIOS`.

A scenario is a generator over the system: before its first ``yield`` it prepares, each ``yield`` is a moment of the
job (some tenths of a second later, drawn from the seed), and what it leaves behind is healed afterwards by the suite.
"""

from __future__ import annotations

import itertools
import random
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bioverify.cli.services import VERIFIERS
from tests.fault.rogue import LIES, rogue
from tests.fault.system import AGGREGATOR, VALKEY, System
from tests.fixtures.caches import cluster_node, watched_primary
from tests.fixtures.servers import free_port
from tests.fixtures.waiting import wait_until

Disturbance = Iterator[None]
CLOCK_SOURCE = Path(__file__).parent / "clock.c"


@dataclass(frozen=True)
class Scenario:
    """``starts_cold``: nothing is in the cache when the job starts, so that verifiers are asked.

    ``fresh_connections``: each call of the job has a connection of its own. ``may_fail``: an outcome may be `Failed`,
    as a verifier is disturbed; whatever happens to the cache costs none.
    """

    disturb: Callable[[System, random.Random], Disturbance]
    starts_cold: bool = True
    fresh_connections: bool = False
    moments: int = 3
    may_fail: bool = True


def _nothing(system: System, draw: random.Random) -> Disturbance:
    yield


def _ended(names: tuple[str, ...], number: int) -> Callable[[System, random.Random], Disturbance]:
    def disturb(system: System, draw: random.Random) -> Disturbance:
        queue: list[str] = []
        while True:
            yield
            if not queue:
                queue = draw.sample(names, len(names))
            program = system.programs[queue.pop()]
            # Killed again and again while it starts, it would never serve.
            program.wait_until_ready()
            time.sleep(draw.uniform(0, 2))
            program.end(number)
            time.sleep(draw.uniform(0, 0.3))
            program.start()

    return disturb


def _stopped(names: tuple[str, ...]) -> Callable[[System, random.Random], Disturbance]:
    def disturb(system: System, draw: random.Random) -> Disturbance:
        while True:
            yield
            program = system.programs[draw.choice(names)]
            program.send(signal.SIGSTOP)
            time.sleep(draw.uniform(0.3, 2.5))
            program.send(signal.SIGCONT)

    return disturb


def _proxied(name: str, **faults: float | bool | tuple[int, int]) -> Callable[[System, random.Random], Disturbance]:
    """The faults hold from the start to the end of the job."""

    def disturb(system: System, draw: random.Random) -> Disturbance:
        system.proxies[name].set(**faults)
        while True:
            yield

    return disturb


def _resets_everywhere(system: System, draw: random.Random) -> Disturbance:
    """One in ten connections of the job dies mid-message; those to verifiers and Valkey are few, so all do in turn."""
    system.proxies[AGGREGATOR].set(reset_share=0.1)
    for name in (*VERIFIERS, VALKEY):
        system.proxies[name].set(reset_share=0.1)
        system.proxies[name].reset_all()
    of_job = system.proxies[AGGREGATOR]
    resets, connections = of_job.resets, of_job.connections
    try:
        while True:
            yield
            system.proxies[draw.choice((*VERIFIERS, VALKEY))].reset_all()
    finally:
        due = of_job.connections - connections > 10
        assert of_job.resets > resets or not due, "no connection of the job was reset: nothing was tested"


def _latency_five_fold(system: System, draw: random.Random) -> Disturbance:
    """A healthy call of 256 items takes about 50 ms at one verifier."""
    system.proxies["experimental"].set(latency_s=0.1, jitter_s=0.05)
    while True:
        yield


def _black_hole(system: System, draw: random.Random) -> Disturbance:
    while True:
        system.proxies["experimental"].set(is_black_hole=True)
        yield
        system.proxies["experimental"].heal()
        system.proxies["experimental"].reset_all()
        yield


def _half_open(name: str) -> Callable[[System, random.Random], Disturbance]:
    """An odd number of moments leaves the path whole."""

    def disturb(system: System, draw: random.Random) -> Disturbance:
        while True:
            system.proxies[name].set(is_half_open=True)
            yield
            system.proxies[name].heal()
            yield

    return disturb


def _redis_gone(system: System, draw: random.Random) -> Disturbance:
    system.programs[VALKEY].end(signal.SIGKILL)
    while True:
        yield


def _redis_full(system: System, draw: random.Random) -> Disturbance:
    connection = system.redis()
    connection.config_set("maxmemory-policy", "noeviction")
    connection.config_set("maxmemory", 3_000_000)
    try:
        while True:
            yield
    finally:
        connection.config_set("maxmemory", 0)


def _redis_slow(system: System, draw: random.Random) -> Disturbance:
    connection = system.redis()
    while True:
        connection.execute_command("CLIENT", "PAUSE", 600, "ALL")
        yield


def _redis_read_only(system: System, draw: random.Random) -> Disturbance:
    """As after a failover: a replica of a primary that is not there, and answers reads."""
    connection = system.redis()
    try:
        while True:
            connection.execute_command("REPLICAOF", "127.0.0.1", 1)
            yield
            connection.execute_command("REPLICAOF", "NO", "ONE")
            yield
    finally:
        connection.execute_command("REPLICAOF", "NO", "ONE")


def _redis_poisoned(system: System, draw: random.Random) -> Disturbance:
    """Random bytes, cut values, values of other keys, and the message alone, as a schema without checksum had it."""
    connection = system.redis()
    while True:
        keys = list(connection.scan_iter(count=5000))
        draw.shuffle(keys)
        keys = keys[: max(1, len(keys) // 2)]
        values = dict(zip(keys, connection.mget(keys), strict=True)) if keys else {}
        present = [(key, value) for key, value in values.items() if value]
        pipeline = connection.pipeline(transaction=False)
        for (key, value), (_, other) in zip(present, present[1:] + present[:1], strict=True):
            spoilt = draw.choice([draw.randbytes(len(value)), value[: len(value) // 2], other, value[9:], b""])
            pipeline.set(key, spoilt, ex=600)
        pipeline.execute()
        yield


def _rogue_verifier(name: str, *, is_newer: bool = False) -> Callable[[System, random.Random], Disturbance]:
    """It lies in half of its replies; a newer one is honest, and names a field to read that this aggregator does not
    know, so that its answers may be about something else."""

    def disturb(system: System, draw: random.Random) -> Disturbance:
        honest = system.programs[name].target
        share = 0.0 if is_newer else 0.5
        with rogue(honest, share=share, seed=draw.randrange(1000), is_newer=is_newer) as (target, servicer):
            system.proxies[name].upstream = target
            system.proxies[name].reset_all()
            try:
                while True:
                    yield
            finally:
                system.proxies[name].upstream = honest
                system.proxies[name].reset_all()
                tested = servicer.described if is_newer else servicer.told
                assert tested, f"{name} told none of {sorted(LIES)}, or nobody asked what it reads: nothing was tested"

    return disturb


@contextmanager
def _cached_at(system: System, url: str, *more: str) -> Iterator[None]:
    """The aggregator with this cache, by the words of its command line, in the place of its own."""
    aggregator = system.aggregator
    own = aggregator.command
    at = own.index("--redis-url") + 1
    aggregator.command = [*own[:at], url, *own[at + 1 :], *more]
    aggregator.end(signal.SIGTERM)
    aggregator.start()
    aggregator.wait_until_ready()
    try:
        yield
    finally:
        aggregator.command = own
        aggregator.end(signal.SIGTERM)


def _cluster_dies(system: System, draw: random.Random) -> Disturbance:
    port, bus_port = free_port(), free_port()
    with _cached_at(system, f"redis+cluster://127.0.0.1:{port}"):
        while True:
            with cluster_node(port, bus_port) as admin:
                yield
                wait_until(lambda: admin.dbsize() > 0, "the cluster remembers")
            yield


def _failover(system: System, draw: random.Random) -> Disturbance:
    with (
        watched_primary(system.folder) as watched,
        _cached_at(system, f"redis+sentinel://127.0.0.1:{watched.sentinel_port}/outcomes"),
    ):
        yield
        wait_until(lambda: watched.replica.dbsize() > 0, "the primary remembers, and its replica with it")
        watched.end_primary()
        yield
        wait_until(lambda: watched.replica.info("replication")["role"] == "master", "the replica is the primary")
        while True:
            yield


def _password_rotated(system: System, draw: random.Random) -> Disturbance:
    """In Redis first, in the aggregator's file a moment later; connections of the old one are ended."""
    file = system.folder / "redis-password"
    file.write_text("first")
    connection = system.redis()
    connection.config_set("requirepass", "first")
    connection.execute_command("AUTH", "first")
    try:
        with _cached_at(system, system.cache, "--redis-password-file", str(file)):
            for number in itertools.count(2):
                yield
                connection.config_set("requirepass", f"password {number}")
                connection.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                yield
                file.write_text(f"password {number}")
    finally:
        connection.config_set("requirepass", "")


def _proxy_refuses(system: System, draw: random.Random) -> Disturbance:
    """Every process has a proxy of the environment that takes no connection, and nothing that is excepted from it."""
    moved = [system.aggregator, *system.verifiers]
    nobody = f"http://127.0.0.1:{free_port()}"
    names = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy", "HTTPS_PROXY", "HTTP_PROXY")
    try:
        for program in moved:
            program.extra_env = dict.fromkeys(names, nobody) | {"no_proxy": "", "NO_PROXY": "", "no_grpc_proxy": ""}
            program.end(signal.SIGTERM)
        system.start_all()
        while True:
            yield
    finally:
        for program in moved:
            program.extra_env = {}
            program.end(signal.SIGTERM)


def _descriptors_used_up(system: System, draw: random.Random) -> Disturbance:
    process = system.aggregator.ps()
    process_limits = process.rlimit(resource.RLIMIT_NOFILE)
    host, _, port = system.aggregator.target.rpartition(":")
    try:
        while True:
            process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + 2, process_limits[1]))
            with ExitStack() as held:
                for _ in range(8):
                    held.enter_context(socket.create_connection((host, int(port)), timeout=1))
                # What is open already must go on working; what is new must wait.
                for name in VERIFIERS:
                    system.proxies[name].reset_all()
                yield
            process.rlimit(resource.RLIMIT_NOFILE, process_limits)
            yield
    finally:
        process.rlimit(resource.RLIMIT_NOFILE, process_limits)


def _clock_jumps(system: System, draw: random.Random) -> Disturbance:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the wall clock of a process cannot be moved without one")
    library, offset = system.folder / "clock.so", system.folder / "clock-offset"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(CLOCK_SOURCE), "-ldl"], check=True)
    offset.write_text("0")
    moved = [system.aggregator, *system.verifiers]
    try:
        for program in moved:
            program.extra_env = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(offset)}
            program.end(signal.SIGTERM)
        system.start_all()
        while True:
            yield
            offset.write_text(str(draw.choice([-86_400, -3600, -5, 5, 3600, 86_400])))
    finally:
        for program in moved:
            program.extra_env = {}
            program.end(signal.SIGTERM)


SCENARIOS = {
    "nothing, cold cache": Scenario(_nothing),
    "nothing, warm cache": Scenario(_nothing, starts_cold=False),
    "verifiers: SIGKILL": Scenario(_ended(VERIFIERS, signal.SIGKILL), moments=5),
    "verifiers: SIGTERM": Scenario(_ended(VERIFIERS, signal.SIGTERM), moments=5),
    "verifiers: SIGSTOP, SIGCONT": Scenario(_stopped(VERIFIERS)),
    "aggregator: SIGKILL": Scenario(_ended((AGGREGATOR,), signal.SIGKILL), starts_cold=False),
    "aggregator: SIGTERM": Scenario(_ended((AGGREGATOR,), signal.SIGTERM), starts_cold=False),
    "aggregator: SIGSTOP, SIGCONT": Scenario(_stopped((AGGREGATOR,)), starts_cold=False),
    "Valkey: SIGKILL": Scenario(_ended((VALKEY,), signal.SIGKILL), starts_cold=False),
    "Valkey: SIGTERM": Scenario(_ended((VALKEY,), signal.SIGTERM), starts_cold=False),
    "Valkey: SIGSTOP, SIGCONT": Scenario(_stopped((VALKEY,)), starts_cold=False),
    "anything: SIGKILL": Scenario(_ended((*VERIFIERS, AGGREGATOR, VALKEY), signal.SIGKILL), moments=7),
    "connections: 10 % reset mid-message": Scenario(_resets_everywhere, fresh_connections=True),
    "one verifier: latency and jitter, five-fold": Scenario(_latency_five_fold),
    "one verifier: drip": Scenario(_proxied("experimental", drip_bytes=2048)),
    "one verifier: black hole": Scenario(_black_hole),
    "one verifier: half-open connection": Scenario(_half_open("esm_mlp")),
    "aggregator: half-open connection": Scenario(_half_open(AGGREGATOR)),
    "Redis: gone": Scenario(_redis_gone, may_fail=False),
    "Redis: full": Scenario(_redis_full, may_fail=False),
    "Redis: slow": Scenario(_redis_slow, may_fail=False),
    "Redis: read-only replica": Scenario(_redis_read_only, may_fail=False),
    "Redis: poisoned": Scenario(_redis_poisoned, starts_cold=False, may_fail=False),
    "Redis: half-open connection": Scenario(_proxied(VALKEY, is_half_open=True), starts_cold=False, may_fail=False),
    "Redis Cluster: dies": Scenario(_cluster_dies, may_fail=False),
    "Redis Sentinel: failover": Scenario(_failover, may_fail=False),
    "Redis: password rotated": Scenario(_password_rotated, moments=6, may_fail=False),
    "a proxy of the environment that refuses": Scenario(_proxy_refuses, may_fail=False),
    "rogue verifier that reads texts": Scenario(_rogue_verifier("format")),
    "rogue verifier that holds beliefs": Scenario(_rogue_verifier("experimental")),
    "a newer verifier": Scenario(_rogue_verifier("esm_mlp", is_newer=True)),
    "aggregator: file descriptors used up": Scenario(_descriptors_used_up, fresh_connections=True),
    "clock jumps": Scenario(_clock_jumps),
}
QUICK = ("nothing, cold cache", "verifiers: SIGKILL", "rogue verifier that reads texts", "Redis: poisoned")
