"""The contract's TrainingService over a launcher and a folder of runs."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc
import orjson
from google.protobuf.message import Message

from bioverify import recipes
from bioverify.core.runs import TrainingRun
from bioverify.files import whole_lines
from bioverify.runtime.config import ServerConfig
from bioverify.runtime.errors import Refused, invalid, over_limit
from bioverify.runtime.hosting import host
from bioverify.runtime.validation import check_rules
from bioverify.settings import SettingsError
from bioverify.transport.refusals import Refusal
from bioverify.transport.tls import TlsIdentity
from bioverify.v1 import training_pb2, training_pb2_grpc
from bioverify.wire.runs import run_to_wire
from bioverify_trainer.preset import Preset, load_preset
from bioverify_trainer.runs.folder import RunFolder
from bioverify_trainer.service.changes import Allowed
from bioverify_trainer.service.launching import Launcher, LaunchError, Order
from bioverify_trainer.service.tokens import check_token

SERVICE = training_pb2.DESCRIPTOR.services_by_name["TrainingService"].full_name
LOOK_EVERY_S = 0.5
SIGN_OF_LIFE_S = 15.0
MOST_WATCHERS = 64

Context = grpc.aio.ServicerContext[Any, Any]
_Result = TypeVar("_Result")


class TrainingService(training_pb2_grpc.TrainingServiceServicer):
    """``folder``: where the runs' folders are seen from here, which the figures are read from.

    ``allowed``: what a caller may change about a run.
    """

    def __init__(self, launcher: Launcher, folder: Path, token_file: Path | None, allowed: Allowed) -> None:
        self._launcher = launcher
        self._folder = folder
        self._token_file = token_file
        self._allowed = allowed
        self._watchers = 0

    async def StartRun(  # noqa: N802 - the contract's name
        self, request: training_pb2.StartRunRequest, context: Context
    ) -> training_pb2.StartRunResponse:
        self._admit(request, context)
        if request.resume:
            if request.recipe or request.preset or request.changes:
                raise invalid([("resume", "a run is resumed as it began: leave recipe, preset and changes out")])
            await _off_the_loop(lambda: self._launcher.resume(request.name))
        else:
            changes = self._allowed.checked(request.changes)
            preset = _resolved(request, changes)
            order = Order(
                name=request.name,
                recipe=request.recipe,
                preset=request.preset,
                changes=changes,
                started_at=datetime.now(UTC),
                max_steps=preset.grpo.max_steps,
            )
            await _off_the_loop(lambda: self._launcher.start(order))
        return training_pb2.StartRunResponse(run=run_to_wire(await self._find(request.name)))

    async def StopRun(  # noqa: N802
        self, request: training_pb2.StopRunRequest, context: Context
    ) -> training_pb2.StopRunResponse:
        self._admit(request, context)
        await _off_the_loop(lambda: self._launcher.stop(request.name))
        return training_pb2.StopRunResponse(run=run_to_wire(await self._find(request.name)))

    async def ListRuns(  # noqa: N802
        self, request: training_pb2.ListRunsRequest, context: Context
    ) -> training_pb2.ListRunsResponse:
        self._admit(request, context)
        runs = await _off_the_loop(self._runs)
        latest_first = sorted(runs, key=lambda run: run.started_at, reverse=True)
        return training_pb2.ListRunsResponse(runs=map(run_to_wire, latest_first))

    async def WatchRun(  # noqa: N802
        self, request: training_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[training_pb2.WatchRunResponse]:
        self._admit(request, context)
        if self._watchers >= MOST_WATCHERS:
            raise over_limit(f"{MOST_WATCHERS} calls watch already", retry_after_s=SIGN_OF_LIFE_S)
        self._watchers += 1
        try:
            async for event in self._events(request):
                yield event
        finally:
            self._watchers -= 1

    async def _events(self, request: training_pb2.WatchRunRequest) -> AsyncIterator[training_pb2.WatchRunResponse]:
        lines = NewLines(RunFolder(self._folder / request.name).metrics_file)
        told: TrainingRun | None = None
        told_at = time.monotonic()
        while True:
            # First how it stands, then the lines: what is written before the end is told before it.
            run = await self._find(request.name)
            if told is None:
                yield training_pb2.WatchRunResponse(run=run_to_wire(run))
                told = run
            for record in await asyncio.to_thread(lines.read):
                if record["step"] > request.after_step:
                    yield training_pb2.WatchRunResponse(step=_figures(record))
            changed = dataclasses.replace(run, steps=0) != dataclasses.replace(told, steps=0)
            if changed or time.monotonic() - told_at > SIGN_OF_LIFE_S:
                yield training_pb2.WatchRunResponse(run=run_to_wire(run))
                told, told_at = run, time.monotonic()
            if run.state.has_ended:
                return
            await asyncio.sleep(LOOK_EVERY_S)

    def _admit(self, request: Message, context: Context) -> None:
        check_token(self._token_file, context.invocation_metadata() or ())
        check_rules(request)

    async def _find(self, name: str) -> TrainingRun:
        for run in await _off_the_loop(self._runs):
            if run.name == name:
                return run
        raise Refused(Refusal(grpc.StatusCode.NOT_FOUND, f"no run {name} was started here", "unknown_run"))

    def _runs(self) -> list[TrainingRun]:
        return [
            dataclasses.replace(run, steps=steps_recorded(RunFolder(self._folder / run.name).metrics_file))
            for run in self._launcher.runs()
        ]


class NewLines:
    """The lines of a growing ``metrics.jsonl``; a resumed run replaces the file, which is then read from its start."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._place = 0
        self._inode = 0

    def read(self) -> list[dict[str, Any]]:
        """Those that were written since the last time; a line that is still being written is left for the next."""
        try:
            with self._file.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._place:
                    self._inode, self._place = stat.st_ino, 0
                file.seek(self._place)
                found = list(whole_lines(file))
        except FileNotFoundError:
            return []
        self._place += sum(map(len, found))
        return [orjson.loads(line) for line in found]


