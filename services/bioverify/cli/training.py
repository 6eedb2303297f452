"""`bioverify train`, `eval`, `runs` and the others of the trainer.

Importing their command line takes longer than everything else that `bioverify --help` needs, so the list of commands
has what stands here, and the trainer's own command takes its place when it is asked for.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from bioverify.cli.terminal import fail, running_aggregator
from bioverify.errors import how_to_install

COMMANDS = {
    "train": "Train a policy by GRPO against the services.",
    "generate": "Let a policy answer questions, into a file.",
    "eval": "Measure models on held-out questions.",
    "compare-recipes": "One small policy trained by several recipes.",
    "runs": "List, show, compare, resume, start, watch runs.",
    "report": "A run as one self-contained HTML page.",
    "ask": "Put a question to a model.",
    "chat": "Put questions to a model, one by one.",
    "export": "A run's model with a model card.",
}
"""Of the trainer, each with its line in the list of commands."""


def stand_in() -> None:
    """What is registered under the names of the trainer's commands; never called."""


def trainer_command(name: str, context: Any, arguments: list[str]) -> Any:
    """The trainer's own command of that name, told which local stack runs: it knows none by itself."""
    from typer.main import get_command

    from bioverify_trainer.cli import app

    if not context.resilient_parsing and not set(arguments) & {"-h", "--help"}:
        # Whoever starts runs elsewhere, or looks at them, needs nothing of the trainer's.
        if name != "runs" and importlib.util.find_spec("trl") is None:
            raise fail(f"the trainer is not installed here. {how_to_install('train')}")
        target = {"target": running_aggregator(None)}
        context.default_map = {name: {**target, "serve": target}}
    group: Any = get_command(app)
    return group.commands[name]
