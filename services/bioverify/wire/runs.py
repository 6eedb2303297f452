"""Training runs, to and from the contract's messages."""

from __future__ import annotations

from datetime import UTC

from bioverify.core.runs import RunState, StepFigures, TrainingRun
from bioverify.v1 import training_pb2

_TO_WIRE = {state: training_pb2.RunState.Value(f"RUN_STATE_{state.name}") for state in RunState}
_FROM_WIRE = {number: state for state, number in _TO_WIRE.items()}


def run_to_wire(run: TrainingRun) -> training_pb2.Run:
    message = training_pb2.Run(
        name=run.name,
        state=_TO_WIRE[run.state],
        recipe=run.recipe,
        preset=run.preset,
        changes=run.changes,
        steps=run.steps,
        max_steps=run.max_steps,
        place=run.place,
        detail=run.detail,
    )
    message.started_at.FromDatetime(run.started_at)
    return message


def run_from_wire(message: training_pb2.Run) -> TrainingRun:
    return TrainingRun(
        name=message.name,
        state=_FROM_WIRE[message.state],
        recipe=message.recipe,
        preset=message.preset,
        changes=tuple(message.changes),
        started_at=message.started_at.ToDatetime(UTC),
        max_steps=message.max_steps,
        steps=message.steps,
        place=message.place,
        detail=message.detail,
    )


def event_from_wire(message: training_pb2.WatchRunResponse) -> TrainingRun | StepFigures:
    if message.WhichOneof("event") == "run":
        return run_from_wire(message.run)
    return StepFigures(message.step.step, dict(message.step.figures))
