"""`bioverify doctor`: what this machine has and lacks for a local stack, and what to do about it."""

from __future__ import annotations

import datetime
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bioverify.cli.services import PREBUILT, VERIFIERS, opened_by
from bioverify.errors import MODULES_OF, how_to_install
from bioverify.ports import PORT_BASE

_NEEDED_BYTES = 2_000_000_000
"""Of free disk: artifacts of the real data and the sources that they are made of, without any model."""
_NEEDED_MEMORY = 2_000_000_000
"""To be had: the services of a local stack, docs/performance.md."""


@dataclass(frozen=True)
class Finding:
    """``do``: what to do about it; empty if all is well. ``is_wrong``: a local stack cannot start like this."""

    what: str
    found: str
    do: str = ""
    is_wrong: bool = False


def doctor(
    port_base: Annotated[
        int, typer.Option(min=1024, max=64_000, help="The aggregator's port; the others follow from it.")
    ] = PORT_BASE,
    redis_url: Annotated[
        str | None, typer.Option(envvar="BIOVERIFY_REDIS_URL", help="A Redis or Valkey of your own.")
    ] = None,
) -> None:
    """What this machine lacks, and what to do about it.

    Looks at Python, extras, ports, memory, disk, cache, artifacts, services, GPU and clock. Exit status 1 if something
    keeps a local stack from starting.

    Example: bioverify doctor
    """
    from rich.console import Console
    from rich.markup import escape

    console, n_wrong = Console(highlight=False), 0
    for one in findings(port_base, redis_url):
        n_wrong += one.is_wrong
        mark = "[red]wrong[/]" if one.is_wrong else "[yellow]note [/]" if one.do else "[green]ok   [/]"
        rest = f". {escape(one.do)}" if one.do else ""
        console.print(f"{mark} {escape(f'{one.what:10}')} {escape(one.found)}{rest}", soft_wrap=True)
    if n_wrong:
        raise typer.Exit(1)


def findings(port_base: int, redis_url: str | None) -> Iterator[Finding]:
    """One thing after the other, as it was looked at."""
    from bioverify import __version__

    yield Finding("python", f"{sys.version.split()[0]}, bioverify {__version__}, {os.cpu_count()} cores")
    yield from _extras()
    yield from _room()
    yield from _artifacts()
    yield from _stack(port_base, redis_url)
    yield _gpu()
    yield _clock()


def _extras() -> Iterator[Finding]:
    for extra, modules in MODULES_OF.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            yield Finding(f"[{extra}]", f"not installed ({', '.join(missing)})", how_to_install(extra))
        else:
            yield Finding(f"[{extra}]", "installed")


def _room() -> Iterator[Finding]:
    import psutil

    from bioverify.artifacts.store import ArtifactStore

    to_be_had = psutil.virtual_memory().available
    low = (
        "Close other programs, or start some verifiers: bioverify up --only NAME" if to_be_had < _NEEDED_MEMORY else ""
    )
    yield Finding("memory", f"{to_be_had / 1e9:.1f} GB to be had", low)
    root = ArtifactStore.default().root
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    full = f"Make room, or set BIOVERIFY_HOME to a folder on another disk ({root})" if free < _NEEDED_BYTES else ""
    yield Finding("disk", f"{free / 1e9:.1f} GB free in {there}", full)
    if not os.access(there, os.W_OK):
        yield Finding("disk", f"{there} cannot be written to", "Set BIOVERIFY_HOME to a folder of yours", is_wrong=True)


def _artifacts() -> Iterator[Finding]:
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.store import ArtifactStore

    store = ArtifactStore.default()
    missing = []
    for name in opened_by(VERIFIERS):
        if name not in store.names():
            missing.append(name)
            continue
        try:
            manifest = store.manifest(name)
        except ArtifactError as error:
            yield Finding(
                "artifacts", f"{name} is damaged: {error}", f"Run: bioverify data verify {name}", is_wrong=True
            )
            continue
        real = "Real data: bioverify data fetch --accept-license && bioverify data build --all"
        kind = ("simulated, not an experiment", real) if manifest.simulated else ("built from real data", "")
        yield Finding("artifacts", f"{name}: {kind[0]}", kind[1])
    if len(missing) == len(opened_by(VERIFIERS)):
        yield Finding("artifacts", f"none in {store.root}", "What ships is enough to begin: bioverify try")
    elif missing:
        needs = "bioverify data build " + ("--all" if set(missing) & set(PREBUILT) else " ".join(missing))
        yield Finding("artifacts", f"not built: {', '.join(missing)}", f"Run: {needs}")


def _stack(port_base: int, redis_url: str | None) -> Iterator[Finding]:
    from bioverify.health import cache_answers, serves
    from bioverify.stack import Plan, StackError, holder_of, state_folder, taken_ports
    from bioverify.transport.redis_address import without_login

    try:
        plan = Plan.load(state_folder())
    except StackError as error:
        yield Finding("services", str(error), "Run: bioverify down", is_wrong=True)
        return
    if plan is not None and serves(plan.aggregator, ""):
        yield Finding("services", f"a stack is up at {plan.aggregator}: {', '.join(plan.started)}")
    else:
        yield Finding("services", "no stack is up", "Start it: bioverify up. Or with what ships: bioverify try")
        ports = Plan(Path(), VERIFIERS, port_base, has_gateway=True).ports
        for port in taken_ports(list(ports)):
            do = "Free it, or choose others: bioverify up --port-base N"
            yield Finding("ports", f"{port} ({ports[port]}) is taken{holder_of(port)}", do, is_wrong=True)
    if redis_url is None:
        yield Finding("cache", "the embedded Valkey, which `bioverify up` starts")
    elif cache_answers(redis_url):
        yield Finding("cache", f"{without_login(redis_url)} answers")
    else:
        do = "Start it, or leave --redis-url out; without a cache all works, slower"
        yield Finding("cache", f"{without_login(redis_url)} does not answer", do)


def _gpu() -> Finding:
    """Asked of the driver: importing torch takes seconds."""
    if shutil.which("nvidia-smi") is None:
        return Finding("gpu", "none, which only training and models of your own would use")
    return Finding("gpu", "a driver of NVIDIA's is installed")


def _clock() -> Finding:
    """A cluster's certificates and tokens are judged by it."""
    now = datetime.datetime.now(datetime.UTC)
    newest = datetime.datetime.fromtimestamp(Path(__file__).stat().st_mtime, datetime.UTC)
    said = f"{now:%Y-%m-%d %H:%M} UTC"
    if now < newest - datetime.timedelta(days=1):
        return Finding("clock", f"{said}, before bioverify was installed", "Set it: certificates are judged by it")
    return Finding("clock", said)
