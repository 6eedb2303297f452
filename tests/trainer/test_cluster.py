"""Runs as TrainJobs, against a server that plays a cluster's API as it is published. No cluster was there."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import grpc
import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from bioverify.core.runs import RunState
from bioverify.settings import SettingsError, read_settings
from bioverify_trainer.service.cluster import (
    ClusterSettings,
    TrainJobLauncher,
    object_name,
    trainjob,
)
from bioverify_trainer.service.launching import LaunchError, Order

ORDER = Order("First_1", "rbio1-go+exp", "h100x8", ("grpo.max_steps=7",), datetime(2026, 11, 25, tzinfo=UTC), 7)
PATH = re.compile(r"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/team/trainjobs(?:/([^/?]+))?(?:\?(.*))?$")


def problems(job: dict[str, Any]) -> str:
    """What the published schema says against the job: other types, and fields that it does not know."""
    try:
        read = TrainerV1alpha1TrainJob.from_dict(job)
    except ValueError as error:
        return str(error)
    return "" if read.to_dict() == job else f"unknown fields: {job} is read as {read.to_dict()}"


class Api:
    """Keeps TrainJobs; a test moves their status on as the controller would."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.patched_as: list[str] = []
        self.is_forbidden = False
        self.address = ""

    def status(self, name: str, **status: Any) -> None:
        self.jobs[name]["status"] = status


@pytest.fixture
def api() -> Iterator[Api]:
    played = Api()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _do(self) -> None:
            found = PATH.match(self.path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            if played.is_forbidden:
                self._fail(403, "Forbidden", "trainjobs is forbidden")
            elif found is None:
                self._fail(404, "NotFound", "the server could not find the requested resource")
            elif self.command == "POST":
                self._create(body)
            elif found[1] is None:
                assert parse_qs(found[2])["labelSelector"] == ["app.kubernetes.io/managed-by=bioverify-training"]
                self._send(200, {"kind": "TrainJobList", "items": list(played.jobs.values())})
            elif found[1] not in played.jobs:
                self._fail(404, "NotFound", f'trainjobs "{found[1]}" not found')
            elif self.command == "PATCH":
                played.patched_as.append(self.headers["Content-Type"])
                played.jobs[found[1]]["spec"] |= body["spec"]
                self._send(200, played.jobs[found[1]])
            elif self.command == "DELETE":
                del played.jobs[found[1]]
                self._send(200, {"kind": "Status", "status": "Success"})
            else:
                self._send(200, played.jobs[found[1]])

        do_GET = do_POST = do_PATCH = do_DELETE = _do  # noqa: N815

        def _create(self, job: dict[str, Any]) -> None:
            name = job["metadata"]["name"]
            if problem := problems(job):
                self._fail(422, "Invalid", problem)
            elif name in played.jobs:
                self._fail(409, "AlreadyExists", f'trainjobs "{name}" already exists')
            else:
                played.jobs[name] = job
                self._send(201, job)

        def _fail(self, code: int, reason: str, message: str) -> None:
            status = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}
            self._send(code, status)

        def _send(self, code: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield played
    server.shutdown()
    server.server_close()


@pytest.fixture
def launcher(api, tmp_path) -> TrainJobLauncher:
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "played", "cluster": {"server": api.address}}],
        "users": [{"name": "somebody", "user": {"token": "secret"}}],
        "contexts": [{"name": "here", "context": {"cluster": "played", "user": "somebody"}}],
        "current-context": "here",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    (tmp_path / "cluster.yaml").write_text(
        yaml.safe_dump({"namespace": "team", "kubeconfig": str(tmp_path / "kubeconfig"), "labels": {"team": "x"}})
    )
    return TrainJobLauncher(read_settings(ClusterSettings, tmp_path / "cluster.yaml"), target="rewards:50050")


def state(launcher):
    [run] = launcher.runs()
    return run.state


