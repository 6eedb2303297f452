"""The compose stack under test: built, started and taken down by `docker compose`, looked at and killed by the SDK."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from tests.fixtures.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PROJECT = "bioverify-test"
VERIFIERS = ("experimental", "go-rouge", "transcriptformer-pmi", "esm-mlp", "analogy", "claims", "format")
PYTHON_SERVICES = (*VERIFIERS, "aggregator", "gateway")
# No part of the stack: one makes a matrix, the other brings artifacts into a cluster.
OTHERS = ("puller", "pmi-builder")
IMAGES = tuple(f"bioverify/{name}" for name in (*PYTHON_SERVICES, "artifacts", "trainer", *OTHERS))
# Writes what a process with the service's rights sees: where it may write, and on which ports this container listens.
SELF_REPORT = """
import json, os
writable = []
for folder, inner, _ in os.walk("/"):
    if folder == "/":
        inner[:] = [name for name in inner if name not in ("proc", "sys")]
    if os.access(folder, os.W_OK):
        writable.append(folder)
        inner.clear()
ports = set()
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(table).readlines()[1:]:
        # 0B: loopback of Docker's own name server; 0A in the fourth column: listens.
        address, state = line.split()[1], line.split()[3]
        if state == "0A" and not address.startswith("0B00007F"):
            ports.add(int(address.rpartition(":")[2], 16))
print(json.dumps({"writable": sorted(writable), "ports": sorted(ports)}))
"""


@dataclass
class Stack:
    """``report``: what was measured, for the table and reports/compose.json."""

    client: docker.DockerClient
    environment: dict[str, str]
    aggregator_port: int
    gateway_port: int
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.aggregator_port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    def compose(self, *arguments: str, timeout_s: float = 1800) -> str:
        """`docker compose …` for this stack; asserts success, with the end of its output where it failed."""
        files = ("-f", str(ROOT / "docker-compose.yml"), "-f", str(HERE / "override.yml"))
        return _run(["docker", "compose", "-p", PROJECT, *files, *arguments], os.environ | self.environment, timeout_s)

    def container(self, service: str) -> Container:
        labels = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
        (found,) = self.client.containers.list(all=True, filters={"label": labels})
        return found

    def crash(self, service: str) -> None:
        """SIGKILL for the process that serves, from inside: unlike `docker kill`, the engine takes it for a crash."""
        container = self.container(service)
        before = container.attrs["RestartCount"]
        kill = ["python", "-c", "import os; os.kill(-1, 9)"] if service != "cache" else ["sh", "-c", "kill -9 -1"]
        container.exec_run(kill)
        wait_until(lambda: self.container(service).attrs["RestartCount"] > before, f"{service} is started again")

    def wait_healthy(self, service: str) -> None:
        wait_until(lambda: self.container(service).health == "healthy", f"{service} is healthy", 90)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.report.setdefault("seconds", {})[what] = round(time.monotonic() - start, 1)


def build(stack: Stack) -> None:
    """All images, one after the other: each in as many processes as it likes, on a machine that others use as well."""
    services = ("experimental", *(name for name in PYTHON_SERVICES if name != "experimental"), "artifacts", "trainer")
    for service in services:
        with stack.timed(f"build {service}"):
            stack.compose("--profile", "train", "build", "--quiet", service)
    wheels = stack.environment.get("WHEELS_IMAGE", "scratch")
    for name in OTHERS:
        target = ("--target", name, "-t", f"bioverify/{name}", "--build-arg", f"WHEELS_IMAGE={wheels}")
        with stack.timed(f"build {name}"):
            _run(["docker", "build", "--quiet", "-f", "services/Dockerfile", *target, "."], dict(os.environ), 1800)


def stand_ins(client: docker.DockerClient) -> dict[str, str]:
    """Images for what no registry gives here: Valkey, and torch's CPU wheel where pip has a local one."""
    environment = {}
    declared = os.environ.get("CACHE_IMAGE", "valkey/valkey:8.1-alpine")
    try:
        client.images.get(declared)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(declared)
        except docker.errors.APIError:
            _run(
                ["docker", "build", "-q", "-t", "bioverify/test-cache", "-f", str(HERE / "cache.Dockerfile"), str(HERE)]
            )
            environment["CACHE_IMAGE"] = "bioverify/test-cache"
    folder = Path(os.environ.get("PIP_FIND_LINKS") or "/nonexistent")
    if "WHEELS_IMAGE" not in os.environ and any(folder.glob("torch-*.whl")):
        dockerfile = "FROM scratch\nCOPY torch-*.whl /\n"
        _run(["docker", "build", "-q", "-t", "bioverify/test-wheels", "-f", "-", str(folder)], given=dockerfile)
        environment["WHEELS_IMAGE"] = "bioverify/test-wheels"
    return environment


def _run(
    command: list[str], environment: dict[str, str] | None = None, timeout_s: float = 600, given: str | None = None
) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, input=given, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
