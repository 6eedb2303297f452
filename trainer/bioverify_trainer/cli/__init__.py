"""The commands: train, generate, eval, compare-recipes, runs, report, ask, chat, export.

Each command imports what is heavy (torch, transformers, TRL) itself, so that ``--help``, a dry run and a mistake in a
recipe answer at once.
"""

from __future__ import annotations

import typer

from bioverify_trainer.cli import asking, comparing, generating, publishing, runs, service, training
from bioverify_trainer.cli.evaluate import evaluate

app = typer.Typer(
    help="GRPO training against live verifiers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (training.train, generating.generate, publishing.report, asking.ask, asking.chat, publishing.export):
    app.command()(command)
app.command("eval")(evaluate)
app.command()(comparing.compare_recipes)
for of_runs in (training.resume, service.serve, service.start, service.stop, service.watch):
    runs.app.command()(of_runs)
app.add_typer(runs.app, name="runs")
