"""Runs as TrainJobs of Kubeflow Trainer v2.

What a job runs in (image, volumes, GPUs) is the runtime's, which an administrator writes; a run fills in arguments and
processes. The order travels in an annotation of the job, so that the cluster itself knows all runs. To stop is to
suspend: the pods get SIGTERM, and within their grace period finish the step and keep a checkpoint; to resume is to take
the suspension back. Kueue uses the same field for its own ends, so jobs in its queues are not taken.

Written against the published API (trainer.kubeflow.org/v1alpha1) and tested with a server that plays it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

import grpc
import kubernetes
import urllib3
from kubernetes.client import ApiException
from pydantic import BaseModel, ConfigDict, field_validator

from bioverify.core.runs import RunState, TrainingRun
from bioverify.settings import SettingsError
from bioverify_trainer.preset import load_preset
from bioverify_trainer.service.launching import LaunchError, Order, training_arguments

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
MANAGED_BY = {"app.kubernetes.io/managed-by": "bioverify-training"}
ORDER = "bioverify.io/order"
_QUEUE = "kueue.x-k8s.io/queue-name"
# RFC 1035, and short enough for what is made of it: pods have a dozen characters more.
_OBJECT_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_GONE_S = 60.0


class ClusterSettings(BaseModel):
    """``runtime`` of that ``runtime_kind``; ``output``: where its runs' volume lies in the pods.

    ``kubeconfig`` None: the service runs in the cluster itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: str
    runtime: str = "bioverify"
    runtime_kind: Literal["TrainingRuntime", "ClusterTrainingRuntime"] = "TrainingRuntime"
    output: str = "/runs"
    labels: dict[str, str] = {}
    kubeconfig: Path | None = None
    context: str | None = None

    @field_validator("labels")
    @classmethod
    def _has_no_queue(cls, labels: dict[str, str]) -> dict[str, str]:
        if _QUEUE in labels:
            raise ValueError(f"{_QUEUE}: Kueue suspends and resumes jobs by itself, so that a run could not be stopped")
        return labels


class TrainJobLauncher:
    """``target``: the aggregator, as the pods reach it. Raises SettingsError if no cluster's address is known."""

    def __init__(self, settings: ClusterSettings, *, target: str) -> None:
        self._settings = settings
        self._target = target
        try:
            if settings.kubeconfig is None:
                kubernetes.config.load_incluster_config()  # type: ignore[no-untyped-call]
                client = kubernetes.client.ApiClient()
            else:
                client = kubernetes.config.new_client_from_config(  # type: ignore[no-untyped-call]
                    str(settings.kubeconfig), settings.context
                )
        except kubernetes.config.ConfigException as error:
            why = f"no cluster to speak to: {error}. Name a kubeconfig, or run inside one"
            raise SettingsError("", "kubeconfig", why) from error
        self._jobs = kubernetes.client.CustomObjectsApi(client)

    def start(self, order: Order) -> None:
        self._call("create", body=trainjob(order, self._settings, self._target))

    def resume(self, name: str) -> None:
        job = self._find(name)
        run = run_of(job)
        if run.state is RunState.STOPPED:
            self._call("patch", name=job["metadata"]["name"], body={"spec": {"suspend": False}})
        elif run.state is RunState.FAILED:
            # A failed job stays failed: another one takes its name and resumes from the checkpoints.
            self._delete(job["metadata"]["name"])
            self.start(_order(job))
        else:
            raise LaunchError(grpc.StatusCode.FAILED_PRECONDITION, f"run {name} is {run.state}")

    def stop(self, name: str) -> None:
        job = self._find(name)
        run = run_of(job)
        if run.state.has_ended:
            raise LaunchError(grpc.StatusCode.FAILED_PRECONDITION, f"run {name} is {run.state} already")
        self._call("patch", name=job["metadata"]["name"], body={"spec": {"suspend": True}})

    def runs(self) -> Sequence[TrainingRun]:
        selector = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
        listed = self._call("list", label_selector=selector)
        return [run_of(job) for job in listed["items"]]

    def _find(self, name: str) -> dict[str, Any]:
        return self._call("get", name=object_name(name))

    def _delete(self, name: str) -> None:
        self._call("delete", name=name, propagation_policy="Foreground")
        deadline = time.monotonic() + _GONE_S
        while time.monotonic() < deadline:
            try:
                self._call("get", name=name)
            except LaunchError as error:
                if error.code is grpc.StatusCode.NOT_FOUND:
                    return
                raise
            time.sleep(0.5)
        raise LaunchError(grpc.StatusCode.UNAVAILABLE, f"the failed job {name} is still being deleted; try again")

    def _call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        method = getattr(self._jobs, f"{verb}_namespaced_custom_object")
        try:
            found: dict[str, Any] = method(
                group=GROUP, version=VERSION, namespace=self._settings.namespace, plural=PLURAL, **arguments
            )
        except ApiException as error:
            _refuse(error)
        except urllib3.exceptions.HTTPError as error:
            raise LaunchError(grpc.StatusCode.UNAVAILABLE, f"the cluster does not answer: {error}") from error
        return found


