"""`bioverify …`: the composition root, the only package that knows all the others.

What a command needs is imported inside it: `bioverify --help` answers at once, and torch is loaded only by the service
that computes with it.
"""

from __future__ import annotations

import errno
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bioverify import __version__
from bioverify.cli import (
    artifacts,
    authoring,
    checking_text,
    doctor,
    keys,
    local_stack,
    rescoring,
    scoring,
    serving,
    showing,
    training,
    trying,
)
from bioverify.cli.terminal import fail
from bioverify.errors import missing_extra

# Of a disk or a folder, not of the code: a person can mend them.
_OF_THE_DISK = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}


class _Commands(TyperGroup):
    """The trainer's commands are imported when they are asked for. A folder that cannot be written to, a full disk, or
    an extra that is not installed is one sentence, whichever command meets it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in training.COMMANDS:
            command = training.trainer_command(name, ctx, rest)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if said := missing_extra(error):
                raise fail(said) from error
            raise
        except OSError as error:
            if error.errno not in _OF_THE_DISK or error.filename is None:
                raise
            raise fail(
                f"{error.filename}: {error.strerror}. If it is one of bioverify's own files: BIOVERIFY_HOME and "
                "BIOVERIFY_STATE name folders that you may write to, on a disk with room"
            ) from error


app = typer.Typer(
    name="bioverify",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help: rich's eats words in square brackets, and folds everything into a box.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bioverify {__version__}")
        raise typer.Exit


@app.callback()
def bioverify(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Verifiers as a service for reasoning in biology."""


app.add_typer(artifacts.app, name="data")
app.add_typer(keys.app, name="keys")
app.add_typer(authoring.app, name="verifier")
app.command("try")(trying.try_it)
app.command()(doctor.doctor)
app.command()(local_stack.up)
app.command()(local_stack.down)
app.command()(local_stack.status)
app.command()(scoring.score)
app.command()(rescoring.rescore)
app.command()(checking_text.check_text)
app.command()(showing.verifiers)
app.command()(showing.recipes)
app.command()(serving.serve)
app.command()(serving.aggregate)
app.command()(serving.gateway)
app.command()(serving.healthcheck)
for name, summary in training.COMMANDS.items():
    app.command(name, help=summary)(training.stand_in)
