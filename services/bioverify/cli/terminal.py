"""How commands speak: errors as one plain message on stderr and exit status 1, never a traceback for a known cause."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from bioverify import ports

AsJson = Annotated[bool, typer.Option("--json", help="As JSON on stdout.")]


def fail(message: str) -> typer.Exit:
    """Print the message; raise what is returned."""
    sys.stdout.flush()
    typer.secho(f"bioverify: {message}", err=True, fg="red" if sys.stderr.isatty() else None)
    return typer.Exit(1)


@contextmanager
def plain_errors(*kinds: type[Exception]) -> Iterator[None]:
    """End the command with the message of an error of these kinds."""
    try:
        yield
    except kinds as error:
        raise fail(str(error)) from error


def print_json(value: Any) -> None:
    """For another program: indented, in UTF-8, whatever the terminal's width."""
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def check_folder_of(file: Path, option: str) -> None:
    """End the command if the file cannot be written because its folder is missing."""
    if not file.parent.is_dir():
        raise fail(f"{option} {file}: there is no folder {file.parent}. Run: mkdir -p {file.parent}")


def running_aggregator(target: str | None) -> str:
    """``target`` if it is given, else the aggregator of the local stack."""
    from bioverify.stack import Plan, StackError, state_folder

    if target:
        return target
    with plain_errors(StackError):
        plan = Plan.load(state_folder())
    return plan.aggregator if plan else ports.AGGREGATOR
