"""`bioverify verifiers` and `bioverify recipes`: what a running aggregator knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.terminal import AsJson, plain_errors, print_json, running_aggregator
from bioverify.cli.tls import TlsCa, TlsCertificate, TlsKey, identity

if TYPE_CHECKING:
    from bioverify.core.recipes import Term

_OPTIONAL = {"optional": "?"}
Target = Annotated[
    str | None, typer.Option(envvar="BIOVERIFY_TARGET", help="The aggregator; none: that of `bioverify up`.")
]


def verifiers(
    target: Target = None,
    as_json: AsJson = False,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """The verifiers, whether they answer, and what they opened.

    Example: bioverify verifiers --json
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from bioverify.client import Client, ClientError
    from bioverify.client.json_form import listed_verifier_json

    tls = identity(tls_certificate, tls_key, tls_ca)
    with plain_errors(ClientError), Client(running_aggregator(target), tls=tls) as client:
        listed = client.list_verifiers()
    if as_json:
        print_json([listed_verifier_json(verifier) for verifier in listed])
        return
    # Names and addresses are folded, if need be, and never cut.
    table = Table(Column("verifier", overflow="fold"), Column("what it is", overflow="fold"), show_lines=True)
    for verifier in listed:
        artifacts = [
            escape(f"{a.name} {a.digest[:19]}, {a.license}") + (" [yellow]SIMULATED[/]" if a.simulated else "")
            for a in verifier.artifacts
        ]
        table.add_row(
            f"[bold]{escape(verifier.name)}[/] {escape(verifier.version)}\n{escape(verifier.target)}\n"
            + ("[green]ready[/]" if verifier.is_ready else "[red]does not answer[/]"),
            "\n".join(
                [
                    escape(verifier.summary),
                    f"answers: {', '.join(verifier.task_kinds)}",
                    *artifacts,
                    f"fingerprint {verifier.fingerprint}",
                ]
                if verifier.is_ready
                else [escape(verifier.failure.detail) if verifier.failure else ""]
            ),
        )
    Console(highlight=False).print(table)


def recipes(
    target: Target = None,
    as_json: AsJson = False,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """The reward mixtures that can be named, and their terms.

    "?" marks an optional term.

    Example: bioverify recipes --json
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from bioverify.client import Client, ClientError

    tls = identity(tls_certificate, tls_key, tls_ca)
    with plain_errors(ClientError), Client(running_aggregator(target), tls=tls) as client:
        listed = client.list_recipes()
    if as_json:
        print_json([recipe.model_dump(mode="json") for recipe in listed])
        return
    table = Table(Column("recipe", no_wrap=True), Column("what it rewards", overflow="fold"), show_lines=True)
    for recipe in listed:
        sources = [f"{source.share:.0%} {source.name}: {_terms(source.terms)}" for source in recipe.sources]
        rows = [
            f"every item: {_terms(recipe.terms)}" if recipe.terms else "",
            *sources,
            f"[dim]{escape(recipe.description)}[/]",
        ]
        table.add_row(recipe.name, "\n".join(row for row in rows if row))
    Console(highlight=False).print(table)


def _terms(terms: Sequence[Term]) -> str:
    return " + ".join(f"{term.weight:g}·{term.label}{_OPTIONAL.get(term.requirement, '')}" for term in terms)
