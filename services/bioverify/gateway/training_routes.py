"""Starting, stopping and following training runs: what the training service does, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, Any, TypeVar

import grpc
import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response, StreamingResponse

from bioverify.client import ClientError, TrainingClient
from bioverify.core.runs import StepFigures, TrainingRun
from bioverify.gateway import bodies
from bioverify.gateway.access import TrainingViewer, gateway_of
from bioverify.gateway.problems import ProblemError, of_client_error, of_validation
from bioverify.gateway.routes import PROBLEMS, reads_body
from bioverify.gateway.run_routes import RunName

_MOST_BYTES = 64 * 1024
_EVENTS: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}
_Result = TypeVar("_Result")
router = APIRouter(prefix="/v1/runs", tags=["runs"], responses=PROBLEMS)


class RunRequest(BaseModel):
    """A run to start. ``recipe`` and ``preset`` are names of shipped ones; ``changes``: keys of the preset."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}$", examples=["first"])]
    recipe: Annotated[str, Field(min_length=1, max_length=128, examples=["rbio1-exp"])]
    preset: Annotated[str, Field(min_length=1, max_length=128)] = "cpu"
    changes: Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=64)] = []


class StandingRun(BaseModel):
    """How a run of the training service stands. ``place``: a process or a job; ``detail``: why it failed."""

    name: str
    state: Annotated[str, Field(examples=["running"])]
    recipe: str
    preset: str
    changes: list[str]
    started_at: str
    steps: int
    max_steps: int
    place: str
    detail: str

    @classmethod
    def of(cls, run: TrainingRun) -> StandingRun:
        return cls(
            name=run.name,
            state=run.state,
            recipe=run.recipe,
            preset=run.preset,
            changes=list(run.changes),
            started_at=run.started_at.isoformat(timespec="seconds"),
            steps=run.steps,
            max_steps=run.max_steps,
            place=run.place,
            detail=run.detail,
        )


@router.post("", status_code=202, openapi_extra=reads_body(RunRequest))
async def start_run(request: Request, key: TrainingViewer) -> StandingRun:
    """Start a run."""
    trainer = _trainer(request)
    body = await bodies.whole(request, _MOST_BYTES, gateway_of(request).config.body_timeout_s)
    try:
        asked = RunRequest.model_validate_json(body)
    except ValidationError as error:
        raise of_validation(error, RunRequest) from error
    return StandingRun.of(await _answer(trainer.start(asked.name, asked.recipe, asked.preset, asked.changes)))


@router.post("/{name}:resume", status_code=202)
async def resume_run(request: Request, name: RunName, key: TrainingViewer) -> StandingRun:
    """Go on with a run that has ended before it was finished."""
    return StandingRun.of(await _answer(_trainer(request).resume(name)))


@router.post("/{name}:stop", status_code=202)
async def stop_run(request: Request, name: RunName, key: TrainingViewer) -> StandingRun:
    """Let a run keep a checkpoint and end."""
    return StandingRun.of(await _answer(_trainer(request).stop(name)))


@router.get("/{name}/events", response_class=Response, responses={200: {"content": _EVENTS}})
async def watch_run(
    request: Request, name: RunName, key: TrainingViewer, after_step: Annotated[int, Query(ge=0, le=2**32 - 1)] = 0
) -> Response:
    """Server-sent events: `run`, how it stands, and `step`, the figures of each, until it has ended."""
    events = _trainer(request).watch(name, after_step=after_step)
    # What is refused, a run that is not known for instance, is refused before the stream begins.
    first = await _answer(anext(events))

    async def lines() -> AsyncIterator[bytes]:
        yield _event(first)
        try:
            async for event in events:
                yield _event(event)
        except ClientError as error:
            # The status has been sent; whoever listens hears it as the last event.
            yield b"event: fault\ndata: " + orjson.dumps({"detail": str(error)}) + b"\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def _event(event: TrainingRun | StepFigures) -> bytes:
    if isinstance(event, StepFigures):
        # An id, by which a browser that was cut off says where it was.
        content = orjson.dumps({"step": event.step, **event.figures})
        return b"event: step\nid: %d\ndata: %s\n\n" % (event.step, content)
    return b"event: run\ndata: " + StandingRun.of(event).model_dump_json().encode() + b"\n\n"


def _trainer(request: Request) -> TrainingClient:
    trainer = gateway_of(request).trainer
    if trainer is None:
        raise ProblemError(404, "no_trainer", "this gateway starts no runs: its settings name no training service")
    return trainer


_OF_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: (422, "invalid_request"),
    grpc.StatusCode.NOT_FOUND: (404, "unknown_run"),
    grpc.StatusCode.ALREADY_EXISTS: (409, "run_exists"),
    grpc.StatusCode.FAILED_PRECONDITION: (409, "wrong_state"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "no_room"),
    grpc.StatusCode.UNAVAILABLE: (503, "trainer_unavailable"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (504, "deadline_exceeded"),
}


async def _answer(asking: Awaitable[_Result]) -> _Result:
    try:
        return await asking
    except ClientError as error:
        # A token of the gateway's that the service does not take is the gateway's fault, not the caller's.
        raise of_client_error(error, _OF_CODE, (502, "trainer_failed")) from error
