"""`bioverify score` and `bioverify rescore`: stored rollouts in, rewards with reasons out.

Rollouts are streamed: read, scored and written in chunks. A row that cannot be read is reported by its number and the
rest is scored; an item that cannot be scored is a result like any other. `score` begins its file again; `rescore` adds
to it what is new, changed or failed, so it also resumes a run that was killed (`bioverify.rollouts.ledger`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.completion import recipe_names
from bioverify.cli.showing import Target
from bioverify.cli.terminal import check_folder_of, fail, plain_errors, running_aggregator
from bioverify.cli.tls import TlsCa, TlsCertificate, TlsKey, identity
from bioverify.core import DEFAULT_RECIPE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from bioverify.cli.tally import Tally
    from bioverify.client import Client
    from bioverify.core.recipes import Recipe
    from bioverify.rollouts.ledger import Ledger
    from bioverify.rollouts.lines import LineError

CHUNK_SIZE = 256
# ROUGE of 256 long completions takes seconds, a cold start of everything behind the aggregator some more.
CHUNK_DEADLINE_S = 120.0
SHOWN_ERRORS = 20

Rollouts = Annotated[
    Path,
    typer.Argument(exists=True, help="JSONL or Parquet with prompt and completion, task optional; or TRL's folder."),
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="A reward mixture, see: bioverify recipes; or a YAML file of one.",
        autocompletion=recipe_names,
    ),
]
Output = Annotated[Path | None, typer.Option(help="Where the JSONL goes; none: ROLLOUTS.scored.jsonl.")]
WithEvidence = Annotated[bool, typer.Option("--evidence/--no-evidence", help="Leaving it out is faster.")]


def score(
    rollouts: Rollouts,
    recipe_name: RecipeName = DEFAULT_RECIPE,
    target: Target = None,
    output: Output = None,
    evidence: WithEvidence = True,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Score a file of completions.

    Prints tables; reward, parts and evidence of each row go into a JSONL file. Exit status 1 if a row could not be
    read; the others are scored. An unscorable item is no error. Questions, thoughts and answers that could not be read
    are counted by reason at the end. What questions, completions and files are read, and how: docs/reading.md.

    Example: bioverify score completions.jsonl --recipe rbio1-exp --output scored.jsonl
    """
    from rich.console import Console

    from bioverify.cli.tally import Tally
    from bioverify.client import Client, ClientError
    from bioverify.rollouts.ledger import stamped
    from bioverify.rollouts.lines import read_chunks
    from bioverify.rollouts.rescoring import as_answered
    from bioverify.rollouts.stored import StoredRollouts

    output = output_for(rollouts, output)
    unread, tally = UnreadRows(), Tally()
    tls = identity(tls_certificate, tls_key, tls_ca)
    with plain_errors(ClientError, ValueError), Client(running_aggregator(target), tls=tls, warns=False) as client:
        recipe = named_recipe(client, recipe_name)
        fingerprints = fingerprints_now(client, recipe)
        stored = StoredRollouts(rollouts)
        with _begun_beside(output) as results, progress() as bar:
            task = bar.add_task(f"Scoring {rollouts.name}", total=stored.total)
            sources = [source.name for source in recipe.sources]
            chunks = read_chunks(stored.lines(), sources, unread, CHUNK_SIZE, unread_keys=unread.keys)
            for chunk in chunks:
                try:
                    batch = client.score(
                        [line.item for line in chunk], recipe, deadline_s=CHUNK_DEADLINE_S, with_evidence=evidence
                    )
                except ClientError as error:
                    if not tally.lines:
                        raise fail(f"row {chunk[0].line}: {error}. {output} was not touched") from error
                    raise fail(
                        f"row {chunk[0].line}: {error}. The {tally.lines:,} rows before it are in {output}; "
                        f"go on with: bioverify rescore {rollouts} --recipe {recipe_name} --output {output}"
                    ) from error
                behind = as_answered(fingerprints, batch)
                results.add(
                    stamped(line, reward, recipe, behind) for line, reward in zip(chunk, batch.rewards, strict=True)
                )
                if results.path != output:
                    results.move_to(output)
                tally.add(chunk, batch)
                bar.update(task, completed=stored.done)
    if not tally.lines:
        unread.name_keys()
        raise fail(f"{rollouts}: none of its {unread.count:,} lines could be read; {output} was not touched")
    console = Console(highlight=False)
    show_tally(console, tally)
    console.print(f"{tally.summary(recipe.name)}. Written: {output}", soft_wrap=True)
    show_reasons(console, tally)
    unread.name_keys()
    unread.fail_where_any(f"the other {tally.lines:,} were scored")


