"""`bioverify up`, `down` and `status`: the whole service line on this machine, without root or Docker."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.completion import recipe_names, verifier_names
from bioverify.cli.services import CONSENSUS_MEMBERS, VERIFIERS, composes_consensus, opened_by, workers_of
from bioverify.cli.terminal import AsJson, fail, plain_errors, print_json
from bioverify.ports import PORT_BASE

if TYPE_CHECKING:
    from rich.table import Table

    from bioverify.stack import Plan, ProcessStatus


def up(
    port_base: Annotated[
        int, typer.Option(min=1024, max=64_000, help="The aggregator's port; the others follow from it.")
    ] = PORT_BASE,
    redis_url: Annotated[
        str | None,
        typer.Option(
            envvar="BIOVERIFY_REDIS_URL",
            help="A Redis or Valkey of your own, in place of the embedded one; as of aggregate.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of each service; without: by what it costs and the cores here.")
    ] = None,
    gateway: Annotated[
        bool, typer.Option(help="HTTP and the web pages on the ninth port up; needs the extra [gateway].")
    ] = True,
    runs: Annotated[Path, typer.Option(help="Training runs that the page Runs shows.")] = Path("runs"),
    only: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Start this verifier, not all; repeat it. Of: {', '.join(VERIFIERS)}.", autocompletion=verifier_names
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Start the verifiers that this recipe asks; or a YAML file of one.", autocompletion=recipe_names
        ),
    ] = None,
) -> None:
    """Start the services on this machine.

    Verifiers, aggregator, gateway and Valkey, as supervised processes; returns when all are ready.

    Example: bioverify up --recipe rbio1-exp
    """
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.stack import Plan, state_folder
    from bioverify.transport.redis_address import RedisAddressError, read_address

    if redis_url is not None:
        with plain_errors(RedisAddressError):
            read_address(redis_url)
    chosen = _chosen(only or [], recipe)
    root = ArtifactStore.default().root
    if missing := [name for name in opened_by(chosen) if not (root / name / "current").exists()]:
        what = "--all" if len(chosen) == len(VERIFIERS) else " ".join(missing)
        raise fail(
            f"not built yet in {root}: {', '.join(missing)}. Run: bioverify data build {what}. "
            "Or begin with what ships: bioverify try"
        )
    plan = Plan(
        state_folder(),
        VERIFIERS,
        port_base,
        redis_url,
        workers_of(chosen, workers),
        gateway and has_gateway(),
        consensus=composes_consensus(chosen),
        runs_folder=runs.absolute(),
        left_out=tuple(name for name in VERIFIERS if name not in chosen),
    )
    start_and_tell(plan)


def has_gateway() -> bool:
    """Whether what the gateway needs is installed."""
    return importlib.util.find_spec("fastapi") is not None


def start_and_tell(plan: Plan) -> None:
    """Start the stack, show its processes as they become ready, and say where it is."""
    from rich.console import Console
    from rich.live import Live

    from bioverify.stack import StackError
    from bioverify.stack import up as start

    console = Console(highlight=False)
    with plain_errors(StackError), Live(console=console, transient=True) as live:
        processes = start(plan, lambda statuses: live.update(_table(statuses)))
    console.print(_table(processes))
    pages = f" and http://{plan.gateway}" if plan.has_gateway else ""
    console.print(
        f"Ready at {plan.aggregator}{pages}. Logs in {plan.folder / 'logs'}. Stop it: bioverify down", soft_wrap=True
    )


def _chosen(only: list[str], recipe: str | None) -> tuple[str, ...]:
    """The verifiers to start, in the order of their ports."""
    from bioverify import recipes
    from bioverify.core.consensus import CONSENSUS
    from bioverify.settings import SettingsError

    if only and recipe:
        raise fail("--only and --recipe both say which verifiers to start; give one of them")
    if not (only or recipe):
        return VERIFIERS
    if recipe:
        with plain_errors(SettingsError):
            named = recipes.read(Path(recipe)) if recipe.endswith((".yaml", ".yml")) else recipes.load(recipe)
        asked = set(named.verifiers)
        if CONSENSUS in asked:
            asked = asked - {CONSENSUS} | CONSENSUS_MEMBERS
    else:
        asked = set(only)
    if unknown := asked - set(VERIFIERS):
        raise fail(f"no verifier is called {', '.join(sorted(unknown))}; there are: {', '.join(VERIFIERS)}")
    return tuple(name for name in VERIFIERS if name in asked)


def down() -> None:
    """Stop everything that `bioverify up` started.

    Example: bioverify down
    """
    from bioverify.stack import StackError, state_folder
    from bioverify.stack import down as stop

    with plain_errors(StackError):
        stopped = stop(state_folder())
    typer.echo(f"Stopped: {', '.join(stopped)}" if stopped else "Nothing was up.")


def status(as_json: AsJson = False) -> None:
    """Every process as it is now.

    Exit status 1 if one is not ready.

    Example: bioverify status --json
    """
    from rich.console import Console

    from bioverify.stack import StackError, state_folder
    from bioverify.stack import status as look

    with plain_errors(StackError):
        processes = look(state_folder())
    if as_json:
        print_json(processes)
    else:
        Console(highlight=False).print(_table(processes))
    if not all(process.is_ready for process in processes):
        raise typer.Exit(1)


def _table(processes: Sequence[ProcessStatus]) -> Table:
    from rich.table import Column, Table

    # On a narrow terminal the others give way.
    name, address = Column("process", no_wrap=True), Column("address", no_wrap=True)
    table = Table(
        name, "pid", "state", "ready", address, "uptime", "simulated", box=None, padding=(0, 2, 0, 0), pad_edge=False
    )
    for process in processes:
        table.add_row(
            process.name,
            str(process.pid or ""),
            process.state,
            "[green]ready[/]" if process.is_ready else "[yellow]not yet[/]",
            process.address if "/" not in process.address else f"…/{process.address.rpartition('/')[2]}",
            "" if process.uptime_s is None else f"{process.uptime_s:,.0f} s",
            {None: "", True: "[yellow]simulated[/]", False: "no"}[process.simulated],
        )
    return table
