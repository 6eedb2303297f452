"""The trainer as a service: runs that outlive it, over gRPC and through the gateway."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import grpc
import psutil
import pytest

from bioverify.client import ClientError, TrainingClient
from bioverify.core.runs import RunState, StepFigures
from bioverify_trainer.runs.folder import read_records
from bioverify_trainer.service.keeper import FOLDER, write
from bioverify_trainer.stopping import STOPPED
from tests.fixtures import servers
from tests.fixtures.gateway import gateway
from tests.fixtures.training import training_service
from tests.fixtures.waiting import wait_until
from tests.trainer.conftest import format_verifier

STEPS = 150
"""So many that the run is still under way when its service, killed in its midst, has been started again."""


@pytest.fixture(scope="module")
def rewards() -> Iterator[str]:
    """An aggregator over what the recipe rbio1-exp asks for."""
    with (
        format_verifier() as form,
        servers.verifier("Lookup", parameters={"name": "experimental"}) as lookup,
        servers.aggregator({"format": form.target, "experimental": lookup.target}) as aggregator,
    ):
        yield aggregator.target


def end_all(folder):
    """What a failed test would leave behind."""
    for named in folder.glob(f"*/{FOLDER}/*.json"):
        if named.name in {"keeper.json", "trainer.json"}:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(json.loads(named.read_text())["pid"])
                if str(folder) in " ".join(process.cmdline()):
                    process.kill()


def small_run(tiny_policy):
    changes = {
        "policy.model": tiny_policy,
        "policy.lora": "null",
        "prompts.example_turns": 0,
        "prompts.computed_once": "false",
        "grpo.max_steps": STEPS,
        "grpo.num_generations": 4,
        "grpo.max_completion_length": 48,
        "grpo.save_steps": 1000,
        "launcher.threads": 1,
    }
    return [f"{key}={value}" for key, value in changes.items()]


@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_a_run_outlives_its_service_is_found_again_stopped_and_gone_on_with(store, rewards, tiny_policy, tmp_path):
    folder, token = tmp_path / "runs", tmp_path / "token"
    token.write_text("a long random token\n")
    served = (folder, store.root.parent, rewards, "--token-file", str(token), "--allow-model", str(tiny_policy))
    try:
        with contextlib.ExitStack() as services:
            service = services.enter_context(training_service(*served))
            settings = {"runs_folder": folder, "trainer": service.target, "trainer_token_file": token}
            http = services.enter_context(gateway(tmp_path, rewards, **settings)).http
            body = {"name": "first", "recipe": "rbio1-exp", "preset": "cpu", "changes": small_run(tiny_policy)}
            started = http.post("/v1/runs", json=body)
            assert started.status_code == 202, started.text
            assert started.json()["state"] == "running"
            assert http.post("/v1/runs", json=body).json()["code"] == "run_exists"
            refused = http.post("/v1/runs", json=body | {"name": "second"})
            assert (refused.status_code, refused.json()["code"]) == (429, "no_room")
            # The figures come while it trains.
            seen = []
            with http.stream("GET", "/v1/runs/first/events", timeout=180) as events:
                assert events.headers["content-type"].startswith("text/event-stream")
                for line in events.iter_lines():
                    if line.startswith("data: ") and "reward" in (said := json.loads(line.removeprefix("data: "))):
                        seen.append(said["step"])
                    if len(seen) == 3:
                        break
            assert seen == [1, 2, 3]
            service.process.send_signal(signal.SIGKILL)
            service.process.wait()
        recorded = len(list(read_records(folder / "first" / "metrics.jsonl")))
        with training_service(*served) as service:
            settings |= {"trainer": service.target}
            with gateway(tmp_path, rewards, **settings) as running:
                http = running.http
                told = http.post("/v1/runs/first:stop")
                assert told.status_code == 202, told.text
                assert told.json()["state"] == "stopping"

                def state(name):
                    with http.stream("GET", f"/v1/runs/{name}/events", timeout=180) as events:
                        said = [line for line in events.iter_lines() if line.startswith('data: {"name"')]
                    return json.loads(said[-1].removeprefix("data: "))

                assert state("first")["state"] == "stopped"
                kept = [path.name for path in (folder / "first" / "checkpoints").glob("checkpoint-*")]
                last = list(read_records(folder / "first" / "metrics.jsonl"))[-1]["step"]
                assert recorded <= last < STEPS
                assert kept == [f"checkpoint-{last}"]
                assert not (folder / "first" / "model").exists()
                assert http.post("/v1/runs/first:stop").status_code == 409
                assert http.post("/v1/runs/first:resume").json()["state"] == "running"
                finished = state("first")
                assert (finished["state"], finished["steps"]) == ("finished", STEPS), finished
        steps = [record["step"] for record in read_records(folder / "first" / "metrics.jsonl")]
        assert steps == list(range(1, STEPS + 1))
        assert (folder / "first" / "model").is_dir()
    finally:
        end_all(folder)


@pytest.mark.timeout(300)
async def test_who_may_call_what_is_refused_and_why_a_run_failed(store, tiny_policy, tmp_path):
    folder, token = tmp_path / "runs", tmp_path / "token"
    token.write_text("right")
    nobody = f"127.0.0.1:{servers.free_port()}"
    home = store.root.parent
    try:
        with training_service(
            folder, home, nobody, "--token-file", str(token), "--allow-model", str(tiny_policy)
        ) as service:
            wrong = tmp_path / "wrong"
            wrong.write_text("left")
            for given in (None, wrong):
                async with TrainingClient(service.target, given) as client:
                    for ask in (client.list_runs(), client.stop("a"), client.start("a", "rbio1-exp", "cpu")):
                        with pytest.raises(ClientError) as refused:
                            await ask
                        assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
                    with pytest.raises(ClientError):
                        await anext(client.watch("a"))
            async with TrainingClient(service.target, token) as client:
                for arguments, field in (
                    (("../a", "rbio1-exp", "cpu"), "name"),
                    (("a", "/etc/passwd.yaml", "cpu"), "recipe"),
                    (("a", "rbio1-exp", "/etc/own.yaml"), "preset"),
                    (("a", "rbio1-exp", "cpu", ["grpo.max_stepz=3"]), "changes[0]"),
                    (("a", "rbio1-exp", "cpu", ["grpo.max_steps=-3"]), "changes"),
                    (("a", "rbio1-exp", "cpu", ["grpo.seed=1", "policy.model=/etc"]), "changes[1]"),
                    (("a", "rbio1-exp", "cpu", ["grpo.push_to_hub=true"]), "changes[0]"),
                    (("a", "rbio1-exp", "cpu", ['policy.model_init_kwargs={"x": 1}']), "changes[0]"),
                ):
                    with pytest.raises(ClientError) as refused:
                        await client.start(*arguments)
                    assert [path for path, _ in refused.value.violations] == [field]
                for ask in (client.stop("a"), client.resume("a"), anext(client.watch("a"))):
                    with pytest.raises(ClientError) as refused:
                        await ask
                    assert refused.value.code is grpc.StatusCode.NOT_FOUND
                # There is no aggregator to be rewarded by.
                run = await client.start("a", "rbio1-exp", "cpu", small_run(tiny_policy))
                assert run.state is RunState.RUNNING
                events = [event async for event in client.watch("a")]
                assert not any(isinstance(event, StepFigures) for event in events)
                assert events[-1].state is RunState.FAILED
                assert "exit status 2" in events[-1].detail
                assert [run.state for run in await client.list_runs()] == [RunState.FAILED]
                # The token is replaced without a restart.
                token.write_text("another")
                assert await client.list_runs()
    finally:
        end_all(folder)


def test_a_service_that_others_reach_asks_for_a_token(tmp_path):
    command = [sys.executable, "-m", "bioverify_trainer", "runs", "serve", "--folder", str(tmp_path)]
    done = subprocess.run([*command, "--listen", "0.0.0.0:5"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--token-file" in done.stderr


@contextlib.contextmanager
def keeper(run, script):
    """A keeper over a trainer that is a few lines of Python."""
    (run / FOLDER).mkdir(parents=True)
    write(run / FOLDER / "order.json", {"command": [sys.executable, "-c", script]})
    process = subprocess.Popen([sys.executable, "-m", "bioverify_trainer.service.keeper", str(run)], cwd=run)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ended(run):
    return json.loads((run / FOLDER / "ended.json").read_text())


KILLED = """
import os, pathlib, signal
folder = pathlib.Path("checkpoints")
step = 2 * len(list(folder.glob("*"))) + 2
if step <= {last}:
    (folder / f"checkpoint-{{step}}").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