def output_for(rollouts: Path, output: Path | None) -> Path:
    output = output or (rollouts / "scored.jsonl" if rollouts.is_dir() else rollouts.with_suffix(".scored.jsonl"))
    if output.is_dir():
        raise fail(f"--output {output} is a folder; name a file in it")
    check_folder_of(output, "--output")
    if output.exists() and output.samefile(rollouts):
        raise fail(f"--output {output} is the input file")
    return output


@contextmanager
def _begun_beside(output: Path) -> Iterator[Ledger]:
    """A ledger to begin with, which stands beside the old one until something is scored. Raises LedgerError."""
    from bioverify.rollouts.ledger import Ledger

    if output.exists():
        # Whatever else stands there is not ours to replace.
        Ledger(output).close()
    beside = output.with_name(f".{output.name}.partial")
    beside.unlink(missing_ok=True)
    try:
        with Ledger(beside) as results:
            yield results
    finally:
        beside.unlink(missing_ok=True)


def named_recipe(client: Client, name: str) -> Recipe:
    """The recipe of a file, or the aggregator's of that name."""
    from bioverify.recipes import read
    from bioverify.settings import SettingsError

    if name.endswith((".yaml", ".yml")):
        with plain_errors(SettingsError):
            return read(Path(name))
    known = {known.name: known for known in client.list_recipes()}
    if name not in known:
        raise fail(f"no recipe is called {name}; there are: {', '.join(known)}")
    return known[name]


def fingerprints_now(client: Client, recipe: Recipe) -> dict[str, str]:
    """Of the verifiers that the recipe asks; empty for one that does not answer."""
    asked = set(recipe.verifiers)
    return {known.name: known.fingerprint for known in client.list_verifiers() if known.name in asked}


def progress() -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True)


class UnreadRows:
    """Rows that could not be read: the first are shown as they come, all are counted."""

    def __init__(self) -> None:
        self.count = 0
        self.keys: set[str] = set()

    def __call__(self, error: LineError) -> None:
        self.count += 1
        if self.count <= SHOWN_ERRORS:
            typer.echo(str(error), err=True)
        elif self.count == SHOWN_ERRORS + 1:
            typer.echo("… and more lines like these", err=True)

    def name_keys(self) -> None:
        if self.keys:
            typer.echo(f"keys that nobody reads: {', '.join(sorted(self.keys))}", err=True)

    def fail_where_any(self, others: str) -> None:
        if self.count:
            raise fail(f"{self.count:,} lines could not be read; {others}")


def show_tally(console: Console, tally: Tally) -> None:
    if tally.lines:
        for line in tally.verdict_lines():
            console.print(line, markup=False, soft_wrap=True)
        console.print(tally.first_rows_table())
        console.print(tally.verifier_table())
        if claims := tally.claims_line():
            console.print(claims, soft_wrap=True)


def show_reasons(console: Console, tally: Tally) -> None:
    """Why items have no reward, what could not be read, and which verifiers failed."""
    for line in tally.readings.lines():
        console.print(f"  {line}", soft_wrap=True, markup=False)
    if warning := tally.readings.warning:
        console.print(f"WARNING: {warning}", style="bold red", soft_wrap=True, markup=False)
    for reason, count in tally.unscorable.most_common(3):
        console.print(f"  {count:,} unscorable: {reason}", soft_wrap=True, markup=False)
    for label, term in tally.terms.items():
        if term.failed:
            console.print(f"  {label} failed for {term.failed:,}: {term.first_failure}", soft_wrap=True, markup=False)
