"""What a launcher is, and what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import grpc

from bioverify.core.runs import TrainingRun
from bioverify.errors import BioverifyError


class LaunchError(BioverifyError):
    """A run that cannot be started or stopped now; the message says what to do."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Order:
    """What a run was asked to be. ``recipe`` and ``preset`` are names of shipped ones."""

    name: str
    recipe: str
    preset: str
    changes: tuple[str, ...]
    started_at: datetime
    max_steps: int


class Launcher(Protocol):
    """Puts runs to work, and finds all of them again after a restart. May be called from any thread."""

    def start(self, order: Order) -> None:
        """Raises LaunchError: ALREADY_EXISTS, RESOURCE_EXHAUSTED, UNAVAILABLE."""

    def resume(self, name: str) -> None:
        """Go on with a run that has ended. Raises LaunchError."""

    def stop(self, name: str) -> None:
        """Let a run keep a checkpoint and end. Raises LaunchError."""

    def runs(self) -> Sequence[TrainingRun]:
        """All runs that were ever started here, in any order. Raises LaunchError."""


def training_arguments(order: Order, *, target: str, output: str) -> list[str]:
    """What the trainer is told, the same for a start and for going on."""
    changes = [word for change in order.changes for word in ("--set", change)]
    return [
        *("train", order.recipe, "--preset", order.preset, *changes),
        *("--target", target, "--output", output, "--restartable"),
    ]
