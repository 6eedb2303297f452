"""`bioverify compare-recipes`: the small policy trained by each recipe, and what each taught it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bioverify import ports
from bioverify.files import replace_file
from bioverify_trainer.cli.options import (
    SetOption,
    TargetOption,
    errors,
    known_presets,
    quieten,
    recipe_names,
    refuse,
    resolve,
)
from bioverify_trainer.stopping import STOPPED


def compare_recipes(
    recipes: Annotated[
        list[str],
        typer.Argument(
            help="Recipes, by name or as .yaml files; others are compared with the first.", autocompletion=recipe_names
        ),
    ],
    preset: Annotated[
        str, typer.Option("--preset", help="What is trained, and how.", autocompletion=known_presets)
    ] = "gene-vectors",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each recipe, with the seeds 0, 1, …")] = 3,
    *,
    questions: Annotated[
        int | None, typer.Option(min=1, help="About as many held-out rows, half of them yes; if omitted, all.")
    ] = None,
    per_gene: Annotated[int, typer.Option(min=2, help="Rows of each gene, of --questions.")] = 8,
    with_control: Annotated[
        bool, typer.Option("--control/--no-control", help="Train by the first recipe over shuffled vectors, too.")
    ] = True,
    target: TargetOption = ports.AGGREGATOR,
    changes: SetOption = None,
    output: Annotated[Path, typer.Option(help="Folder for runs and tables.")] = Path("runs/recipes"),
) -> None:
    """One small policy trained by several recipes.

    They are compared on held-out rows of differential expression. The same command resumes a comparison that was
    interrupted: finished runs are not trained again.

    Example: bioverify compare-recipes rbio1-exp lift --seeds 3
    """
    resolved = [resolve(recipe, preset, changes) for recipe in recipes]
    if len({recipe.name for recipe, _ in resolved}) < len(resolved):
        refuse("two of the recipes have the same name: name each once")
    quieten()
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.prompts import open_prompts
    from bioverify.artifacts.store import ArtifactStore
    from bioverify_trainer.comparison import as_table, candidates, compare
    from bioverify_trainer.evaluate import tables
    from bioverify_trainer.evaluate.questions import EvaluationError, Screens
    from bioverify_trainer.model.policy import PolicyError
    from bioverify_trainer.runs.folder import RunError

    store = ArtifactStore.default()
    try:
        screens = Screens.read(open_prompts(store)[0])
        compared = compare(
            candidates([recipe for recipe, _ in resolved], resolved[0][1], with_control=with_control),
            range(seeds),
            questions=questions,
            per_gene=per_gene,
            screens=screens,
            store=store,
            target=target,
            output=output,
            progress=lambda what: errors.print(what, highlight=False),
        )
    except (ArtifactError, EvaluationError, PolicyError, RunError) as error:
        refuse(error)
    if compared is None:
        errors.print("stopped; the same command resumes", highlight=False)
        raise typer.Exit(STOPPED)
    table = as_table(compared)
    rows = [asdict(one) | {"verdict": one.verdict} for one in compared]
    replace_file(
        output / "recipes.json", json.dumps({"simulated": screens.simulated, "recipes": rows}, indent=2) + "\n"
    )
    replace_file(output / "recipes.md", tables.markdown(table))
    replace_file(output / "recipes.tex", tables.latex(table))
    if screens.simulated:
        errors.print("The screens are simulated: these figures say nothing about biology.", style="yellow")
    typer.echo(tables.markdown(table), nl=False)
    errors.print(f"In {output}: recipes.json, .md, .tex, and the runs", highlight=False)
