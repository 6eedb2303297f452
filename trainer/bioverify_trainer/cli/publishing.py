"""`bioverify report` and `export`: what others are shown or given of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bioverify_trainer.cli.options import RunArgument, a_file_to_write, quieten, refuse, run_folders


def report(
    run: RunArgument,
    output: Annotated[Path, typer.Option("--output", help="HTML file to write.", callback=a_file_to_write)] = Path(
        "report.html"
    ),
    scores: Annotated[Path | None, typer.Option(help="A file that `bioverify score` wrote, to be shown too.")] = None,
) -> None:
    """A run as one self-contained HTML page.

    Example: bioverify report runs/first --output report.html
    """
    from bioverify_trainer.runs.folder import RunError
    from bioverify_trainer.runs.report import write_report

    try:
        write_report(run, output, scores=scores)
    except RunError as error:
        refuse(error)
    typer.echo(f"report: {output}")


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", autocompletion=run_folders)],
    output: Annotated[Path, typer.Option("--output", help="New folder for model, tokenizer and card.")],
    evaluation: Annotated[Path | None, typer.Option(help="results.json of `bioverify eval`, for the card.")] = None,
) -> None:
    """A run's model with a model card.

    The model as safetensors, adapters merged; the card is filled from the run.

    Example: bioverify export runs/first --output exported
    """
    quieten()
    from bioverify_trainer.runs.export import export as write
    from bioverify_trainer.runs.folder import RunError

    try:
        write(run, output, evaluation=evaluation)
    except RunError as error:
        refuse(error)
    typer.echo(f"exported: {output}")
