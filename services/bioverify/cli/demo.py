"""`make demo`: the whole line once, from public data to a trained policy and a report, then everything stopped.

Each step is a command that a person could type; this module only runs them in order, with a home of their own below
``.cache/demo`` and on free ports, and times them. What was made stays there, so a second run is faster.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bioverify.cli.services import ARTIFACTS, VERIFIERS
from bioverify.stack import free_port_base

RECIPE = "rbio1-tf+go+mlp+exp"
BIOVERIFY = (sys.executable, "-m", "bioverify.cli")
TRAINER = (sys.executable, "-m", "bioverify_trainer")

console = Console(highlight=False)


def main(
    home: Annotated[Path, typer.Option(help="Where artifacts, models and files are kept.")] = Path(".cache/demo"),
    run: Annotated[Path, typer.Option(help="Folder of the training run.")] = Path("runs/demo"),
    report: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report/demo.html"),
    completions: Annotated[int, typer.Option(help="Completions to generate and score.")] = 16,
    steps: Annotated[int | None, typer.Option(help="Training steps; none: as many as the preset says.")] = None,
) -> None:
    """Build, serve, generate, score, train, report, stop."""
    home, run = home.absolute(), _fresh(run)
    home.mkdir(parents=True, exist_ok=True)
    report.parent.mkdir(parents=True, exist_ok=True)
    os.environ["BIOVERIFY_HOME"] = str(home)
    os.environ["OMP_NUM_THREADS"] = "1"
    # What stops this program must first stop what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    port_base = free_port_base(VERIFIERS)
    target = f"127.0.0.1:{port_base}"
    generated, scored = home / "completions.jsonl", home / "scored.jsonl"
    preset = ["--preset", "cpu", *(["--set", f"grpo.max_steps={steps}"] if steps else [])]

    started = time.monotonic()
    _build(home)
    try:
        _step("Start all services", *BIOVERIFY, "up", "--port-base", str(port_base))
        _step("Let the model answer", *TRAINER, "generate", str(generated), "--n", str(completions), "--preset", "cpu")
        _step("Score its answers", *BIOVERIFY, "score", str(generated), "--output", str(scored), "--target", target)
        _step("Train by GRPO", *TRAINER, "train", RECIPE, *preset, "--target", target, "--output", str(run))
        _step("Look after the services", *BIOVERIFY, "status")
        _step("Write the report", *TRAINER, "report", str(run), "--output", str(report), "--scores", str(scored))
    finally:
        # Ctrl-C reaches the steps by themselves; a second one must not keep the services running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _step("Stop everything", *BIOVERIFY, "down")
    console.print(f"\n[bold]Done in {time.monotonic() - started:.0f} s.[/] Open {report.absolute()}", soft_wrap=True)


def _build(home: Path) -> None:
    missing = [name for name in ARTIFACTS if not (home / "artifacts" / name / "current").exists()]
    if missing:
        _step("Build the artifacts", *BIOVERIFY, "data", "build", *missing)


def _fresh(run: Path) -> Path:
    """The folder, or the next free one beside it: an earlier run is not written over."""
    number, candidate = 1, run
    while candidate.exists():
        number += 1
        candidate = run.with_name(f"{run.name}-{number}")
    return candidate.absolute()


def _step(title: str, *command: str) -> None:
    """Run one command and say what it took. Ends the demo with the command's exit status if it fails."""
    shown = ("bioverify " if command[:3] == BIOVERIFY else "python -m bioverify_trainer ") + shlex.join(command[3:])
    console.print(f"\n[bold]{title}[/]  [dim]{shown}[/]", soft_wrap=True)
    started = time.monotonic()
    if command[:3] == TRAINER:
        # The services are idle most of the time, so the model may have all cores. Its threads wait passively: one that
        # spins after losing its core to another process costs up to ten times the step.
        threads = {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "OMP_WAIT_POLICY": "PASSIVE"}
    else:
        threads = {}
    status = subprocess.call(command, env=os.environ | threads)
    console.print(f"[dim]{time.monotonic() - started:.1f} s[/]")
    if status:
        console.print(f"[red]{title}: exit status {status}[/]")
        raise typer.Exit(status if status > 0 else 128 - status)


if __name__ == "__main__":
    typer.run(main)
