"""`bioverify up`, `status`, `down`: real processes, real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import VERIFIERS
from bioverify.client import Client, Message, ScoreItem
from bioverify.health import serves
from bioverify.stack import Plan, StackError, down, status, up
from bioverify.stack.plan import VERIFIER_HEALTH, free_port_base
from bioverify.stack.supervision import leftovers
from tests.fixtures.rewards import recipe, required
from tests.fixtures.servers import valkey_on_port
from tests.fixtures.stack import LocalStack, make_stack
from tests.fixtures.waiting import wait_until

QUESTION = "Is a knockdown of AARS1 in k562 cells likely to result in differential expression of ASNS?"
N_PROCESSES = len(VERIFIERS) + 3
"""The verifiers, the aggregator, the gateway and Valkey."""
ITEM = ScoreItem("1", "<think>AARS1, ASNS</think><answer>yes</answer>", [Message("user", QUESTION)])


def test_every_service_is_a_process_of_its_own_and_ready(stack: LocalStack) -> None:
    processes = stack.processes()

    assert list(processes) == ["valkey", *VERIFIERS, "aggregator", "gateway"]
    assert all(process.is_ready and process.state == "running" for process in processes.values())
    commands = {name: psutil.Process(process.pid).cmdline() for name, process in processes.items()}
    assert len({process.pid for process in processes.values()}) == len(processes)
    assert all("serve" in commands[name] and name in commands[name] for name in VERIFIERS)
    assert "aggregate" in commands["aggregator"]
    assert "gateway" in commands["gateway"]
    assert commands["valkey"][0].endswith("valkey-server")


def test_status_prints_what_is_there_and_what_is_simulated(stack: LocalStack) -> None:
    printed = stack.run("status").stdout

    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    assert rows["experimental"][1:5] == [
        str(stack.processes()["experimental"].pid),
        "running",
        "ready",
        f"127.0.0.1:{stack.port_base + 1}",
    ]
    # The bundled set has no screen that may be shipped, so its experimental part is made up, and says so.
    assert rows["experimental"][-1] == "simulated"
    assert rows["go_rouge"][-1] == "no"


def test_a_killed_verifier_is_brought_back_and_nothing_else_is_touched(stack: LocalStack) -> None:
    before = stack.processes()
    psutil.Process(before["format"].pid).send_signal(signal.SIGKILL)

    wait_until(
        lambda: (now := stack.processes()["format"]).is_ready and now.pid != before["format"].pid,
        "another process of format is ready",
    )

    after = stack.processes()
    assert {name: p.pid for name, p in after.items() if name != "format"} == {
        name: p.pid for name, p in before.items() if name != "format"
    }
    with Client(stack.target) as client:
        # The aggregator's connection may wait a moment before it tries again; until then the item is unscorable.
        wait_until(lambda: client.score([ITEM], "all").rewards[0].reward is not None, "rewards again")


def test_the_page_of_runs_shows_those_of_the_folder_that_up_was_called_in(stack: LocalStack) -> None:
    run = stack.state.parent / "runs" / "first"
    run.mkdir(parents=True)
    recorded = {"recipe": {"name": "rbio1-exp"}, "preset": {"name": "own"}, "started_at": "2026-01-01T00:00:00+00:00"}
    (run / "run.json").write_text(json.dumps(recorded))

    shown = httpx.get(f"http://127.0.0.1:{stack.port_base + 9}/v1/runs").raise_for_status().json()

    assert [(each["name"], each["recipe"]) for each in shown["runs"]] == [("first", "rbio1-exp")]


def test_up_twice_says_that_it_is_up(stack: LocalStack) -> None:
    before = stack.processes()

    refused = stack.up(status=1)

    assert "up already" in refused.stderr
    assert "bioverify down" in refused.stderr
    assert {p.pid for p in stack.processes().values()} == {p.pid for p in before.values()}


def test_a_taken_port_is_named_and_nothing_starts(stack: LocalStack, tmp_path: Path) -> None:
    other = make_stack(stack.home, tmp_path / "state")
    with socket.create_server(("127.0.0.1", other.port_base + 2)):
        refused = other.up(status=1)

    # The holder is this very process.
    assert f"port {other.port_base + 2} (go_rouge) is taken, by " in refused.stderr
    assert f"(pid {os.getpid()}). Free it" in refused.stderr
    assert "--port-base" in refused.stderr
    assert other.running() == []


def test_without_artifacts_up_says_how_to_make_them(tmp_path: Path) -> None:
    empty = make_stack(tmp_path, tmp_path / "state")

    refused = empty.up(status=1)

    assert "bioverify data build --all" in refused.stderr
    assert empty.running() == []
    assert "nothing is up" in empty.run("status", status=1).stderr
    assert empty.run("down").stdout == "Nothing was up.\n"


def test_a_service_that_refuses_to_start_is_named_with_its_reason_and_all_is_stopped(
    bundled_store: ArtifactStore, tmp_path: Path
) -> None:
    shutil.copytree(bundled_store.root, tmp_path / "artifacts")
    artifact = ArtifactStore(tmp_path / "artifacts").open("go_rouge")
    victim = artifact.path / next(iter(artifact.manifest.files))
    victim.write_bytes(victim.read_bytes()[:-1])
    damaged = make_stack(tmp_path, tmp_path / "state")

    refused = damaged.up(status=1)

    assert "go_rouge ended before it was ready" in refused.stderr
    assert f"sha256 of {victim.name}" in refused.stderr
    assert "bioverify data verify --repair go_rouge" in refused.stderr
    assert damaged.running() == []


def test_two_stacks_side_by_side_and_one_outlives_its_supervisor(stack: LocalStack, tmp_path: Path) -> None:
    # A path that no unix socket can have: the sockets go to the system's temporary folder.
    second = make_stack(stack.home, tmp_path / ("long" * 30) / "state")
    first_pids = {process.pid for process in stack.processes().values()}
    second.up()
    try:
        assert len(second.running()) == N_PROCESSES + 1
        supervisor = int((second.state / "supervisord.pid").read_text())
        psutil.Process(supervisor).send_signal(signal.SIGKILL)
        wait_until(lambda: len(second.running()) == N_PROCESSES, "the supervisor is gone")
        with pytest.raises(StackError, match=f"the supervisor is gone, but {N_PROCESSES} of its processes still run"):
            status(second.state)

        second.up()

        assert len(second.running()) == N_PROCESSES + 1
        assert all(process.is_ready for process in second.processes().values())
    finally:
        second.run_alone("down")
    assert second.running() == []
    assert second.run("down").stdout == "Nothing was up.\n"
    assert not serves(f"127.0.0.1:{second.port_base + 1}", VERIFIER_HEALTH)
    assert {process.pid for process in stack.processes().values()} == first_pids


def test_with_a_redis_of_ones_own_no_valkey_is_started(tmp_path: Path) -> None:
    plan = Plan(tmp_path, VERIFIERS, redis_url="redis://cache.example:6379/0")

    programs = {program.name: program for program in plan.programs()}

    assert "valkey" not in programs
    assert plan.environment["BIOVERIFY_REDIS_URL"] == "redis://cache.example:6379/0"


def test_a_redis_of_ones_own_is_used_and_its_password_is_in_no_command_line_file_or_log(
    bundled_store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a-password-of-its-own"
    home = tmp_path / "home"
    home.mkdir()
    (home / "artifacts").symlink_to(bundled_store.root)
    monkeypatch.setenv("BIOVERIFY_HOME", str(home))
    monkeypatch.delenv("BIOVERIFY_REDIS_PASSWORD_FILE", raising=False)
    base = free_port_base(("format",))
    with valkey_on_port(base + 900) as url, redis.Redis.from_url(url) as admin:
        admin.config_set("requirepass", secret)
        plan = Plan(tmp_path / "state", ("format",), base, url.replace("//", f"//:{secret}@"))
        try:
            up(plan, lambda _: None)
            for _ in range(2):
                with Client(plan.aggregator) as client:
                    report = client.score([ITEM], recipe(required("format"))).verifiers[0]
            assert report.cache_hits == 1
            lines = [" ".join(process.cmdline()) for process in leftovers(plan.folder)]
            external = next(one for one in status(plan.folder) if one.name == "redis")
        finally:
            down(plan.folder)
    assert (external.address, external.is_ready) == (url, True)
    assert len(lines) >= 3
    assert not any(secret in line for line in lines)
    kept = [file for file in plan.folder.rglob("*") if file.is_file()]
    assert {"stack.json", "supervisord.conf", "aggregator.log"} <= {file.name for file in kept}
    assert [file.name for file in kept if secret.encode() in file.read_bytes()] == []


def test_up_takes_the_address_of_a_redis_from_the_environment_too(
    bundled_store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack(bundled_store.root.parent, tmp_path / "state")
    monkeypatch.setenv("BIOVERIFY_REDIS_URL", "redis://:a/password@redis:6379")
    refused = stack.up(status=1)
    assert "the address of Redis cannot be read" in refused.stderr
    assert "a/password" not in refused.stdout + refused.stderr
