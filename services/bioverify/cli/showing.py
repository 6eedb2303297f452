"""`bioverify verifiers` and `bioverify recipes`: what a running aggregator knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.terminal import plain_errors, running_aggregator

if TYPE_CHECKING:
    from bioverify.core.recipes import Term

_OPTIONAL = {"optional": "?"}
Target = Annotated[
    str | None, typer.Option(envvar="BIOVERIFY_TARGET", help="The aggregator; none: that of `bioverify up`.")
]


def verifiers(target: Target = None) -> None:
    """The verifiers, whether they answer, and what they opened."""
    from rich.console import Console
    from rich.table import Table

    from bioverify.client import Client, ClientError

    with plain_errors(ClientError), Client(running_aggregator(target)) as client:
        listed = client.list_verifiers()
    table = Table("verifier", "ready", "what it says", "task kinds", "artifact", "fingerprint", show_lines=True)
    for verifier in listed:
        artifacts = [f"{a.name} {a.digest[7:19]}{' SIMULATED' if a.simulated else ''}" for a in verifier.artifacts]
        table.add_row(
            f"{verifier.name} {verifier.version}\n{verifier.target}",
            "[green]ready[/]" if verifier.is_ready else "[red]no answer[/]",
            verifier.summary or (verifier.failure.detail if verifier.failure else ""),
            "\n".join(verifier.task_kinds),
            "\n".join(artifacts),
            verifier.fingerprint[:12],
        )
    Console().print(table)


def recipes(target: Target = None) -> None:
    """The reward mixtures that can be named, with their terms; "?" marks an optional one."""
    from rich.console import Console
    from rich.table import Table

    from bioverify.client import Client, ClientError

    with plain_errors(ClientError), Client(running_aggregator(target)) as client:
        listed = client.list_recipes()
    table = Table("recipe", "common terms", "sources", "description", show_lines=True)
    for recipe in listed:
        sources = [f"{s.share:.0%} {s.name}: {_terms(s.terms)}" for s in recipe.sources]
        table.add_row(recipe.name, _terms(recipe.terms), "\n".join(sources), recipe.description)
    Console().print(table)


def _terms(terms: Sequence[Term]) -> str:
    return " + ".join(f"{term.weight:g}·{term.label}{_OPTIONAL.get(term.requirement, '')}" for term in terms)