def steps_recorded(metrics: Path) -> int:
    """The number of the last whole line's step; 0 without one."""
    try:
        with metrics.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # A line has about 2 KB.
            file.seek(max(0, size - 65_536))
            lines = list(whole_lines(file))
    except FileNotFoundError:
        return 0
    return int(orjson.loads(lines[-1])["step"]) if lines else 0


def _figures(record: dict[str, Any]) -> training_pb2.StepFigures:
    figures = {
        name: float(value)
        for name, value in record.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }
    return training_pb2.StepFigures(step=record["step"], figures=figures)


def _resolved(request: training_pb2.StartRunRequest, changes: Sequence[str]) -> Preset:
    """The preset with its changes. Raises Refused that names what is wrong."""
    # Shipped ones only: a path would read a file of this machine for whoever asks.
    if request.recipe not in recipes.names():
        raise invalid([("recipe", f"{request.recipe!r} is not one of {', '.join(recipes.names())}")])
    if request.preset.endswith((".yaml", ".yml")):
        raise invalid([("preset", "name a shipped one, not a file")])
    try:
        return load_preset(request.preset, list(changes))
    except SettingsError as error:
        raise invalid([("changes" if changes else "preset", str(error))]) from error


async def _off_the_loop(work: Callable[[], _Result]) -> _Result:
    try:
        return await asyncio.to_thread(work)
    except LaunchError as error:
        # A run that is at work ends, or is stopped.
        retry_after_s = SIGN_OF_LIFE_S if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED else None
        raise Refused(Refusal(error.code, str(error), error.code.name.lower(), retry_after_s=retry_after_s)) from error


def serve(
    launcher: Launcher,
    folder: Path,
    *,
    listen: str,
    token_file: Path | None,
    tls: TlsIdentity | None,
    allowed: Allowed,
) -> int:
    """Serve until SIGTERM, whatever the runs do; the exit code."""
    service = TrainingService(launcher, folder, token_file, allowed)

    async def ready() -> bool:
        await asyncio.to_thread(launcher.runs)
        return True

    # Watchers never end by themselves, and have nothing to lose.
    config = ServerConfig(listen=listen, grace_s=2.0, tls=tls)
    add = training_pb2_grpc.add_TrainingServiceServicer_to_server
    return asyncio.run(host(config, SERVICE, lambda server: add(service, server), ready))
