"""The commands: train, generate, report.

What is heavy (torch, transformers, TRL) is imported inside the command that needs it, so that ``--help``, a dry run and
a mistake in a recipe answer at once.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress

from bioverify import recipes
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe
from bioverify_trainer.preset import Preset, PresetError, load_preset

app = typer.Typer(help="GRPO training against live verifiers.", no_args_is_help=True, add_completion=False)
errors = Console(stderr=True)

PresetOption = Annotated[str, typer.Option("--preset", help="A shipped preset (cpu, h100x8) or a .yaml file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key: grpo.max_steps=4. May be repeated.")
]
RecipeArgument = Annotated[str, typer.Argument(help="A shipped recipe (bioverify recipes lists them) or a .yaml file.")]


@app.command()
def train(
    recipe: RecipeArgument,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder of the run; without one, the recipe's name below runs/.")
    ] = None,
    preset: PresetOption = "cpu",
    target: Annotated[str, typer.Option(help="The aggregator: host:port or unix:/path.")] = "127.0.0.1:50050",
    changes: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --output.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and print the resolved run, train nothing.")
    ] = False,
) -> None:
    """Train a policy by GRPO: RECIPE says what is rewarded, the preset what is trained and how."""
    resolved_recipe, resolved_preset = _resolve(recipe, preset, changes)
    launch = _launch_command(resolved_preset)
    if dry_run:
        typer.echo(
            json.dumps(
                {
                    "recipe": resolved_recipe.model_dump(mode="json"),
                    "preset": resolved_preset.model_dump(mode="json"),
                    "completions_per_step": resolved_preset.prompts_per_step * resolved_preset.grpo.num_generations,
                    "command": launch or [sys.executable, *_own_arguments()],
                },
                indent=2,
            )
        )
        return
    if launch is not None:
        raise typer.Exit(subprocess.run(launch, check=False).returncode)
    _quieten()
    from bioverify_trainer.policy import PolicyError
    from bioverify_trainer.run import RunError
    from bioverify_trainer.train import train as run

    try:
        trained = run(
            resolved_recipe,
            resolved_preset,
            target=target,
            output=output or Path("runs") / resolved_recipe.name,
            store=ArtifactStore.default(),
            resume=resume,
        )
    except (RunError, PolicyError, ArtifactError) as error:
        _refuse(error)
    typer.echo(f"{trained.steps} steps; the run is in {trained.folder.path}")


@app.command()
def generate(
    file: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Completions.")] = 24,
    per_prompt: Annotated[int, typer.Option(min=1, help="Completions of one question.")] = 2,
    recipe: Annotated[str, typer.Option(help="Whose sources the questions are drawn from.")] = "rbio1-exp",
    preset: PresetOption = "cpu",
    changes: SetOption = None,
    seed: Annotated[int, typer.Option(help="Of the questions and the sampling.")] = 1,
) -> None:
    """Let a policy answer PerturbQA questions; ``bioverify score FILE`` then scores the answers."""
    resolved_recipe, resolved_preset = _resolve(recipe, preset, changes)
    _quieten()
    from bioverify_trainer.generate import generate_file
    from bioverify_trainer.policy import PolicyError

    with Progress(console=errors) as bars:
        bar = bars.add_task("completions", total=n)
        try:
            generate_file(
                file,
                resolved_recipe,
                resolved_preset,
                ArtifactStore.default(),
                n=n,
                per_prompt=per_prompt,
                seed=seed,
                progress=lambda done: bars.advance(bar, done),
            )
        except (PolicyError, ArtifactError) as error:
            _refuse(error)
    typer.echo(f"{n} completions in {file}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    output: Annotated[Path, typer.Option("--output", help="HTML file to write.")] = Path("report.html"),
    scores: Annotated[Path | None, typer.Option(help="What `bioverify score` wrote, to show as well.")] = None,
) -> None:
    """Write one self-contained HTML page about a run."""
    from bioverify_trainer.report import write_report
    from bioverify_trainer.run import RunError

    try:
        write_report(run, output, scores=scores)
    except RunError as error:
        _refuse(error)
    typer.echo(f"report: {output}")


def _resolve(recipe: str, preset: str, changes: list[str] | None) -> tuple[Recipe, Preset]:
    try:
        found = recipes.read(Path(recipe)) if recipe.endswith((".yaml", ".yml")) else recipes.load(recipe)
        return found, load_preset(preset, changes)
    except (recipes.RecipeError, PresetError, OSError) as error:
        _refuse(error)


def _refuse(error: Exception) -> NoReturn:
    errors.print(str(error), style="red", markup=False, highlight=False)
    raise typer.Exit(2)


def _own_arguments() -> list[str]:
    return ["-m", "bioverify_trainer", *sys.argv[1:]]


def _launch_command(preset: Preset) -> list[str] | None:
    """The command that starts all processes of the preset; None where this is the one, or one of them."""
    if preset.launcher.processes == 1 or "WORLD_SIZE" in os.environ:
        return None
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    arguments = [argument for argument in _own_arguments() if argument != "--dry-run"]
    return [*torchrun, f"--nproc-per-node={preset.launcher.processes}", *arguments]


def _quieten() -> None:
    """One progress bar is enough; the libraries' own would be drawn over it."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from datasets.utils.logging import (  # type: ignore[import-untyped]
        disable_progress_bar as datasets_without_bars,
    )
    from transformers.utils import logging as transformers_logging

    datasets_without_bars()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    # A row without a reward is counted and explained by ours; TRL prints the whole prompt of it at every step.
    logging.getLogger("trl.trainer.grpo_trainer").addFilter(
        lambda record: "All reward functions returned None" not in record.getMessage()
    )
