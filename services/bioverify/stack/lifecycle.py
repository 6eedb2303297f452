"""`up`, `down` and `status` of a local stack.

`up` is done when every service says that it is ready, by its own health check, and not when its process runs. One that
dies before it was ever ready ends the attempt: everything is stopped again, and the error carries the end of its log.
"""

from __future__ import annotations

import dataclasses
import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bioverify.client import Client, ClientError
from bioverify.health import cache_answers, page_answers, serves
from bioverify.stack.errors import StackError
from bioverify.stack.plan import Plan, Program, holder_of, taken_ports
from bioverify.stack.supervision import ProcessInfo, Supervisor, leftovers, stop_leftovers, tail
from bioverify.transport.redis_address import without_login

READY_TIMEOUT_S = 120.0
_DIED = ("BACKOFF", "EXITED", "FATAL")


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """``state``: supervisor's word in lower case, "external" for a Redis that is not ours, "gone" if none runs.

    ``simulated``: whether what the verifier opened is simulated; None if it does not say.
    """

    name: str
    address: str
    state: str
    pid: int | None
    is_ready: bool
    uptime_s: float | None
    simulated: bool | None = None


def up(
    plan: Plan, on_change: Callable[[Sequence[ProcessStatus]], None], ready_timeout_s: float = READY_TIMEOUT_S
) -> list[ProcessStatus]:
    """Start everything and wait until it is ready. ``on_change`` hears the state a few times a second.

    Raises StackError if a stack runs in this folder already, a port is taken, or a process does not become ready;
    in that last case, and on Ctrl-C, everything is stopped again.
    """
    plan.make_folders()
    with _locked(plan.folder):
        supervisor = Supervisor(plan)
        if supervisor.pid() is not None:
            raise StackError(f"a stack is up already in {plan.folder}. See: bioverify status. Stop it: bioverify down")
        # Of a supervisor that was killed: its children would hold the ports.
        stop_leftovers(plan.folder)
        if taken := taken_ports(list(plan.ports)):
            raise StackError(
                f"port {taken[0]} ({plan.ports[taken[0]]}) is taken{holder_of(taken[0])}. "
                "Free it, or choose others: bioverify up --port-base N"
            )
        log_sizes = {p.name: plan.log(p.name).stat().st_size for p in plan.programs() if plan.log(p.name).exists()}
        plan.save()
        try:
            supervisor.start()
            return _wait_until_ready(plan, supervisor, log_sizes, on_change, ready_timeout_s)
        except BaseException:
            supervisor.stop()
            raise


def down(folder: Path) -> list[str]:
    """Stop everything that `up` started in this folder. Returns what was stopped; empty if nothing ran."""
    try:
        plan = Plan.load(folder)
    except StackError:
        # What `up` was asked for cannot be read any more; its processes are known by their environment all the same.
        with _locked(folder):
            return stop_leftovers(folder)
    if plan is None:
        return []
    plan.make_folders()
    with _locked(folder):
        return Supervisor(plan).stop()


def status(folder: Path) -> list[ProcessStatus]:
    """Every process of the stack as it is now. Raises StackError if none is up."""
    plan = Plan.load(folder)
    processes = Supervisor(plan).processes() if plan else {}
    if plan is None or not processes:
        orphans = leftovers(folder)
        if orphans:
            pids = ", ".join(str(process.pid) for process in orphans)
            raise StackError(
                f"the supervisor is gone, but {len(orphans)} of its processes still run (pid {pids}). "
                "Stop them: bioverify down. Or start again: bioverify up"
            )
        raise StackError("nothing is up. Start it: bioverify up")
    simulated = _simulated(plan)
    return [
        *([_external_cache(plan)] if plan.redis_url else []),
        *_process_statuses(plan.programs(), processes, simulated, plan.cache_url),
    ]


def _wait_until_ready(
    plan: Plan,
    supervisor: Supervisor,
    log_sizes: dict[str, int],
    on_change: Callable[[Sequence[ProcessStatus]], None],
    timeout_s: float,
) -> list[ProcessStatus]:
    programs = plan.programs()
    deadline = time.monotonic() + timeout_s
    first_started: dict[str, int] = {}
    while True:
        processes = supervisor.processes()
        for name, info in processes.items():
            restarted = info.started_at and first_started.setdefault(name, info.started_at) != info.started_at
            if info.state in _DIED or restarted:
                raise _failure(f"{name} ended before it was ready {info.detail}".rstrip(), plan, name, log_sizes)
        statuses = _process_statuses(programs, processes, {}, plan.cache_url)
        on_change(statuses)
        if all(process.is_ready for process in statuses):
            simulated = _simulated(plan)
            return [dataclasses.replace(process, simulated=simulated.get(process.name)) for process in statuses]
        if time.monotonic() > deadline:
            waiting = next(process.name for process in statuses if not process.is_ready)
            raise _failure(f"{waiting} was not ready within {timeout_s:g} s", plan, waiting, log_sizes)
        time.sleep(0.2)


def _failure(what: str, plan: Plan, name: str, log_sizes: dict[str, int]) -> StackError:
    said = "\n".join(f"  {line}" for line in tail(plan.log(name), log_sizes.get(name, 0)))
    return StackError(f"{what}; everything was stopped again. The end of {plan.log(name)}:\n{said}")


def _process_statuses(
    programs: Sequence[Program], processes: dict[str, ProcessInfo], simulated: dict[str, bool], cache_url: str
) -> list[ProcessStatus]:
    def one(program: Program) -> ProcessStatus:
        info = processes.get(program.name)
        if info is None or not info.pid:
            state = info.state.lower() if info else "gone"
            return ProcessStatus(program.name, program.address, state, None, False, None)
        is_ready = _is_ready(program, cache_url)
        uptime_s = float(info.now - info.started_at)
        # Supervisor calls a process "starting" for its first seconds, whatever it does.
        state = "running" if is_ready and info.state == "STARTING" else info.state.lower()
        return ProcessStatus(
            program.name, program.address, state, info.pid, is_ready, uptime_s, simulated.get(program.name)
        )

    with ThreadPoolExecutor(len(programs)) as pool:
        return list(pool.map(one, programs))


def _is_ready(program: Program, cache_url: str) -> bool:
    if not program.health:
        return cache_answers(cache_url)
    if program.health.startswith("http:"):
        return page_answers(program.health)
    return serves(program.address, program.health)


def _external_cache(plan: Plan) -> ProcessStatus:
    return ProcessStatus("redis", without_login(plan.cache_url), "external", None, cache_answers(plan.cache_url), None)


def _simulated(plan: Plan) -> dict[str, bool]:
    try:
        with Client(plan.aggregator) as client:
            listed = client.list_verifiers(deadline_s=3)
    except ClientError:
        return {}
    return {
        verifier.name: any(artifact.simulated for artifact in verifier.artifacts)
        for verifier in listed
        if verifier.is_ready
    }


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"another `bioverify up` or `down` is at work in {folder}") from None
        yield
