"""`bioverify runs`: the runs in a folder, listed, shown, compared, resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bioverify.core import alarms
from bioverify_trainer.cli.options import console
from bioverify_trainer.cli.service import TokenOption, show_states
from bioverify_trainer.runs.folder import RunError
from bioverify_trainer.runs.record import TEACHES, Run, differences, find_runs

app = typer.Typer(help="The runs in a folder.", no_args_is_help=True, add_completion=False)
RunsFolder = Annotated[Path, typer.Option("--folder", help="Folder of the runs.")]


@app.command("list")
def list_runs(
    folder: RunsFolder = Path("runs"),
    service: Annotated[str | None, typer.Option(help="List the runs of this training service instead.")] = None,
    token_file: TokenOption = None,
) -> None:
    """Every run: recipe, preset, steps done, reward of the last quarter of its steps."""
    if service is not None:
        show_states(service, token_file)
        return
    table = Table("run", "started", "recipe", "preset", "steps", "reward", "unscorable", "simulated", box=None)
    for run in find_runs(folder):
        config = run.config
        table.add_row(
            run.folder.path.name,
            config["started_at"][:16].replace("T", " "),
            config["recipe"]["name"],
            config["preset"]["name"],
            run.steps,
            _number(run.mean("reward", last=True)),
            _number(run.mean("reward_call/unscorable", last=True)),
            "simulated" if config["simulated"] else "no",
        )
    if not table.row_count:
        raise typer.BadParameter(f"{folder} holds no run")
    console.print(table)


@app.command()
def show(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """One run: first and last quarter of its steps, its verifiers, and what gives reason to doubt it."""
    opened = open_run(run)
    config = opened.config
    console.print(
        f"{run}: {config['recipe']['name']} × {config['preset']['name']}, {opened.steps} steps", soft_wrap=True
    )
    console.print(f"started {config['started_at']}, source {config['revision']}, services {config['target']}")
    console.print(_quarters([opened]))
    for verifier in config["verifiers"]:
        simulated = " (simulated)" if any(artifact["simulated"] for artifact in verifier["artifacts"]) else ""
        console.print(f"{verifier['name']} {verifier['version']}, {verifier['fingerprint'][:12]}{simulated}")
    for warning in alarms.raised(opened.metrics):
        console.print(f"[red]Look closer.[/] {escape(warning)}", soft_wrap=True)


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(help="Folders of two runs or more.")]) -> None:
    """What the runs differ in, and how they did."""
    opened = [open_run(run) for run in runs]
    table = Table("", *(run.folder.path.name for run in opened), box=None)
    for key, values in differences(opened):
        table.add_row(key, *values)
    console.print(table)
    console.print(_quarters(opened))


def open_run(path: Path) -> Run:
    """`Run.open`, for a command line."""
    try:
        return Run.open(path)
    except RunError as error:
        raise typer.BadParameter(str(error)) from error


def _quarters(runs: Sequence[Run]) -> Table:
    """Means over the first and the last quarter of the steps."""
    table = Table("mean of first → last quarter", *(run.folder.path.name for run in runs), box=None)
    prefixes = ("reward_call/unscorable", "source/", "value/", "heldout/", "watch/", "pace/")
    records = [record for run in runs for record in run.metrics]
    names = {key for record in records for key in record if key.startswith(prefixes)}
    # Most reasons never come up.
    names |= {key for record in records for key in record if key.startswith(alarms.NOT_READ) and record[key]}
    taught = [name for name in TEACHES if any(record.get(name) is not None for record in records)]
    for name in ["reward", *sorted(names), *taught, "step_seconds"]:
        cells = [f"{_number(run.mean(name, last=False))} → {_number(run.mean(name, last=True))}" for run in runs]
        table.add_row(name, *cells)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
