"""Runs as processes of this machine, each with a keeper of its own.

All that is known of a run lies in its folder: the order, the process ids (with the time at which the process began,
because ids are used again), whether it was told to stop, how it ended. A launcher that starts over the same folder
therefore knows every run, and those whose keeper still lives are as much its own as any.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import psutil

from bioverify.core.runs import RunState, TrainingRun
from bioverify_trainer.runs.folder import RunFolder
from bioverify_trainer.service.keeper import FOLDER, identity, write
from bioverify_trainer.service.launching import LaunchError, Order, training_arguments

_LOG_TAIL_BYTES = 4096
_LONGEST_DETAIL = 300
_SAME_S = 0.05


class LocalLauncher:
    """``target``: the aggregator that runs are rewarded by. ``most_at_once``: more are refused, not queued."""

    def __init__(self, folder: Path, *, target: str, most_at_once: int) -> None:
        self._folder = folder.absolute()
        self._target = target
        self._most_at_once = most_at_once
        self._lock = threading.Lock()
        self._keepers: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, order: Order) -> None:
        run = self._folder / order.name
        with self._lock:
            # A folder without an order is left of a start that was killed before anybody was told of it.
            if (run / FOLDER / "order.json").exists() or RunFolder(run).config_file.exists():
                raise LaunchError(grpc.StatusCode.ALREADY_EXISTS, f"there is a run {order.name} already")
            self._check_room()
            folder = run / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            arguments = training_arguments(order, target=self._target, output=str(run))
            command = [sys.executable, "-P", "-m", "bioverify_trainer", *arguments]
            fields = dataclasses.asdict(order) | {"started_at": order.started_at.isoformat(), "command": command}
            try:
                write(folder / "order.json", fields)
                self._keep(order.name)
            except OSError as error:
                shutil.rmtree(run, ignore_errors=True)
                raise LaunchError(grpc.StatusCode.UNAVAILABLE, f"{run}: {error.strerror}; free space there") from error

    def resume(self, name: str) -> None:
        with self._lock:
            run = self._find(name)
            if not run.state.has_ended or run.state is RunState.FINISHED:
                raise LaunchError(grpc.StatusCode.FAILED_PRECONDITION, f"run {name} is {run.state}")
            self._check_room()
            folder = self._folder / name / FOLDER
            for told in ("ended.json", "stop", "trainer.json"):
                (folder / told).unlink(missing_ok=True)
            self._keep(name)

    def stop(self, name: str) -> None:
        with self._lock:
            run = self._find(name)
            if run.state.has_ended:
                raise LaunchError(grpc.StatusCode.FAILED_PRECONDITION, f"run {name} is {run.state} already")
            folder = self._folder / name / FOLDER
            (folder / "stop").touch()
            # Without a keeper the trainer is told itself.
            for process in (_process(folder / "keeper.json"), _process(folder / "trainer.json")):
                if process is not None:
                    process.send_signal(signal.SIGTERM)
                    break

    def runs(self) -> Sequence[TrainingRun]:
        return [self._read(path.parent.parent) for path in self._folder.glob(f"*/{FOLDER}/order.json")]

    def _keep(self, name: str) -> None:
        run = self._folder / name
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "bioverify_trainer.service.keeper", str(run)],
            cwd=run,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A signal to the service's group, as from a terminal, is not meant for the runs.
            start_new_session=True,
        )
        self._keepers[name] = keeper
        # The keeper writes the same. Who asks before it does would find nobody at work; who is killed before he can
        # write has a run that says itself where it is.
        write(run / FOLDER / "keeper.json", identity(keeper.pid))

    def _check_room(self) -> None:
        at_work = sorted(run.name for run in self.runs() if not run.state.has_ended)
        if len(at_work) >= self._most_at_once:
            raise LaunchError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{', '.join(at_work)} at work; wait, stop one, or allow more runs"
            )

    def _find(self, name: str) -> TrainingRun:
        run = self._folder / name
        if Path(name).name != name or not (run / FOLDER / "order.json").is_file():
            raise LaunchError(grpc.StatusCode.NOT_FOUND, f"no run {name} was started here")
        return self._read(run)

    def _read(self, run: Path) -> TrainingRun:
        order = json.loads((run / FOLDER / "order.json").read_text())
        state, place, detail = self._standing(run)
        return TrainingRun(
            name=run.name,
            state=state,
            recipe=order["recipe"],
            preset=order["preset"],
            changes=tuple(order["changes"]),
            started_at=datetime.fromisoformat(order["started_at"]),
            max_steps=order["max_steps"],
            place=place,
            detail=detail,
        )

    def _standing(self, run: Path) -> tuple[RunState, str, str]:
        if (keeper := self._keepers.get(run.name)) is not None:
            # A child that has ended is taken note of, or it would stay in the table of processes.
            keeper.poll()
        folder = run / FOLDER
        for file in ("keeper.json", "trainer.json"):
            if (process := _process(folder / file)) is not None:
                state = RunState.STOPPING if (folder / "stop").exists() else RunState.RUNNING
                return state, f"process {process.pid}", ""
        ended = _read(folder / "ended.json")
        if ended is None:
            # The machine went down, or somebody killed keeper and trainer.
            if RunFolder(run).model.is_dir():
                return RunState.FINISHED, "", ""
            return RunState.FAILED, "", "it exited without leaving a status: killed, or the machine went down"
        if ended["status"] == 0:
            return RunState.FINISHED, "", ""
        if ended["was_stopped"]:
            return RunState.STOPPED, "", ""
        return RunState.FAILED, "", f"exit status {ended['status']}: {_last_line(folder / 'log.txt')}"


def _environment() -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    for name in ("BIOVERIFY_HOME", "BIOVERIFY_DATA_MIRROR"):
        if name in environment:  # the run has another working folder
            environment[name] = str(Path(environment[name]).absolute())
    return environment


def _process(file: Path) -> psutil.Process | None:
    """The process that the file names, if it is the same one and lives."""
    named = _read(file)
    if named is None:
        return None
    try:
        process = psutil.Process(named["pid"])
        same = abs(process.create_time() - named["created"]) < _SAME_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    return content


def _last_line(log: Path) -> str:
    if not log.exists():
        return "it wrote nothing"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        said = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip()[:_LONGEST_DETAIL] for line in reversed(said) if line.strip()), "it wrote nothing")
