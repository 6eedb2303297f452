"""`bioverify generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify_trainer.cli.options import (
    OwnPresetOption,
    SetOption,
    a_file_to_write,
    errors,
    quieten,
    recipe_names,
    refuse,
    resolve,
    resolve_preset,
)


def generate(
    file: Annotated[Path, typer.Argument(help="JSONL file to write.", callback=a_file_to_write)],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of completions.")] = 24,
    per_prompt: Annotated[int, typer.Option(min=1, help="Completions of each question.")] = 2,
    recipe: Annotated[
        str, typer.Option(help="The recipe whose sources the questions are drawn from.", autocompletion=recipe_names)
    ] = "rbio1-exp",
    model: Annotated[
        str, typer.Option(help="A checkpoint or adapter folder, hub id or smollm2; if omitted, the preset's.")
    ] = "",
    preset: OwnPresetOption = None,
    changes: SetOption = None,
    seed: Annotated[int, typer.Option(help="Of the questions and the sampling.")] = 1,
) -> None:
    """Let a policy answer questions, into a file that `bioverify score` scores.

    Example: bioverify generate answers.jsonl --n 24 --model smollm2
    """
    resolved_preset = resolve_preset(model, preset, changes)
    resolved_recipe, _ = resolve(recipe, "cpu", None)
    quieten()
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
                model=model,
                n=n,
                per_prompt=per_prompt,
                seed=seed,
                progress=lambda done: bars.advance(bar, done),
            )
        except (PolicyError, ArtifactError) as error:
            refuse(error)
    typer.echo(f"{n} completions in {file}")
