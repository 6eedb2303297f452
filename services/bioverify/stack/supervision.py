"""The processes, in the hands of supervisor (PyPI): it starts them, restarts those that die, rotates their logs.

Supervisor is spoken to through a unix socket in the state folder, which only the owner can open. Should supervisor
itself be killed, its children live on without it; they are found again by ``BIOVERIFY_STACK`` in their environment.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from bioverify.files import replace_file
from bioverify.stack.errors import StackError
from bioverify.stack.plan import AGGREGATOR, CACHE, GATEWAY, Plan

MARK = "BIOVERIFY_STACK"
_PASSWORD_FILE = "BIOVERIFY_REDIS_PASSWORD_FILE"  # noqa: S105  the name of a variable
_SECRET_FILE = "BIOVERIFY_CACHE_SECRET_FILE"  # noqa: S105
# Services drain for up to 10 s after SIGTERM; whoever is there after that is killed.
STOP_WAIT_S = 13
# A service that dies sooner than this was never up: its restarts are spaced out and counted.
START_S = 5


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """``state``: supervisor's word, for instance RUNNING or BACKOFF. ``pid`` 0: no process. Times in Unix seconds."""

    name: str
    state: str
    pid: int
    started_at: int
    now: int
    detail: str


class Supervisor:
    """The supervisor of one stack, whether it runs or not."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def _ask(self, method: str) -> Any:
        # A transport that once found nobody refuses to try again, so each question has its own. The host is never
        # connected to: the transport goes to the socket.
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._plan.supervisor_socket}")
        try:
            return getattr(xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor, method)()
        finally:
            transport.close()

    def pid(self) -> int | None:
        """Its process id; None if it does not answer."""
        try:
            return cast(int, self._ask("getPID"))
        except OSError:
            return None

    def processes(self) -> dict[str, ProcessInfo]:
        """All processes by name; empty if supervisor does not answer."""
        try:
            listed = cast("list[dict[str, Any]]", self._ask("getAllProcessInfo"))
        except OSError:
            return {}
        return {
            info["name"]: ProcessInfo(
                info["name"], info["statename"], info["pid"], info["start"], info["now"], info["spawnerr"]
            )
            for info in listed
        }

    def start(self) -> None:
        """Write the configuration and start supervisor in the background. Raises StackError with what it said."""
        config = self._plan.folder / "supervisord.conf"
        replace_file(config, configuration(self._plan), private=True)
        environment = {"OMP_NUM_THREADS": "1", **os.environ, MARK: str(self._plan.folder), **self._plan.environment}
        if self._plan.redis_url is None:  # the embedded cache has no password
            environment.pop(_PASSWORD_FILE, None)
        for name in ("BIOVERIFY_HOME", "BIOVERIFY_DATA_MIRROR", _PASSWORD_FILE, _SECRET_FILE):
            if name in environment:  # the children have another working folder
                environment[name] = str(Path(environment[name]).absolute())
        command = [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(config)]
        started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if started.returncode:
            raise StackError(f"supervisor did not start: {(started.stderr or started.stdout).strip()}")

    def stop(self) -> list[str]:
        """Stop all processes and supervisor itself, and whatever an earlier one left. Returns what was stopped."""
        pid = self.pid()
        stopped = [info.name for info in self.processes().values() if info.pid]
        if pid is not None:
            self._ask("shutdown")
            _wait_until_gone(pid, STOP_WAIT_S + 5)
        return stopped + stop_leftovers(self._plan.folder)


def configuration(plan: Plan) -> str:
    """supervisord.conf for the plan."""
    sections = [
        _section(
            "supervisord",
            logfile=plan.folder / "supervisord.log",
            logfile_maxbytes="2MB",
            logfile_backups=1,
            pidfile=plan.folder / "supervisord.pid",
            childlogdir=plan.folder / "logs",
            directory=plan.folder,
            umask="077",
        ),
        _section("unix_http_server", file=plan.supervisor_socket, chmod="0700"),
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n",
        # One group, so that all verifiers drain at the same time and not one after the other.
        _section("group:verifiers", programs=",".join(plan.started), priority=20),
    ]
    programs = [
        _section(
            f"program:{program.name}",
            command=shlex.join(program.command),
            priority={CACHE: 10, AGGREGATOR: 30, GATEWAY: 40}.get(program.name, 20),
            autorestart="true",
            startsecs=START_S,
            startretries=20,
            stopsignal="TERM",
            stopwaitsecs=STOP_WAIT_S,
            killasgroup="true",
            redirect_stderr="true",
            stdout_logfile=plan.log(program.name),
            stdout_logfile_maxbytes="10MB",
            stdout_logfile_backups=2,
        )
        for program in plan.programs()
    ]
    return "\n".join([*sections, *programs])


def _section(title: str, **values: object) -> str:
    lines = [f"{key} = {str(value).replace('%', '%%')}" for key, value in values.items()]
    return "\n".join([f"[{title}]", *lines, ""])


def leftovers(folder: Path) -> list[psutil.Process]:
    """The processes that were started for this stack and still run, with or without a supervisor."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
        except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
            continue
    return found


def stop_leftovers(folder: Path) -> list[str]:
    """End what is left of a stack whose supervisor is gone. Returns the pids that were ended."""
    processes = leftovers(folder)
    for process in processes:
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(processes, timeout=STOP_WAIT_S)
    for process in alive:
        _signal(process, kill=True)
    psutil.wait_procs(alive, timeout=5)
    return [f"pid {process.pid}" for process in processes]


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return


def _wait_until_gone(pid: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)


def tail(log: Path, offset: int, lines: int = 15) -> Sequence[str]:
    """The last lines that were written to the log after ``offset`` bytes."""
    try:
        size = log.stat().st_size
        with log.open("rb") as file:
            file.seek(max(offset if offset <= size else 0, size - 16_384))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
