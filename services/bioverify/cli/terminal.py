"""How commands speak: errors as one plain message on stderr and exit status 1, never a traceback for a known cause."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from bioverify import ports


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


def running_aggregator(target: str | None) -> str:
    """``target`` if it is given, else the aggregator of the local stack."""
    from bioverify.stack import Plan, StackError, state_folder

    if target:
        return target
    with plain_errors(StackError):
        plan = Plan.load(state_folder())
    return plan.aggregator if plan else ports.AGGREGATOR
