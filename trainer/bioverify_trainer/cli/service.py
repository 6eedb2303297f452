"""`bioverify runs serve`, `start`, `stop`, `watch`: the service, and thin doors to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from bioverify import ports
from bioverify.client import ClientError, TlsError, TlsIdentity, TrainingClient
from bioverify.core.runs import RunState, StepFigures, TrainingRun
from bioverify.transport.addresses import is_loopback
from bioverify_trainer.cli.options import (
    TARGET_VARIABLE,
    SetOption,
    a_target,
    console,
    known_presets,
    print_json,
    recipe_names,
    refuse,
)

_SHOWN = ("reward", "reward_call/unscorable", "step_seconds")

_Result = TypeVar("_Result")

NameArgument = Annotated[str, typer.Argument(help="The run's name.")]
ServiceOption = Annotated[str, typer.Option("--service", help="The training service: host:port or unix:/path.")]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        envvar="BIOVERIFY_TRAINING_TOKEN_FILE", exists=True, dir_okay=False, help="File with the service's token."
    ),
]


def serve(
    folder: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    listen: Annotated[str, typer.Option(help="host:port or unix:/path.")] = ports.TRAINER,
    target: Annotated[
        str,
        typer.Option(
            envvar=TARGET_VARIABLE,
            help="The aggregator, as the runs reach it; none: the running stack.",
            callback=a_target,
        ),
    ] = ports.AGGREGATOR,
    token_file: TokenOption = None,
    most_at_once: Annotated[
        int, typer.Option(min=1, help="Local runs at a time; further ones are refused, not queued.")
    ] = 1,
    cluster: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="YAML file: submit TrainJobs as it says; if omitted, runs are local processes.",
        ),
    ] = None,
    allow_model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model, beside those of the shipped presets, that callers may name as policy.model. Repeat it."
        ),
    ] = None,
    allow_key: Annotated[
        list[str] | None,
        typer.Option(help="A key of the preset that callers may change, beside the harmless ones. Repeat it."),
    ] = None,
) -> None:
    """Serve the training of runs until SIGTERM.

    Runs outlive the service, and are found again.

    Example: bioverify runs serve --folder runs
    """
    from bioverify.runtime import logs
    from bioverify_trainer.service.changes import Allowed
    from bioverify_trainer.service.launching import Launcher
    from bioverify_trainer.service.local import LocalLauncher
    from bioverify_trainer.service.service import serve as serve_runs

    is_local = listen.startswith("unix:") or is_loopback(listen.rpartition(":")[0])
    if not is_local and token_file is None:
        refuse(f"--listen {listen}: others could start runs there. Give --token-file, with a long random token in it")
    try:
        tls = TlsIdentity.from_environment()
    except TlsError as error:
        refuse(error)
    folder.mkdir(parents=True, exist_ok=True)
    launcher: Launcher
    if cluster is None:
        launcher = LocalLauncher(folder, target=target, most_at_once=most_at_once)
    else:
        from bioverify.settings import SettingsError, read_settings
        from bioverify_trainer.service.cluster import ClusterSettings, TrainJobLauncher

        try:
            launcher = TrainJobLauncher(read_settings(ClusterSettings, cluster), target=target)
        except SettingsError as error:
            refuse(error)
    allowed = Allowed(tuple(allow_model or ()), tuple(allow_key or ()))
    logs.configure("training", "info")
    raise typer.Exit(serve_runs(launcher, folder, listen=listen, token_file=token_file, tls=tls, allowed=allowed))


def start(
    name: NameArgument,
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe; omit it with --resume.", autocompletion=recipe_names)
    ] = "",
    preset: Annotated[str, typer.Option(help="A shipped preset.", autocompletion=known_presets)] = "cpu",
    changes: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that has ended.")] = False,
    service: ServiceOption = ports.TRAINER,
    token_file: TokenOption = None,
) -> None:
    """Have a training service start a run.

    Example: bioverify runs start first rbio1-exp --preset cpu
    """

    async def ask(client: TrainingClient) -> TrainingRun:
        return await (client.resume(name) if resume else client.start(name, recipe, preset, changes or ()))

    _tell(_asked(service, token_file, ask))


def stop(name: NameArgument, service: ServiceOption = ports.TRAINER, token_file: TokenOption = None) -> None:
    """Have a run of a training service keep a checkpoint and end.

    Example: bioverify runs stop first
    """
    _tell(_asked(service, token_file, lambda client: client.stop(name)))


def watch(
    name: NameArgument,
    after_step: Annotated[int, typer.Option(min=0, help="Show later steps only.")] = 0,
    service: ServiceOption = ports.TRAINER,
    token_file: TokenOption = None,
) -> None:
    """Follow a run of a training service until it has ended.

    Exit status 1 if it failed.

    Example: bioverify runs watch first
    """

    async def follow(client: TrainingClient) -> TrainingRun | None:
        last: TrainingRun | None = None
        # Of the latest steps: the first ones of a run wait for models and caches.
        seconds: deque[float] = deque(maxlen=10)
        async for event in client.watch(name, after_step=after_step):
            if isinstance(event, StepFigures):
                if (took_s := event.figures.get("step_seconds")) is not None:
                    seconds.append(took_s)
                console.print(progress_line(event, last.max_steps if last else 0, seconds), soft_wrap=True)
            elif last is None or event.state is not last.state:
                last = event
                _tell(event)
        return last

    last = _asked(service, token_file, follow)
    if last is not None and last.state is RunState.FAILED:
        raise typer.Exit(1)


def progress_line(event: StepFigures, max_steps: int, seconds: Collection[float]) -> str:
    """One line of a step: how far the run is, when it may be done, and the figures that tell how it goes."""
    shown = [f"{key} {event.figures[key]:.3f}" for key in _SHOWN if key in event.figures]
    place = f"step {event.step}"
    if max_steps:
        place += f" of {max_steps} ({event.step / max_steps:.0%}"
        if seconds and event.step < max_steps:
            place += f", {_in_words(sum(seconds) / len(seconds) * (max_steps - event.step))} left"
        place += ")"
    return f"{place}: {', '.join(shown)}"


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def show_states(service: str, token_file: Path | None, *, as_json: bool) -> None:
    """The runs of a service, one per line."""
    runs = _asked(service, token_file, lambda client: client.list_runs())
    if as_json:
        print_json(runs)
        return
    for run in runs:
        _tell(run)


def _asked(service: str, token_file: Path | None, ask: Callable[[TrainingClient], Awaitable[_Result]]) -> _Result:
    async def asking() -> _Result:
        async with TrainingClient(service, token_file, tls=TlsIdentity.from_environment()) as client:
            return await ask(client)

    try:
        return asyncio.run(asking())
    except (ClientError, TlsError) as error:
        refuse(error)


def _tell(run: TrainingRun) -> None:
    console.print(
        f"{run.name}: {run.state}, {run.recipe} × {run.preset}, {run.steps} of {run.max_steps} steps"
        + (f", {run.place}" if run.place else "")
        + (f". {run.detail}" if run.detail else ""),
        soft_wrap=True,
    )
