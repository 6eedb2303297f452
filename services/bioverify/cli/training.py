"""`bioverify train` and `bioverify report`: passed on to the trainer, a program of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import typer

from bioverify.cli.terminal import fail

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


def train(context: typer.Context) -> None:
    """GRPO training against a running aggregator (python -m bioverify_trainer train …)."""
    _trainer("train", context.args)


def report(context: typer.Context) -> None:
    """A run as one self-contained HTML page (python -m bioverify_trainer report …)."""
    _trainer("report", context.args)


def _trainer(command: str, arguments: list[str]) -> None:
    if importlib.util.find_spec("trl") is None:
        raise fail("the trainer is not installed here. Run: pip install 'bioverify[train]'")
    raise typer.Exit(subprocess.call([sys.executable, "-m", "bioverify_trainer", command, *arguments]))