def trainjob(order: Order, settings: ClusterSettings, target: str) -> dict[str, Any]:
    """The manifest of a run."""
    processes = load_preset(order.preset, list(order.changes)).launcher.processes
    fields = dataclasses.asdict(order) | {"started_at": order.started_at.isoformat()}
    arguments = training_arguments(order, target=target, output=f"{settings.output}/{order.name}")
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": object_name(order.name),
            "namespace": settings.namespace,
            "labels": settings.labels | MANAGED_BY,
            "annotations": {ORDER: json.dumps(fields)},
        },
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": settings.runtime_kind, "name": settings.runtime},
            "trainer": {"numNodes": 1, "numProcPerNode": processes, "args": arguments},
        },
    }


def object_name(run: str) -> str:
    """The run's name if the cluster takes it, else one like it with a hash that keeps two runs apart."""
    if _OBJECT_NAME.fullmatch(run):
        return run
    like = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")[:27].strip("-")
    return f"run-{like}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"


def run_of(job: Mapping[str, Any]) -> TrainingRun:
    """How a TrainJob stands."""
    order = _order(job)
    state, detail = _standing(job)
    return TrainingRun(
        name=order.name,
        state=state,
        recipe=order.recipe,
        preset=order.preset,
        changes=order.changes,
        started_at=order.started_at,
        max_steps=order.max_steps,
        place=f"TrainJob {job['metadata']['namespace']}/{job['metadata']['name']}",
        detail=detail,
    )


def _standing(job: Mapping[str, Any]) -> tuple[RunState, str]:
    status = job.get("status", {})
    holds = {one["type"]: one for one in status.get("conditions", ()) if one["status"] == "True"}
    if "Complete" in holds:
        return RunState.FINISHED, ""
    if "Failed" in holds:
        return RunState.FAILED, holds["Failed"].get("message") or holds["Failed"].get("reason", "")
    if job["spec"].get("suspend"):
        return (RunState.STOPPED if "Suspended" in holds else RunState.STOPPING), ""
    is_active = any(one.get("active", 0) for one in status.get("jobsStatus", ()))
    return (RunState.RUNNING if is_active else RunState.PENDING), ""


def _order(job: Mapping[str, Any]) -> Order:
    fields = json.loads(job["metadata"]["annotations"][ORDER])
    started_at = datetime.fromisoformat(fields["started_at"])
    return Order(**fields | {"changes": tuple(fields["changes"]), "started_at": started_at})


def _refuse(error: ApiException) -> NoReturn:
    codes = {
        404: grpc.StatusCode.NOT_FOUND,
        409: grpc.StatusCode.ALREADY_EXISTS,
        401: grpc.StatusCode.FAILED_PRECONDITION,
        403: grpc.StatusCode.FAILED_PRECONDITION,
        422: grpc.StatusCode.INVALID_ARGUMENT,
    }
    try:
        said = json.loads(error.body or "")["message"]
    except (TypeError, ValueError, KeyError):
        said = error.reason
    raise LaunchError(codes.get(error.status, grpc.StatusCode.UNAVAILABLE), f"the cluster says: {said}") from error
