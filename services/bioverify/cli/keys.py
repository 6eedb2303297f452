"""`bioverify keys`: who may call the gateway. A running gateway sees every change at the next request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.terminal import check_folder_of, fail, plain_errors

if TYPE_CHECKING:
    from bioverify.gateway.api_keys import Key

app = typer.Typer(help="API keys of the gateway.", no_args_is_help=True)
File = Annotated[Path, typer.Option("--file", help="The keys file that the gateway's settings name.")]
Name = Annotated[str, typer.Argument(help="Whose key it is; stands in the audit log.")]


@app.command()
def new(
    name: Name,
    file: File,
    scope: Annotated[list[str] | None, typer.Option(help="score, train or admin. Repeat it; without: score.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; without: never.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    items_per_day: Annotated[int | None, typer.Option(min=1)] = None,
) -> None:
    """Make a key, print it once, keep its hash.

    Example: bioverify keys new alice --file keys.yaml --scope score --days 90
    """
    from pydantic import ValidationError

    from bioverify.gateway.api_keys import Key, Scope, new_key, write_keys
    from bioverify.settings import first_problem

    check_folder_of(file, "--file")
    keys = _read(file) if file.exists() else ()
    if name in {key.name for key in keys}:
        raise fail(f"{file} has a key called {name}. Take it out first: bioverify keys remove {name}")
    unknown = [word for word in scope or () if word not in list(Scope)]
    if unknown:
        raise fail(f"--scope {unknown[0]}: one of {', '.join(Scope)}")
    try:
        text, key = new_key(
            name,
            tuple(map(Scope, scope or ["score"])),
            expires=datetime.now(UTC) + timedelta(days=days) if days else None,
            requests_per_minute=requests_per_minute,
            items_per_day=items_per_day,
        )
    except ValidationError as error:
        raise fail(f"{name}: {first_problem(error, Key, 'key')}") from error
    write_keys(file, (*keys, key))
    typer.echo(text)
    typer.echo(f"The key of {name}. It is shown this once; {file} has its hash only.", err=True)


@app.command("list")
def show(file: File) -> None:
    """The keys by name, never by text.

    Example: bioverify keys list --file keys.yaml
    """
    from rich.console import Console
    from rich.table import Column, Table

    others = ("scopes", "expires", "requests/min", "items/day")
    table = Table(Column("name", overflow="fold"), *others, box=None, padding=(0, 2, 0, 0))
    for key in _read(file):
        expires = f"{key.expires:%Y-%m-%d}" if key.expires else "never"
        rates = ("–" if rate is None else f"{rate:,}" for rate in (key.requests_per_minute, key.items_per_day))
        table.add_row(key.name, ", ".join(key.scopes), expires, *rates)
    Console(highlight=False).print(table)


@app.command()
def remove(name: Name, file: File) -> None:
    """Take a key out: it is refused from the next request on.

    Example: bioverify keys remove alice --file keys.yaml
    """
    from bioverify.gateway.api_keys import write_keys

    keys = _read(file)
    if name not in {key.name for key in keys}:
        raise fail(f"{file} has no key called {name}")
    write_keys(file, tuple(key for key in keys if key.name != name))
    typer.echo(f"Removed the key of {name}.")


def _read(file: Path) -> tuple[Key, ...]:
    from bioverify.gateway.api_keys import read_keys
    from bioverify.settings import SettingsError

    with plain_errors(SettingsError):
        return read_keys(file)
