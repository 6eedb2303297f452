"""One stack for all tests of this folder; where no engine answers they skip, and say so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.compose import stack as stacks
from tests.compose.stack import IMAGES, ROOT, Stack
from tests.fixtures.servers import free_port

_SHOWN = pytest.StashKey[Stack]()


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[Stack]:
    """Images built, the stack up and ready; everything but the images is taken away at the end."""
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    ports = free_port(), free_port()
    environment = {"AGGREGATOR_PORT": str(ports[0]), "GATEWAY_PORT": str(ports[1]), "VERSION": "0.0.0-test"}
    had = [name for name in IMAGES if client.images.list(name)]
    running = Stack(client, environment | stacks.stand_ins(client), *ports)
    running.report["images_there_before"] = len(had)
    pytestconfig.stash[_SHOWN] = running
    running.compose("--profile", "train", "down", "--volumes", "--remove-orphans")
    stacks.build(running)
    running.report["megabytes"] = {name: round(client.images.get(name).attrs["Size"] / 1e6) for name in IMAGES}
    try:
        with running.timed("up --wait, artifacts included"):
            running.compose("up", "--wait", "--no-build")
        with running.timed("up --wait, again"):
            running.compose("up", "--wait", "--no-build")
        yield running
    except BaseException:
        print(running.compose("logs", "--tail", "30"))
        raise
    finally:
        with running.timed("down --volumes"):
            running.compose("--profile", "train", "down", "--volumes", "--remove-orphans")
        report = ROOT / "reports" / "compose.json"
        report.parent.mkdir(exist_ok=True)
        report.write_text(json.dumps(running.report, indent=2) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (running := config.stash.get(_SHOWN, None)) is None:
        return
    report = running.report
    terminalreporter.section("images and times")
    write = terminalreporter.write_line
    write(f"{report['images_there_before']} of {len(IMAGES)} images were there before; without one the engine is clean")
    for name, size in sorted(report.get("megabytes", {}).items()):
        write(f"{name:34} {size:6} MB")
    for name, seconds in report.get("seconds", {}).items():
        write(f"{name:34} {seconds:6} s")
    for name, seen in report.get("containers", {}).items():
        can = f"CapEff {seen['capabilities']}, ports {seen['ports']}, writes {seen['writable']}"
        write(f"{name:22} uid {seen['uid']}, {can}")
    for name, value in report.get("figures", {}).items():
        write(f"{name:60} {value}")
    write(f"all of it: {Path('reports/compose.json')}")
