"""`bioverify score`: a file of completions in, rewards with reasons out.

The file is streamed: read, scored and written in chunks, so memory does not grow with it. A line that cannot be read is
reported by its number and the rest is scored; an item that cannot be scored is a result like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.showing import Target
from bioverify.cli.terminal import fail, plain_errors, running_aggregator
from bioverify.cli.tls import TlsCa, TlsCertificate, TlsKey, identity

if TYPE_CHECKING:
    from bioverify.client import Client
    from bioverify.core.recipes import Recipe

CHUNK_SIZE = 256
# ROUGE of 256 long completions takes seconds, a cold start of everything behind the aggregator some more.
CHUNK_DEADLINE_S = 120.0
SHOWN_ERRORS = 20


def score(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="JSONL: prompt and completion per line; task optional.")
    ],
    recipe: Annotated[
        str, typer.Option(help="A reward mixture, see: bioverify recipes; or a YAML file of one.")
    ] = "all",
    target: Target = None,
    output: Annotated[Path | None, typer.Option(help="Where the JSONL goes; none: FILE.scored.jsonl.")] = None,
    evidence: Annotated[bool, typer.Option("--evidence/--no-evidence", help="Leaving it out is faster.")] = True,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Score a file of completions: a table here, JSONL with reward, parts and evidence there.

    Exit status 1 where a line could not be read; the others are scored. An unscorable item is no error.
    """
    from rich.console import Console
    from rich.progress import Progress

    from bioverify.cli.tally import Tally
    from bioverify.client import Client, ClientError
    from bioverify.client.jsonl import LineError, in_chunks, output_line, read_items

    output = output or file.with_suffix(".scored.jsonl")
    if output.exists() and output.samefile(file):
        raise fail(f"--output {output} is the input file")
    errors: list[str] = []

    def on_error(error: LineError) -> None:
        errors.append(str(error))
        if len(errors) <= SHOWN_ERRORS:
            typer.echo(str(error), err=True)
        elif len(errors) == SHOWN_ERRORS + 1:
            typer.echo("… and more lines like these", err=True)

    tally = Tally()
    tls = identity(tls_certificate, tls_key, tls_ca)
    with plain_errors(ClientError), Client(running_aggregator(target), tls=tls) as client:
        mixture = _recipe(recipe, client)
        sources = [source.name for source in mixture.sources]
        bar = Progress(console=Console(stderr=True), transient=True)
        with file.open("rb") as lines, output.open("wb") as results, bar:
            task = bar.add_task(f"Scoring {file.name}", total=file.stat().st_size)
            for chunk in in_chunks(read_items(lines, sources, on_error), CHUNK_SIZE):
                try:
                    batch = client.score(
                        [line.item for line in chunk], mixture, deadline_s=CHUNK_DEADLINE_S, with_evidence=evidence
                    )
                except ClientError as error:
                    first = chunk[0].item.id
                    raise fail(f"line {first}: {error}. The {tally.lines:,} lines before it are in {output}") from error
                results.writelines(map(output_line, chunk, batch.rewards))
                tally.add(chunk, batch)
                bar.update(task, completed=lines.tell())

    console = Console(highlight=False)
    if tally.lines:
        console.print(tally.first_rows_table())
        console.print(tally.verifier_table())
    console.print(
        f"{tally.lines:,} scored by {mixture.name}: mean reward {tally.rewards} over {tally.rewards.count:,}, "
        f"{tally.unscorable.total():,} unscorable; {tally.cache_hits:,} of {tally.distinct:,} questions answered by "
        f"the cache. Written: {output}",
        soft_wrap=True,
    )
    for reason, count in tally.unscorable.most_common(3):
        console.print(f"  {count:,} unscorable: {reason}", soft_wrap=True, markup=False)
    for label, term in tally.terms.items():
        if term.failed:
            console.print(f"  {label} failed for {term.failed:,}: {term.first_failure}", soft_wrap=True, markup=False)
    if errors:
        raise fail(f"{len(errors):,} lines could not be read; the other {tally.lines:,} were scored")


def _recipe(named: str, client: Client) -> Recipe:
    """The recipe of a file, or the aggregator's of that name."""
    from bioverify.recipes import RecipeError, read

    if named.endswith((".yaml", ".yml")):
        with plain_errors(RecipeError, OSError):
            return read(Path(named))
    known = {recipe.name: recipe for recipe in client.list_recipes()}
    if named not in known:
        raise fail(f"no recipe is called {named}; there are: {', '.join(known)}")
    return known[named]