raise SystemExit({then})
"""


def test_a_trainer_that_is_killed_is_started_again_while_it_comes_further(tmp_path):
    with keeper(tmp_path, KILLED.format(last=4, then=0)) as process:
        assert process.wait(30) == 0
    assert ended(tmp_path) == {"status": 0, "was_stopped": False}


def test_a_trainer_that_is_killed_without_coming_further_has_failed(tmp_path):
    script = KILLED.format(last=2, then="os.kill(os.getpid(), signal.SIGKILL)")
    with keeper(tmp_path, script) as process:
        assert process.wait(30) == 0
    assert ended(tmp_path) == {"status": -signal.SIGKILL, "was_stopped": False}


def test_a_trainer_that_ends_by_itself_is_not_started_again(tmp_path):
    with keeper(tmp_path, "open('begun', 'a').write('x'); raise SystemExit(2)") as process:
        assert process.wait(30) == 0
    assert ended(tmp_path) == {"status": 2, "was_stopped": False}
    assert (tmp_path / "begun").read_text() == "x"


def test_sigterm_is_passed_on(tmp_path):
    script = f"""
import pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: exit({STOPPED}))
pathlib.Path("ready").touch()
time.sleep(60)
"""
    with keeper(tmp_path, script) as process:
        wait_until((tmp_path / "ready").exists, "the trainer is ready")
        process.terminate()
        assert process.wait(30) == 0
    assert ended(tmp_path) == {"status": STOPPED, "was_stopped": True}
