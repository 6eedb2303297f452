"""Training runs, as their folders tell of them: what was trained and how its figures moved. Only read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio.to_thread
import orjson
from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from pydantic import BaseModel
from starlette.responses import Response

from bioverify.client import ClientError
from bioverify.core import alarms
from bioverify.core.runs import RunState, TrainingRun
from bioverify.files import read_lines
from bioverify.gateway.access import TrainingViewer, gateway_of
from bioverify.gateway.problems import ProblemError
from bioverify.gateway.responses import json_answer
from bioverify.gateway.routes import PROBLEMS

RunName = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9][\w.+-]{0,127}$", examples=["first"])]
router = APIRouter(prefix="/v1/runs", tags=["runs"], responses=PROBLEMS)


class Run(BaseModel):
    """One run: ``reward`` and ``unscorable`` of its latest step, null before the first.

    ``state``: how it stands, if the training service started it; empty if it is nobody's but its folder's.
    """

    name: str
    recipe: str
    preset: str
    started_at: str
    steps: int
    reward: float | None
    unscorable: float | None
    state: RunState | Literal[""] = ""


class Runs(BaseModel):
    """Latest first. ``starts_runs``: a training service is there; ``fault``: why it does not answer."""

    runs: list[Run]
    starts_runs: bool
    fault: str


class RunRecord(BaseModel):
    """What a run was started with, one line of figures per step, and what they give reason to doubt."""

    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    alarms: list[str]


class RunSamples(BaseModel):
    """The completions that were kept of one step, with the parts of their reward. ``steps``: all that kept some."""

    steps: list[int]
    samples: list[dict[str, Any]]


@router.get("")
async def list_runs(request: Request, key: TrainingViewer) -> Runs:
    """The runs in the folder that the gateway was told of."""
    gateway = gateway_of(request)
    folder = gateway.config.runs_folder
    runs = {run.name: run for run in await anyio.to_thread.run_sync(_all, folder)} if folder else {}
    fault = ""
    if gateway.trainer:
        try:
            standing = await gateway.trainer.list_runs()
        except ClientError as error:
            # The folder is there all the same.
            standing, fault = [], str(error)
        for run in standing:
            runs[run.name] = (runs.get(run.name) or _without_record(run)).model_copy(update={"state": run.state})
    latest_first = sorted(runs.values(), key=lambda run: run.started_at, reverse=True)
    return Runs(runs=latest_first, starts_runs=gateway.trainer is not None, fault=fault)


@router.get("/{name}", responses={200: {"model": RunRecord}})
async def show_run(request: Request, name: RunName, key: TrainingViewer) -> Response:
    """One run with its figures."""
    run = _folder_of(request, name)

    def work() -> Response:
        metrics = _records(run / "metrics.jsonl")
        record = {"config": _config(run), "metrics": metrics, "alarms": alarms.raised(metrics)}
        return json_answer(request, orjson.dumps(record))

    return await anyio.to_thread.run_sync(work)


@router.get("/{name}/samples", responses={200: {"model": RunSamples}})
async def show_samples(
    request: Request, name: RunName, key: TrainingViewer, step: Annotated[int, Query(ge=0, le=2**32 - 1)] = 2**32 - 1
) -> Response:
    """Completions that the run kept: of ``step``, or of the last one before it that kept some."""
    run = _folder_of(request, name)

    def work() -> Response:
        samples = _records(run / "samples.jsonl")
        steps = sorted({sample["step"] for sample in samples})
        shown = max((each for each in steps if each <= step), default=None)
        found = {"steps": steps, "samples": [sample for sample in samples if sample["step"] == shown]}
        return json_answer(request, orjson.dumps(found))

    return await anyio.to_thread.run_sync(work)


def _folder_of(request: Request, name: str) -> Path:
    folder = gateway_of(request).config.runs_folder
    if folder is None or not (folder / name / "run.json").is_file():
        raise ProblemError(404, "unknown_run", f"there is no run {name}")
    return folder / name


def _without_record(run: TrainingRun) -> Run:
    """A run that the training service knows of and that has written nothing yet."""
    return Run(
        name=run.name,
        recipe=run.recipe,
        preset=run.preset,
        started_at=run.started_at.isoformat(timespec="seconds"),
        steps=run.steps,
        reward=None,
        unscorable=None,
    )


def _all(folder: Path) -> list[Run]:
    return [_summary(path.parent) for path in folder.glob("*/run.json")]


def _summary(folder: Path) -> Run:
    config, metrics = _config(folder), _records(folder / "metrics.jsonl")
    latest = metrics[-1] if metrics else {}
    return Run(
        name=folder.name,
        recipe=config["recipe"]["name"],
        preset=config["preset"]["name"],
        started_at=config["started_at"],
        steps=latest.get("step", 0),
        reward=latest.get("reward"),
        unscorable=latest.get("reward_call/unscorable"),
    )


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return config


def _records(path: Path) -> list[dict[str, Any]]:
    return list(map(orjson.loads, read_lines(path))) if path.exists() else []
