"""`bioverify up`, `down` and `status`: the whole service line on this machine, without root or Docker."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.services import SERVED, VERIFIERS, workers_of
from bioverify.cli.terminal import fail, plain_errors
from bioverify.ports import PORT_BASE

if TYPE_CHECKING:
    from rich.table import Table

    from bioverify.stack import ProcessStatus


def up(
    port_base: Annotated[
        int, typer.Option(min=1024, max=64_000, help="The aggregator's port; the others follow from it.")
    ] = PORT_BASE,
    redis_url: Annotated[
        str | None, typer.Option(help="A Redis or Valkey of your own, in place of the embedded one; as of aggregate.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of each service; without: by what it costs and the cores here.")
    ] = None,
    gateway: Annotated[
        bool, typer.Option(help="HTTP and the web pages on the ninth port up; needs the extra [gateway].")
    ] = True,
    runs: Annotated[Path, typer.Option(help="Training runs that the page Runs shows.")] = Path("runs"),
) -> None:
    """Start verifiers, aggregator, gateway and Valkey as supervised processes, and wait until all are ready."""
    from rich.console import Console
    from rich.live import Live

    from bioverify.artifacts.store import ArtifactStore
    from bioverify.stack import Plan, StackError, state_folder
    from bioverify.stack import up as start
    from bioverify.transport.redis_address import RedisAddressError, read_address

    if redis_url is not None:
        with plain_errors(RedisAddressError):
            read_address(redis_url)
    root = ArtifactStore.default().root
    if missing := [name for name in SERVED if not (root / name / "current").exists()]:
        raise fail(f"not built yet in {root}: {', '.join(missing)}. Run: bioverify data build --all")
    has_gateway = gateway and importlib.util.find_spec("fastapi") is not None
    workers_by_name = workers_of(VERIFIERS, workers)
    plan = Plan(
        state_folder(),
        VERIFIERS,
        port_base,
        redis_url,
        workers_by_name,
        has_gateway,
        consensus=True,
        runs_folder=runs.absolute(),
    )
    console = Console(highlight=False)
    with plain_errors(StackError), Live(console=console, transient=True) as live:
        processes = start(plan, lambda statuses: live.update(_table(statuses)))
    console.print(_table(processes))
    pages = f" and http://{plan.gateway}" if has_gateway else ""
    console.print(
        f"Ready at {plan.aggregator}{pages}. Logs in {plan.folder / 'logs'}. Stop it: bioverify down", soft_wrap=True
    )


def down() -> None:
    """Stop everything that `bioverify up` started."""
    from bioverify.stack import StackError, state_folder
    from bioverify.stack import down as stop

    with plain_errors(StackError):
        stopped = stop(state_folder())
    typer.echo(f"Stopped: {', '.join(stopped)}" if stopped else "Nothing was up.")


def status() -> None:
    """Every process as it is now; exit status 1 if one is not ready."""
    from rich.console import Console

    from bioverify.stack import StackError, state_folder
    from bioverify.stack import status as look

    with plain_errors(StackError):
        processes = look(state_folder())
    Console(highlight=False).print(_table(processes))
    if not all(process.is_ready for process in processes):
        raise typer.Exit(1)


def _table(processes: Sequence[ProcessStatus]) -> Table:
    from rich.table import Table

    table = Table("process", "pid", "state", "ready", "address", "uptime", "simulated", box=None, padding=(0, 2, 0, 0))
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
