"""Training runs as plain values: how one stands, and what is told of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RunState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def has_ended(self) -> bool:
        return self in {RunState.STOPPED, RunState.FINISHED, RunState.FAILED}


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """``changes`` of the preset's keys. ``place``: a process or a job, for people. ``detail``: why it failed."""

    name: str
    state: RunState
    recipe: str
    preset: str
    changes: tuple[str, ...]
    started_at: datetime
    max_steps: int
    steps: int = 0
    place: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StepFigures:
    """The figures of one step that are defined, by their names in ``metrics.jsonl``."""

    step: int
    figures: Mapping[str, float]
