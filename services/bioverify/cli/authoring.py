"""`bioverify verifier new`, `serve` and `test`: a verifier of your own, in this language or another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from bioverify import ports
from bioverify.cli.services import VERIFIERS
from bioverify.cli.serving import HealthPort, Listen, MetricsPort, Workers, server_config
from bioverify.cli.terminal import fail, plain_errors
from bioverify.cli.tls import TlsCa, TlsCertificate, TlsKey, identity

if TYPE_CHECKING:
    from bioverify.client import ScoreItem
    from bioverify.conformance import Report, Result

app = typer.Typer(help="Begin, serve and test a verifier of your own.", no_args_is_help=True)


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the folder and of the verifier: lower case, digits, underscores.")
    ],
) -> None:
    """Begin a verifier in a folder ./NAME.

    Code, five rows of data, a test, a README, files for Compose and Helm.

    Example: bioverify verifier new gene_age
    """
    from bioverify.scaffold import ScaffoldError, write

    with plain_errors(ScaffoldError):
        written = write(name, Path.cwd(), taken=VERIFIERS)
    typer.echo(f"Written: {', '.join(str(path) for path in written)}")
    typer.echo(
        f"Test it: pytest {name}\n"
        f"Serve it: bioverify verifier serve {name}\n"
        f"Ask it: bioverify verifier test {ports.OWN_VERIFIER} --items {name}/examples.jsonl"
    )


@app.command()
def serve(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="With a verifier.py that has open_verifier().")
    ],
    listen: Listen = ports.OWN_VERIFIER,
    metrics_port: MetricsPort = None,
    workers: Workers = 1,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    health_port: HealthPort = None,
) -> None:
    """Serve the verifier of a folder until SIGTERM.

    Example: bioverify verifier serve gene_age
    """
    from bioverify.runtime import server
    from bioverify.scaffold import ScaffoldError, opener

    with plain_errors(ScaffoldError):
        open_verifier = opener(folder)
    config = server_config(listen, metrics_port, workers, identity(tls_certificate, tls_key, tls_ca), health_port)
    os.environ.setdefault("OTEL_SERVICE_NAME", f"bioverify-{folder.resolve().name}")
    server.serve(open_verifier, config)


@app.command("test")
def hold_to_contract(
    target: Annotated[str, typer.Argument(help="host:port or unix:/path.")],
    items: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="JSONL of items that it scores, if it knows special genes."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Hold a running verifier to the contract.

    Exit status 1 if a check fails. It is loaded with full calls, so do not point this at one that is in use.

    Example: bioverify verifier test 127.0.0.1:15061
    """
    from bioverify.conformance import Unreachable, from_items, run

    probes = from_items(_items(items)) if items else []
    with plain_errors(Unreachable):
        report = run(
            target, probes, tls=identity(tls_certificate, tls_key, tls_ca), on_result=_no_line if as_json else _line
        )
    if as_json:
        typer.echo(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        _summary(report)
    if report.failed:
        raise typer.Exit(1)


def _items(file: Path) -> list[ScoreItem]:
    from bioverify.rollouts.lines import LineError, read_items

    def refuse(error: LineError) -> None:
        raise fail(f"{file}: {error}")

    with file.open("rb") as lines:
        return [line.item for line in read_items(lines, (), refuse)]


def _no_line(result: Result) -> None:
    return None


def _line(result: Result) -> None:
    from rich.console import Console
    from rich.table import Table

    colour = {"passed": "green", "failed": "red", "not shown": "yellow"}[result.status]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for width in (9, 15, 7):
        table.add_column(min_width=width, no_wrap=True)
    table.add_row(f"[{colour}]{result.status}[/]", result.check.name, f"{result.seconds:.2f} s", result.check.says)
    console = Console(highlight=False)
    console.print(table)
    for label, text in (
        ("found", result.found),
        *((("asked for in", result.check.where), ("mend", result.check.mend)) if result.status == "failed" else ()),
    ):
        if text:
            console.print(f"           {label}: {text}", soft_wrap=True, markup=False)


def _summary(report: Report) -> None:
    counts = [
        f"{sum(r.status == status for r in report.results)} {status}" for status in ("passed", "failed", "not shown")
    ]
    typer.echo(f"{report.name or report.target} {report.fingerprint}: {', '.join(counts)}")
