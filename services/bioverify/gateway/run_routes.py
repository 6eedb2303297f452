"""Training runs, as their folders tell of them: what was trained and how its figures moved. Only read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
import orjson
from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from pydantic import BaseModel
from starlette.responses import Response

from bioverify.files import read_lines
from bioverify.gateway.access import TrainingViewer, gateway_of
from bioverify.gateway.problems import ProblemError
from bioverify.gateway.responses import json_answer
from bioverify.gateway.routes import PROBLEMS

RunName = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9][\w.+-]{0,127}$", examples=["first"])]
router = APIRouter(prefix="/v1/runs", tags=["runs"], responses=PROBLEMS)


class Run(BaseModel):
    """One run: ``reward`` and ``unscorable`` of its latest step, null before the first."""

    name: str
    recipe: str
    preset: str
    started_at: str
    steps: int
    reward: float | None
    unscorable: float | None


class Runs(BaseModel):
    """Latest first."""

    runs: list[Run]


class RunRecord(BaseModel):
    """What a run was started with, and one line of figures per step."""

    config: dict[str, Any]
    metrics: list[dict[str, Any]]


@router.get("")
async def list_runs(request: Request, key: TrainingViewer) -> Runs:
    """The runs in the folder that the gateway was told of."""
    folder = gateway_of(request).config.runs_folder
    return Runs(runs=await anyio.to_thread.run_sync(_all, folder) if folder else [])


@router.get("/{name}", responses={200: {"model": RunRecord}})
async def show_run(request: Request, name: RunName, key: TrainingViewer) -> Response:
    """One run with its figures."""
    folder = gateway_of(request).config.runs_folder
    run = folder / name if folder else None
    if run is None or not (run / "run.json").is_file():
        raise ProblemError(404, "unknown_run", f"there is no run {name}")

    def work() -> Response:
        record = {"config": _config(run), "metrics": _metrics(run)}
        return json_answer(request, orjson.dumps(record))

    return await anyio.to_thread.run_sync(work)


def _all(folder: Path) -> list[Run]:
    runs = [_summary(path.parent) for path in folder.glob("*/run.json")]
    return sorted(runs, key=lambda run: run.started_at, reverse=True)


def _summary(folder: Path) -> Run:
    config, metrics = _config(folder), _metrics(folder)
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


def _metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return list(map(json.loads, read_lines(path)))
