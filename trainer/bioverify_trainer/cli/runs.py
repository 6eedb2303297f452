"""`bioverify runs`: the runs in a folder, listed, shown, compared, resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from bioverify.core import alarms
from bioverify_trainer.cli.options import RunArgument, console, print_json, run_folders
from bioverify_trainer.cli.service import TokenOption, show_states
from bioverify_trainer.runs.folder import RunError
from bioverify_trainer.runs.record import TEACHES, Run, differences, find_runs

app = typer.Typer(help="The runs in a folder, or of a training service.", no_args_is_help=True)
RunsFolder = Annotated[Path, typer.Option("--folder", help="Folder of the runs.")]


@app.command("list")
def list_runs(
    folder: RunsFolder = Path("runs"),
    service: Annotated[str | None, typer.Option(help="List the runs of this training service instead.")] = None,
    token_file: TokenOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Every run, and how far it got.

    Recipe, preset, steps done, reward of the last quarter of its steps.

    Example: bioverify runs list --folder runs
    """
    if service is not None:
        show_states(service, token_file, as_json=as_json)
        return
    found = [_listed(run) for run in find_runs(folder)]
    if not found:
        raise typer.BadParameter(f"{folder} holds no run")
    if as_json:
        print_json(found)
        return
    # Names are folded on a narrow terminal, and never cut.
    names = (Column(name, overflow="fold") for name in ("run", "recipe", "preset"))
    figures = (Column(name, no_wrap=True) for name in ("steps", "reward", "unscorable", "simulated"))
    table = Table(*names, Column("started", overflow="fold"), *figures, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for run in found:
        table.add_row(
            *map(escape, (run["name"], run["recipe"], run["preset"])),
            run["started_at"][:16].replace("T", " "),
            f"{run['steps']} of {run['max_steps']}",
            _number(run["reward"]),
            _number(run["unscorable"]),
            "simulated" if run["simulated"] else "no",
        )
    console.print(table)


def _listed(run: Run) -> dict[str, Any]:
    """What the list says of a run; ``reward`` and ``unscorable``: of the last quarter of its steps, null before one."""
    return {
        "name": run.folder.path.name,
        "folder": str(run.folder.path),
        "started_at": run.config["started_at"],
        "recipe": run.config["recipe"]["name"],
        "preset": run.config["preset"]["name"],
        "steps": run.steps_done,
        "max_steps": run.max_steps,
        "reward": run.mean("reward", last=True),
        "unscorable": run.mean("reward_call/unscorable", last=True),
        "simulated": run.config["simulated"],
    }


@app.command()
def show(run: RunArgument) -> None:
    """One run, and what gives reason to doubt it.

    First and last quarter of its steps, its verifiers, its alarms.

    Example: bioverify runs show runs/first
    """
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
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of two runs or more.", autocompletion=run_folders)],
) -> None:
    """What the runs differ in, and how they did.

    Example: bioverify runs compare runs/first runs/second
    """
    opened = [open_run(run) for run in runs]
    table = Table(Column("", overflow="fold"), *_run_columns(opened), box=None)
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


def _run_columns(runs: Sequence[Run]) -> list[Column]:
    return [Column(escape(run.folder.path.name), overflow="fold") for run in runs]


def _quarters(runs: Sequence[Run]) -> Table:
    """Means over the first and the last quarter of the steps."""
    table = Table(Column("mean of first → last quarter", overflow="fold"), *_run_columns(runs), box=None)
    prefixes = ("reward_call/unscorable", "source/", "value/", "heldout/", "watch/", "draws/", "pace/")
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