def test_the_manifest_is_one_that_the_published_schema_takes():
    job = trainjob(ORDER, ClusterSettings(namespace="team"), "rewards:50050")
    assert problems(job) == ""
    assert "unknown fields" in problems(job | {"spec": job["spec"] | {"suspendd": True}})
    assert problems(job | {"spec": job["spec"] | {"suspend": "yes"}})
    trainer = job["spec"]["trainer"]
    assert trainer["numProcPerNode"] == 8
    assert trainer["args"][:4] == ["train", "rbio1-go+exp", "--preset", "h100x8"]
    assert trainer["args"][-3:] == ["--output", "/runs/First_1", "--restartable"]


@pytest.mark.parametrize("name", ["first", "First_1", "1st", "a" * 128, "x-", "go+exp"])
def test_a_jobs_name_is_one_that_a_cluster_takes(name):
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", object_name(name))
    assert object_name(name) != object_name(name + "1")
    assert object_name("first") == "first"


def test_a_run_is_submitted_suspended_and_gone_on_with(api, launcher):
    launcher.start(ORDER)
    [(name, job)] = api.jobs.items()
    assert job["metadata"]["labels"]["team"] == "x"
    [run] = launcher.runs()
    assert (run.name, run.recipe, run.changes, run.max_steps) == (ORDER.name, ORDER.recipe, ORDER.changes, 7)
    assert run.started_at == ORDER.started_at
    assert run.state is RunState.PENDING
    with pytest.raises(LaunchError) as again:
        launcher.start(ORDER)
    assert again.value.code is grpc.StatusCode.ALREADY_EXISTS
    api.status(
        name, jobsStatus=[{"name": "node", "active": 1, "ready": 1, "failed": 0, "succeeded": 0, "suspended": 0}]
    )
    assert state(launcher) is RunState.RUNNING
    launcher.stop(ORDER.name)
    assert state(launcher) is RunState.STOPPING
    api.status(name, conditions=[{"type": "Suspended", "status": "True", "reason": "Suspended"}])
    assert state(launcher) is RunState.STOPPED
    with pytest.raises(LaunchError) as twice:
        launcher.stop(ORDER.name)
    assert twice.value.code is grpc.StatusCode.FAILED_PRECONDITION
    launcher.resume(ORDER.name)
    api.status(name, conditions=[{"type": "Suspended", "status": "False", "reason": "Resumed"}])
    assert state(launcher) is RunState.PENDING
    assert set(api.patched_as) == {"application/merge-patch+json"}
    api.status(name, conditions=[{"type": "Complete", "status": "True", "reason": "JobsCompleted"}])
    assert state(launcher) is RunState.FINISHED


def test_a_failed_job_makes_room_for_another_that_goes_on(api, launcher):
    launcher.start(ORDER)
    [name] = api.jobs
    api.status(name, conditions=[{"type": "Failed", "status": "True", "message": "pods were evicted too often"}])
    [run] = launcher.runs()
    assert (run.state, run.detail) == (RunState.FAILED, "pods were evicted too often")
    launcher.resume(ORDER.name)
    assert state(launcher) is RunState.PENDING
    assert "--restartable" in api.jobs[name]["spec"]["trainer"]["args"]


def test_what_the_cluster_refuses_is_told(api, launcher):
    with pytest.raises(LaunchError, match="not found") as unknown:
        launcher.stop("other")
    assert unknown.value.code is grpc.StatusCode.NOT_FOUND
    api.is_forbidden = True
    with pytest.raises(LaunchError, match="trainjobs is forbidden"):
        launcher.runs()


def test_a_cluster_that_does_not_answer_is_unavailable(launcher, api, tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text(path.read_text().replace(api.address, "http://127.0.0.1:9"))
    gone = TrainJobLauncher(read_settings(ClusterSettings, tmp_path / "cluster.yaml"), target="")
    with pytest.raises(LaunchError) as refused:
        gone.runs()
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE


def test_settings_name_what_is_wrong(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("namespace: team\nruntim: x\n")
    with pytest.raises(SettingsError, match="runtim"):
        read_settings(ClusterSettings, file)
    file.write_text("namespace: team\nlabels: {kueue.x-k8s.io/queue-name: training}\n")
    with pytest.raises(SettingsError, match="Kueue"):
        read_settings(ClusterSettings, file)
    file.write_text("namespace: team\n")
    with pytest.raises(SettingsError, match="no cluster to speak to"):
        TrainJobLauncher(read_settings(ClusterSettings, file), target="")
