"""`bioverify check-text`: what do the sources of the verifier claims support in a text that answers no question?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from bioverify.cli.showing import Target
from bioverify.cli.terminal import fail, plain_errors, running_aggregator
from bioverify.cli.tls import TlsCa, TlsCertificate, TlsKey, identity

_DEADLINE_S = 60.0
_PARAGRAPH = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|\Z))+")


def check_text(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, allow_dash=True, help="Prose; - is the input.")],
    target: Target = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Check the claims about genes that a text makes.

    Each is supported, contradicted, or not known to the sources. Each paragraph is read by itself; what is said of "it"
    belongs to the gene that it named last. Exit status 1 if a paragraph could not be checked.

    Example: bioverify check-text notes.txt
    """
    from rich.console import Console

    from bioverify.client import Client, ClientError, ScoreItem
    from bioverify.core.outcomes import Scored, Verdict
    from bioverify.core.recipes import one_verifier
    from bioverify.core.tasks import PROSE

    try:
        text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise fail(f"{file} is no text in UTF-8: {error}") from error
    paragraphs = list(_PARAGRAPH.finditer(text))
    if not paragraphs:
        raise fail(f"{file} is empty: there is nothing to check")
    items = [ScoreItem(str(index), found[0], task=PROSE) for index, found in enumerate(paragraphs)]
    tls = identity(tls_certificate, tls_key, tls_ca)
    with plain_errors(ClientError, ValueError), Client(running_aggregator(target), tls=tls, warns=False) as client:
        rewards = client.score(items, one_verifier("claims"), deadline_s=_DEADLINE_S).rewards
    console = Console(highlight=False)
    colours = {Verdict.SUPPORTED: "green", Verdict.CONTRADICTED: "red", Verdict.UNSUPPORTED: "yellow"}
    counts = dict.fromkeys(Verdict, 0)
    n_failed = 0
    for found, reward in zip(paragraphs, rewards, strict=True):
        line = text.count("\n", 0, found.start()) + 1
        outcome = reward.parts[0].outcome
        if not isinstance(outcome, Scored):
            n_failed += 1
            console.print(f"line {line}: not checked: {outcome.detail}", style="red", markup=False, soft_wrap=True)
            continue
        for verdict in Verdict:
            counts[verdict] += int(outcome.components[verdict])
        console.print(f"line {line}: precision {outcome.components['precision']:.2f}", style="bold", markup=False)
        for one in outcome.evidence:
            style = colours[one.quote.verdict] if one.quote else "dim"
            console.print(f"  {one.text}", style=style, markup=False, soft_wrap=True)
    console.print(", ".join(f"{count:,} {verdict}" for verdict, count in counts.items()))
    if n_failed:
        raise fail(f"{n_failed:,} of {len(paragraphs):,} paragraphs could not be checked")
