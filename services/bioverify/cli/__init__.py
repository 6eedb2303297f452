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
    """A folder that cannot be written to, a full disk, or an extra that is not installed is one sentence, whichever
    command meets it."""

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
app.command(context_settings=training.PASS_THROUGH, add_help_option=False)(training.train)
app.command(context_settings=training.PASS_THROUGH, add_help_option=False)(training.report)
app.command("eval", context_settings=training.PASS_THROUGH, add_help_option=False)(training.evaluate)
app.command(context_settings=training.PASS_THROUGH, add_help_option=False)(training.compare_recipes)
app.command(context_settings=training.PASS_THROUGH, add_help_option=False)(training.runs)
for passed_on in (training.ask, training.chat, training.export):
    app.command(context_settings=training.PASS_THROUGH, add_help_option=False)(passed_on)
