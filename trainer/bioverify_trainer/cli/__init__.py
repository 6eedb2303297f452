"""The commands: train, generate, eval, runs, report, ask, chat, export.

What is heavy (torch, transformers, TRL) is imported inside the command that needs it, so that ``--help``, a dry run and
a mistake in a recipe answer at once.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import psutil
import typer
from rich.console import Console
from rich.progress import Progress

from bioverify import recipes
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe
from bioverify_trainer.cli import runs
from bioverify_trainer.cli import service as service_commands
from bioverify_trainer.cli.evaluate import evaluate
from bioverify_trainer.preset import Preset, PresetError, load_preset
from bioverify_trainer.stopping import STOPPED

app = typer.Typer(help="GRPO training against live verifiers.", no_args_is_help=True, add_completion=False)
app.command("eval")(evaluate)
for command in (service_commands.serve, service_commands.start, service_commands.stop, service_commands.watch):
    runs.app.command()(command)
app.add_typer(runs.app, name="runs")
errors = Console(stderr=True)

PresetOption = Annotated[str, typer.Option("--preset", help="A shipped preset (cpu, h100x8) or a .yaml file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key: grpo.max_steps=4. May be repeated.")
]
ModelOption = Annotated[str, typer.Option(help="A checkpoint or adapter folder, hub id, smollm2, or rbio1-exp etc.")]
MetricsOption = Annotated[
    str | None, typer.Option("--metrics-listen", help="host:port for Prometheus metrics of the run; none: no metrics.")
]
TargetOption = Annotated[str, typer.Option(help="The aggregator: host:port or unix:/path.")]
RecipeArgument = Annotated[str, typer.Argument(help="A shipped recipe (bioverify recipes lists them) or a .yaml file.")]


@app.command()
def train(
    recipe: RecipeArgument,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder of the run; without one, the recipe's name below runs/.")
    ] = None,
    preset: PresetOption = "cpu",
    target: TargetOption = "127.0.0.1:50050",
    changes: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --output.")] = False,
    restartable: Annotated[
        bool,
        typer.Option(
            "--restartable",
            help="Go on from the last checkpoint in --output if there is one, else begin: for what restarts by itself.",
        ),
    ] = False,
    metrics_listen: MetricsOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train nothing: print the resolved run, and a prompt and a scored example of every source.",
        ),
    ] = False,
) -> None:
    """Train a policy by GRPO: RECIPE says what is rewarded, the preset what is trained and how."""
    resolved_recipe, resolved_preset = _resolve(recipe, preset, changes)
    launch = _launch_command(resolved_preset)
    if dry_run:
        from bioverify_trainer.plan import plan_sources

        typer.echo(
            json.dumps(
                {
                    "recipe": resolved_recipe.model_dump(mode="json"),
                    "preset": resolved_preset.model_dump(mode="json"),
                    "completions_per_step": resolved_preset.prompts_per_step * resolved_preset.grpo.num_generations,
                    "command": launch or [sys.executable, *_own_arguments()],
                    "sources": plan_sources(resolved_recipe, resolved_preset, ArtifactStore.default(), target),
                },
                indent=2,
            )
        )
        return
    folder = output or Path("runs") / resolved_recipe.name
    _train(
        resolved_recipe,
        resolved_preset,
        target,
        folder,
        resume=resume,
        restartable=restartable,
        metrics_listen=metrics_listen,
    )


@runs.app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="Folder of a run that stopped.")],
    target: Annotated[str | None, typer.Option(help="The aggregator; none: the one that the run began with.")] = None,
    metrics_listen: MetricsOption = None,
) -> None:
    """Go on from the last checkpoint, with the recipe and the preset that the run began with."""
    config = runs.open_run(run).config
    recipe, preset = Recipe.model_validate(config["recipe"]), Preset.model_validate(config["preset"])
    _train(recipe, preset, target or config["target"], run, resume=True, metrics_listen=metrics_listen)


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
    """Here, or in as many processes as the preset asks for, each of which comes here again."""
    launch = _launch_command(preset)
    if launch is not None:
        raise typer.Exit(_wait_for(launch))
    _quieten()
    from bioverify_trainer.evaluate.questions import EvaluationError
    from bioverify_trainer.model.policy import PolicyError
    from bioverify_trainer.runs.folder import RunError
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
        _refuse(error)
    if trained.was_stopped:
        typer.echo(f"stopped after {trained.steps} steps; go on: bioverify runs resume {trained.folder.path}")
        raise typer.Exit(STOPPED)
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
    from bioverify_trainer.model.policy import PolicyError

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
    from bioverify_trainer.runs.folder import RunError
    from bioverify_trainer.runs.report import write_report

    try:
        write_report(run, output, scores=scores)
    except RunError as error:
        _refuse(error)
    typer.echo(f"report: {output}")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="As in: Is a knockdown of AARS in k562 cells likely to …")],
    model: ModelOption = "smollm2",
    verify: Annotated[bool, typer.Option("--verify", help="Show what each verifier says of the answer.")] = False,
    target: TargetOption = "127.0.0.1:50050",
    preset: PresetOption = "cpu",
    changes: SetOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of the answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0: greedy.")] = 0.0,
) -> None:
    """Put one question to a model."""
    answer = _asker(model, target, preset, changes, max_tokens, temperature, verify=verify)
    answer(question)


@app.command()
def chat(
    model: ModelOption = "smollm2",
    verify: Annotated[bool, typer.Option("--verify", help="Show what each verifier says of the answers.")] = False,
    target: TargetOption = "127.0.0.1:50050",
    preset: PresetOption = "cpu",
    changes: SetOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0: greedy.")] = 0.0,
) -> None:
    """Put questions to a model, one by one, each on its own; an empty line ends it."""
    answer = _asker(model, target, preset, changes, max_tokens, temperature, verify=verify)
    while question := typer.prompt("?", default="", show_default=False, prompt_suffix=" ").strip():
        answer(question)


def _asker(
    model: str,
    target: str,
    preset: str,
    changes: list[str] | None,
    max_tokens: int,
    temperature: float,
    *,
    verify: bool,
) -> Callable[[str], None]:
    try:
        chosen = load_preset(preset, changes)
    except PresetError as error:
        _refuse(error)
    _quieten()
    import torch
    from transformers import TextStreamer

    from bioverify.client import ClientError
    from bioverify_trainer import asking
    from bioverify_trainer.model.policy import PolicyError, open_policy, use_threads

    use_threads(chosen.launcher.threads)
    try:
        policy = open_policy(model, dtype=getattr(torch, chosen.policy.dtype), bits=chosen.policy.bits)
    except PolicyError as error:
        _refuse(error)

    def answer(question: str) -> None:
        turns, task = asking.conversation(question, chosen.prompts)
        streamer = TextStreamer(policy.tokenizer, skip_prompt=True, skip_special_tokens=True)
        completion = asking.reply(policy, turns, max_tokens=max_tokens, temperature=temperature, streamer=streamer)
        if verify:
            try:
                asking.verify(target, turns, task, completion, typer.echo)
            except ClientError as error:
                _refuse(error)

    return answer


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    output: Annotated[Path, typer.Option("--output", help="New folder for model, tokenizer and card.")],
    evaluation: Annotated[Path | None, typer.Option(help="results.json of `bioverify eval`, for the card.")] = None,
) -> None:
    """Write a run's model as safetensors, adapters merged, with a model card filled from the run."""
    _quieten()
    from bioverify_trainer.runs.export import export as write
    from bioverify_trainer.runs.folder import RunError

    try:
        write(run, output, evaluation=evaluation)
    except RunError as error:
        _refuse(error)
    typer.echo(f"exported: {output}")


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


def _wait_for(launch: list[str]) -> int:
    """The exit status of torchrun; SIGTERM is passed on to the processes that it started."""
    launched = subprocess.Popen(launch)
    was_told = False

    def stop(*_signal: object) -> None:
        nonlocal was_told
        was_told = True
        # Not torchrun itself: it would give its processes half a minute, and a step may take longer.
        for process in psutil.Process(launched.pid).children():
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    status = launched.wait()
    # torchrun says of processes that ended as they were told to that they failed.
    return STOPPED if was_told and status else status


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
