"""`bioverify train`, `eval`, `compare-recipes`, `runs`, `report`, `ask`, `chat`, `export`: passed on to the trainer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import typer

from bioverify.cli.terminal import fail, running_aggregator
from bioverify.errors import how_to_install

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


def train(context: typer.Context) -> None:
    """GRPO training against a running aggregator (python -m bioverify_trainer train …)."""
    _trainer("train", context.args)


def evaluate(context: typer.Context) -> None:
    """Models on PerturbQA's held-out questions, beside baselines (python -m bioverify_trainer eval …)."""
    _trainer("eval", context.args)


def compare_recipes(context: typer.Context) -> None:
    """The small policy trained by several recipes, side by side (python -m bioverify_trainer compare-recipes …)."""
    _trainer("compare-recipes", context.args)


def runs(context: typer.Context) -> None:
    """List, show, compare, resume runs; start, stop, watch those of a service (python -m bioverify_trainer runs …)."""
    _trainer("runs", context.args)


def report(context: typer.Context) -> None:
    """A run as one self-contained HTML page (python -m bioverify_trainer report …)."""
    _trainer("report", context.args)


def ask(context: typer.Context) -> None:
    """Put a question to a model (python -m bioverify_trainer ask …); docs/reading.md has the forms of questions."""
    _trainer("ask", context.args)


def chat(context: typer.Context) -> None:
    """Put questions to a model, one by one (python -m bioverify_trainer chat …)."""
    _trainer("chat", context.args)


def export(context: typer.Context) -> None:
    """A run's model with a model card (python -m bioverify_trainer export …)."""
    _trainer("export", context.args)


def _trainer(command: str, arguments: list[str]) -> None:
    # Whoever starts runs elsewhere, or looks at them, needs nothing of the trainer's.
    if command != "runs" and importlib.util.find_spec("trl") is None:
        raise fail(f"the trainer is not installed here. {how_to_install('train')}")
    environment = dict(os.environ)
    # The trainer knows no local stack, so it is told which one runs.
    if not environment.get("BIOVERIFY_TARGET") and not any(word.split("=")[0] == "--target" for word in arguments):
        environment["BIOVERIFY_TARGET"] = running_aggregator(None)
    run = [sys.executable, "-m", "bioverify_trainer", command, *arguments]
    raise typer.Exit(subprocess.call(run, env=environment))
