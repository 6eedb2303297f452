"""`bioverify train` and `bioverify runs resume`: here, or in as many processes as the preset asks for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import psutil
import typer

from bioverify import ports
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe
from bioverify_trainer.cli.options import (
    TARGET_VARIABLE,
    PresetOption,
    RecipeArgument,
    SetOption,
    TargetOption,
    a_target,
    quieten,
    refuse,
    resolve,
    run_folders,
)
from bioverify_trainer.cli.runs import open_run
from bioverify_trainer.preset import Preset
from bioverify_trainer.stopping import STOPPED

MetricsOption = Annotated[
    str | None,
    typer.Option("--metrics-listen", help="host:port for Prometheus metrics of the run; omit to serve none."),
]


def train(
    recipe: RecipeArgument,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder of the run; if omitted, runs/ and the recipe's name.")
    ] = None,
    preset: PresetOption = "cpu",
    target: TargetOption = ports.AGGREGATOR,
    changes: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in --output.")] = False,
    restartable: Annotated[
        bool,
        typer.Option(
            "--restartable",
            help="Resume from the last checkpoint in --output if there is one, else begin: for a pod that restarts "
            "with the same command.",
        ),
    ] = False,
    metrics_listen: MetricsOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train nothing: print the resolved run, memory, time and price by formula, and a prompt and a scored "
            "example of every source.",
        ),
    ] = False,
) -> None:
    """Train a policy by GRPO against the services.

    RECIPE says what is rewarded, the preset what is trained and how.

    Example: bioverify train rbio1-exp --preset cpu --output runs/first
    """
    resolved_recipe, resolved_preset = resolve(recipe, preset, changes)
    if dry_run:
        typer.echo(json.dumps(_plan(resolved_recipe, resolved_preset, target), indent=2))
        return
    _train(
        resolved_recipe,
        resolved_preset,
        target,
        output or Path("runs") / resolved_recipe.name,
        resume=resume,
        restartable=restartable,
        metrics_listen=metrics_listen,
    )


def resume(
    run: Annotated[Path, typer.Argument(help="Folder of a run that stopped.", autocompletion=run_folders)],
    target: Annotated[
        str | None,
        typer.Option(help="The aggregator; if omitted, the one that the run began with.", callback=a_target),
    ] = None,
    metrics_listen: MetricsOption = None,
) -> None:
    """Resume a run from its last checkpoint.

    With the recipe and the preset that it began with.

    Example: bioverify runs resume runs/first
    """
    config = open_run(run).config
    recipe, preset = Recipe.model_validate(config["recipe"]), Preset.model_validate(config["preset"])
    _train(recipe, preset, target or config["target"], run, resume=True, metrics_listen=metrics_listen)


def _plan(recipe: Recipe, preset: Preset, target: str) -> dict[str, object]:
    from bioverify_trainer.cli.plan import plan_sources, planned_estimate

    return {
        "recipe": recipe.model_dump(mode="json"),
        "preset": preset.model_dump(mode="json"),
        "completions_per_step": preset.prompts_per_step * preset.grpo.num_generations,
        "estimate": planned_estimate(preset),
        "command": _launch_command(preset) or [sys.executable, *_own_arguments()],
        "sources": plan_sources(recipe, preset, ArtifactStore.default(), target),
    }


def _train(
    recipe: Recipe,
    preset: Preset,
    target: str,
    output: Path,
    *,
    resume: bool,
    metrics_listen: str | None,
    restartable: bool = False,
) -> None:
    """Train in this process, or start all processes of the preset, each of which comes here again."""
    launch = _launch_command(preset)
    if launch is not None:
        raise typer.Exit(_wait_for(launch, target))
    quieten()
    from bioverify.core import alarms
    from bioverify_trainer.evaluate.questions import EvaluationError
    from bioverify_trainer.model.policy import PolicyError
    from bioverify_trainer.runs.folder import RunError, read_records
    from bioverify_trainer.train import is_main_process
    from bioverify_trainer.train import train as run

    try:
        trained = run(
            recipe,
            preset,
            target=target,
            output=output,
            store=ArtifactStore.default(),
            resume=resume,
            restartable=restartable,
            metrics_listen=metrics_listen,
        )
    except (RunError, PolicyError, ArtifactError, EvaluationError) as error:
        refuse(error)
    if is_main_process():
        for warning in alarms.raised(read_records(trained.folder.metrics_file)):
            typer.echo(f"Look closer. {warning}", err=True)
    if trained.was_stopped:
        typer.echo(f"stopped after {trained.steps} steps; to resume: bioverify runs resume {trained.folder.path}")
        raise typer.Exit(STOPPED)
    typer.echo(f"{trained.steps} steps; the run is in {trained.folder.path}")


def _own_arguments() -> list[str]:
    return ["-m", "bioverify_trainer", *sys.argv[1:]]


def _launch_command(preset: Preset) -> list[str] | None:
    """The command that starts all processes of the preset; None if this is the only one, or one of them."""
    # DeepSpeed wants the environment of torchrun even for one process.
    is_alone = preset.launcher.processes == 1 and not preset.launcher.deepspeed
    if is_alone or "WORLD_SIZE" in os.environ:
        return None
    # By itself it kills its processes half a minute after it was told to stop: too soon for a checkpoint of 43 GB.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--shutdown-timeout=900"]
    arguments = [argument for argument in _own_arguments() if argument != "--dry-run"]
    return [*torchrun, f"--nproc-per-node={preset.launcher.processes}", *arguments]


def _wait_for(launch: list[str], target: str) -> int:
    """The exit status of torchrun; SIGTERM is passed on to the processes that it started."""
    # They read the same arguments, and may not know of the local stack that was found here.
    launched = subprocess.Popen(launch, env=os.environ | {TARGET_VARIABLE: target})
    was_told = False

    def stop(*_signal: object) -> None:
        nonlocal was_told
        was_told = True
        # Not torchrun itself: it would give its processes half a minute, and a step may take longer.
        for process in psutil.Process(launched.pid).children():
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    status = launched.wait()
    # torchrun reports processes that ended because they were told to as failed.
    return STOPPED if was_told and status else status
