"""`bioverify rescore`: results that are missing, overtaken or stand for a fault are asked for again, and added."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.scoring import (
    CHUNK_DEADLINE_S,
    CHUNK_SIZE,
    Output,
    RecipeName,
    Rollouts,
    UnreadRows,
    WithEvidence,
    fingerprints_now,
    named_recipe,
    output_for,
    progress,
    show_reasons,
    show_tally,
)
from bioverify.cli.showing import Target
from bioverify.cli.terminal import fail, plain_errors, running_aggregator
from bioverify.cli.tls import TlsCa, TlsCertificate, TlsKey, identity
from bioverify.core import DEFAULT_RECIPE

if TYPE_CHECKING:
    from rich.console import Console

    from bioverify.cli.tally import Tally
    from bioverify.client import Client, ListedVerifier
    from bioverify.rollouts.ledger import Ledger
    from bioverify.rollouts.lines import FileItem
    from bioverify.rollouts.rescoring import Rescoring

SAMPLE_ROWS = 256
"""Asked about in a dry run, to say what the rest would cost."""


def rescore(
    rollouts: Rollouts,
    recipe_name: RecipeName = DEFAULT_RECIPE,
    target: Target = None,
    output: Output = None,
    only_failed: Annotated[bool, typer.Option("--only-failed", help="Only what lacks a verifier by a fault.")] = False,
    only_verifier: Annotated[
        str, typer.Option(help="Ask this verifier only; what the others said is kept.", metavar="NAME")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; say what it would cost, from a sample.")
    ] = False,
    evidence: WithEvidence = True,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Score again what is new, changed or failed.

    That is: what has no result yet, was scored by other verifiers or another recipe, or lacks a verifier by a fault. It
    is added to the results. Nothing is written twice: a second run adds nothing, and one that was killed is resumed.
    The last line of a row counts.

    Example: bioverify rescore completions.jsonl --recipe rbio1-exp --output scored.jsonl
    """
    from rich.console import Console

    from bioverify.cli.tally import Tally
    from bioverify.client import Client, ClientError
    from bioverify.rollouts.ledger import Ledger
    from bioverify.rollouts.lines import read_chunks
    from bioverify.rollouts.rescoring import Rescoring
    from bioverify.rollouts.stored import StoredRollouts

    output = output_for(rollouts, output)
    if dry_run and not output.exists():
        raise fail(f"there are no results in {output} yet. Score first: bioverify score {rollouts}")
    console = Console(highlight=False)
    unread, tally, counts = UnreadRows(), Tally(), Counter[str]()
    tls = identity(tls_certificate, tls_key, tls_ca)
    with plain_errors(ClientError, ValueError), Client(running_aggregator(target), tls=tls, warns=False) as client:
        recipe = named_recipe(client, recipe_name)
        if only_verifier and only_verifier not in recipe.verifiers:
            raise fail(f"recipe {recipe_name} does not ask {only_verifier}; it asks: {', '.join(recipe.verifiers)}")
        listed = {known.name: known for known in client.list_verifiers()}
        wanted = Rescoring(recipe, fingerprints_now(client, recipe), only_failed, only_verifier)
        stored = StoredRollouts(rollouts)
        sources = [source.name for source in recipe.sources]
        with Ledger(output) as ledger, progress() as bar:
            task = bar.add_task(f"Looking through {rollouts.name}", total=stored.total)
            chunks = read_chunks(stored.lines(), sources, unread, CHUNK_SIZE, unread_keys=unread.keys)
            found = _groups_to_ask(chunks, wanted, ledger, counts)
            if dry_run:
                sample = list(islice(found, SAMPLE_ROWS))
                started = time.monotonic()
                _score(sample, client, wanted, ledger, tally, listed, evidence, keep=False)
                _show_cost(console, tally, time.monotonic() - started, sum(1 for _ in found) + len(sample), counts)
                return
            added = 0
            for chunk in _chunks(found):
                added += _score(chunk, client, wanted, ledger, tally, listed, evidence, keep=True)
                bar.update(task, completed=stored.done)
    show_tally(console, tally)
    console.print(f"{tally.summary(recipe.name)}. {_reasons(counts)}", soft_wrap=True)
    console.print(f"{added:,} results added to {output}", soft_wrap=True)
    show_reasons(console, tally)
    unread.name_keys()
    unread.fail_where_any("the others were looked at")


def _groups_to_ask(
    chunks: Iterable[list[FileItem]], wanted: Rescoring, ledger: Ledger, counts: Counter[str]
) -> Iterator[list[FileItem]]:
    from bioverify.rollouts.rescoring import groups

    for group in chain.from_iterable(map(groups, chunks)):
        why = wanted.why(group, ledger)
        counts[why or "stands"] += len(group)
        if why:
            yield group


def _chunks(found: Iterable[list[FileItem]]) -> Iterator[list[list[FileItem]]]:
    chunk: list[list[FileItem]] = []
    for group in found:
        chunk.append(group)
        if sum(map(len, chunk)) >= CHUNK_SIZE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _score(
    chunk: list[list[FileItem]],
    client: Client,
    wanted: Rescoring,
    ledger: Ledger,
    tally: Tally,
    listed: dict[str, ListedVerifier],
    evidence: bool,
    *,
    keep: bool,
) -> int:
    """Ask about the groups of a chunk; how many results were added. Raises ClientError."""
    from bioverify.rollouts.ledger import stamped
    from bioverify.rollouts.rescoring import as_answered

    mending: list[FileItem] = []
    whole: list[FileItem] = []
    for group in chunk:
        one = wanted.only_verifier
        is_enough = bool(one) and wanted.can_be_mended(group, ledger, listed[one])
        (mending if is_enough else whole).extend(group)
    results = []
    if whole:
        items = [line.item for line in whole]
        batch = client.score(items, wanted.recipe, deadline_s=CHUNK_DEADLINE_S, with_evidence=evidence)
        behind = as_answered(wanted.fingerprints, batch)
        tally.add(whole, batch)
        results += [
            stamped(line, reward, wanted.recipe, behind) for line, reward in zip(whole, batch.rewards, strict=True)
        ]
    if mending:
        items = [line.item for line in mending]
        batch = client.score(items, wanted.part, deadline_s=CHUNK_DEADLINE_S, with_evidence=evidence)
        mended = wanted.mended(mending, batch, ledger, as_answered(wanted.fingerprints, batch))
        tally.add(mending, replace(batch, rewards=[reward for reward, _ in mended]))
        results += [result for _, result in mended]
    return ledger.add(results) if keep else 0


def _show_cost(console: Console, tally: Tally, seconds: float, groups: int, counts: Counter[str]) -> None:
    to_ask = counts.total() - counts["stands"]
    console.print(f"{_reasons(counts)}: {to_ask:,} rows in {groups:,} groups to be asked about. Nothing was written.")
    if not tally.lines:
        return
    share = tally.cache_hits / max(1, tally.distinct)
    rate = tally.lines / seconds
    console.print(
        f"A sample of {tally.lines:,} took {seconds:.1f} s, {rate:,.0f} rows/s: {tally.distinct:,} distinct questions, "
        f"{share:.0%} of them in the cache. All would take about {to_ask / rate:,.0f} s at that rate.",
        soft_wrap=True,
    )


def _reasons(counts: Counter[str]) -> str:
    words = {"new": "without a result", "changed": "changed", "failed": "failed", "stands": "stand as they are"}
    return ", ".join(f"{counts[why]:,} {word}" for why, word in words.items() if counts[why]) or "no rows"
