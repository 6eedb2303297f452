"""`bioverify try` and `bioverify.local()`: a first score from what ships, without a build, a download or Docker."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.local_stack import has_gateway, start_and_tell
from bioverify.cli.services import FIRST_VERIFIERS, PREBUILT, VERIFIERS, opened_by, workers_of
from bioverify.cli.terminal import plain_errors
from bioverify.ports import PORT_BASE

if TYPE_CHECKING:
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.client import Client
    from bioverify.stack import Plan

RECIPE = "first-score"


def try_it(
    port_base: Annotated[
        int, typer.Option(min=1024, max=64_000, help="The aggregator's port; the others follow from it.")
    ] = PORT_BASE,
) -> None:
    """A first score in under a minute, from what ships.

    Starts the verifiers that need no build and no download, or asks the stack that runs, and leaves it running.

    Example: bioverify try
    """
    from rich.console import Console

    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.prebuilt import EXAMPLES
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.cli.tally import Tally, said_of
    from bioverify.client import Client, ClientError
    from bioverify.rollouts.lines import LineError, lines_of, read_chunks
    from bioverify.stack import StackError, state_folder

    def stop_at(error: LineError) -> None:
        raise error

    started = time.monotonic()
    console = Console(highlight=False)
    store = ArtifactStore.default()
    with plain_errors(StackError):
        plan = _running()
    if plan is None:
        with plain_errors(ArtifactError):
            told = install_where_nothing_is(store)
        console.print(told, soft_wrap=True)
        plan = _plan(state_folder(), port_base, gateway=has_gateway())
        start_and_tell(plan)
    with plain_errors(ClientError, LineError), EXAMPLES.open("rb") as file, Client(plan.aggregator) as client:
        lines = [line for chunk in read_chunks(lines_of(file), (), stop_at, 100) for line in chunk]
        batch = client.score([line.item for line in lines], RECIPE)
    tally = Tally()
    tally.add(lines, batch)
    console.print(f"\nThree answers to: {lines[0].item.prompt[-1].content}", soft_wrap=True, markup=False)
    for line, reward in tally.first_rows:
        of_all = f"of {reward.highest:g}"
        shown = f"{reward.reward:.3f} {of_all}" if reward.reward is not None else f"— ({reward.unscorable_because})"
        console.print(f"  {line.id:10} {shown}  {reward.verdict}", soft_wrap=True, markup=False)
    first = batch.rewards[0]
    console.print("Why no reward:" if first.reward is None else f"Why {first.reward:.3f}:")
    for verifier, outcome in {part.term.verifier: part.outcome for part in first.parts}.items():
        console.print(f"  {verifier:20} {said_of(outcome)}", soft_wrap=True)
    console.print(f"\nFirst score after {time.monotonic() - started:.0f} s.", soft_wrap=True)
    if plan.has_gateway:
        console.print(f"Ask your own questions: http://{plan.gateway}", soft_wrap=True)
    console.print(
        f"Your own file: bioverify score FILE.jsonl --recipe {RECIPE}. Stop it: bioverify down", soft_wrap=True
    )
    if store.manifest("experimental").simulated:
        console.print(
            "The screen is simulated, not an experiment. The real one comes by: "
            "bioverify data fetch --accept-license && bioverify data build --all",
            style="yellow",
            soft_wrap=True,
        )


@contextmanager
def local() -> Iterator[Client]:
    """A client of the stack that runs here, or of one that is started for it and ended with it.

    ```python
    with bioverify.local() as client:
        batch = client.score([ScoreItem("1", completion, question)], "first-score")
    ```

    The stack that is started has the verifiers whose artifacts ship. Raises StackError if it cannot be started,
    ArtifactError if some of these artifacts are built and others are not.
    """
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.client import Client
    from bioverify.stack import down, free_port_base, up

    if (running := _running()) is not None:
        with Client(running.aggregator) as client:
            yield client
        return
    install_where_nothing_is(ArtifactStore.default())
    with tempfile.TemporaryDirectory(prefix="bioverify-") as folder:
        plan = _plan(Path(folder), free_port_base(VERIFIERS), gateway=False)
        up(plan, lambda _: None)
        try:
            with Client(plan.aggregator) as client:
                yield client
        finally:
            down(plan.folder)


def install_where_nothing_is(store: ArtifactStore) -> str:
    """Put what ships into the store if none of it is built there; what was done, or is there, as a sentence.

    Never beside artifacts of another build: what was made from other names of genes does not fit. Raises ArtifactError.
    """
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.prebuilt import install

    needed = opened_by(FIRST_VERIFIERS)
    built = set(store.names()) & set(PREBUILT)
    if not built:
        installed = install(store)
        return f"Installed what ships into {store.root}: {', '.join(one.name for one in installed)}"
    if missing := [name for name in needed if name not in built]:
        raise ArtifactError(
            f"not built yet in {store.root}, beside what is built: {', '.join(missing)}. "
            f"Run: bioverify data build {' '.join(missing)}"
        )
    return f"Using what is built in {store.root}"


def _plan(folder: Path, port_base: int, *, gateway: bool) -> Plan:
    from bioverify.stack import Plan

    return Plan(
        folder,
        VERIFIERS,
        port_base,
        workers=workers_of(FIRST_VERIFIERS, 1),
        has_gateway=gateway,
        runs_folder=Path("runs").absolute() if gateway else None,
        left_out=tuple(name for name in VERIFIERS if name not in FIRST_VERIFIERS),
    )


def _running() -> Plan | None:
    """The stack of this person, if its aggregator answers and all that a first score asks is served."""
    from bioverify.health import serves
    from bioverify.stack import Plan, state_folder
    from bioverify.stack.plan import AGGREGATOR_HEALTH

    plan = Plan.load(state_folder())
    if plan is None or not serves(plan.aggregator, AGGREGATOR_HEALTH) or not set(FIRST_VERIFIERS) <= set(plan.started):
        return None
    return plan
