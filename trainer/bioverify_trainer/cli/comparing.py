"""`bioverify compare-recipes`: the small policy trained by each recipe, and what each taught it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from bioverify import ports
from bioverify.core.cell_lines import CELL_LINES
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

if TYPE_CHECKING:
    from bioverify_trainer.comparison import Transfer

QUESTIONS = ("de", "direction")
TRANSFERS = ("none", "loose", "strict")


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
    lines: Annotated[
        list[str] | None, typer.Option("--line", help="May be repeated; if omitted, those of the preset.")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="de or direction, may be repeated; if omitted, de.")
    ] = None,
    transfer: Annotated[
        str,
        typer.Option(
            help="loose: train on the other lines; strict: and without what the line tests; none: on the line itself."
        ),
    ] = "none",
    questions: Annotated[
        int | None, typer.Option(min=1, help="About as many held-out rows, half of them yes; if omitted, all.")
    ] = None,
    per_gene: Annotated[int, typer.Option(min=2, help="Rows of each gene, of --questions.")] = 8,
    with_control: Annotated[
        bool, typer.Option("--control/--no-control", help="Train by the first recipe over shuffled vectors, too.")
    ] = True,
    with_reference: Annotated[
        bool, typer.Option("--reference/--no-reference", help="Train the same network on the labels, too.")
    ] = True,
    target: TargetOption = ports.AGGREGATOR,
    changes: SetOption = None,
    output: Annotated[Path, typer.Option(help="Folder for runs and tables.")] = Path("runs/recipes"),
) -> None:
    """One small policy trained by several recipes.

    They are compared on held-out rows, each line and kind of question by itself and over all. The tables are written
    after each seed; the same command resumes a comparison that was interrupted, and trains no finished run again.

    Example: bioverify compare-recipes rbio1-exp lift --line k562 --line rpe1 --task de --task direction
    """
    resolved = [resolve(recipe, preset, changes) for recipe in recipes]
    if len({recipe.name for recipe, _ in resolved}) < len(resolved):
        refuse("two of the recipes have the same name: name each once")
    for given, known, option in (
        (lines, CELL_LINES, "--line"),
        (tasks, QUESTIONS, "--task"),
        ([transfer], TRANSFERS, "--transfer"),
    ):
        for name in given or ():
            if name not in known:
                raise typer.BadParameter(f"{option} {name}: not one of {', '.join(known)}")
    quieten()
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.prompts import open_prompts
    from bioverify.artifacts.store import ArtifactStore
    from bioverify_trainer.comparison import Compared, Setting, as_table, candidates, compare
    from bioverify_trainer.comparison_page import write_comparison
    from bioverify_trainer.evaluate import tables
    from bioverify_trainer.evaluate.questions import EvaluationError, Screens
    from bioverify_trainer.model.policy import PolicyError
    from bioverify_trainer.runs.folder import RunError

    store = ArtifactStore.default()
    of_preset = resolved[0][1]
    settings = [
        Setting(task, line, cast("Transfer", transfer))
        for task in tasks or ("de",)
        for line in lines or of_preset.prompts.lines or CELL_LINES
    ]
    table = ""

    def report(compared: list[Compared]) -> None:
        nonlocal table
        write_comparison(compared, of_preset, output, simulated=screens.simulated)
        table = tables.markdown(as_table(compared))

    try:
        screens = Screens.read(open_prompts(store)[0])
        is_whole = compare(
            candidates(
                [recipe for recipe, _ in resolved],
                of_preset,
                with_control=with_control,
                with_reference=with_reference,
            ),
            settings,
            range(seeds),
            questions=questions,
            per_gene=per_gene,
            screens=screens,
            store=store,
            target=target,
            output=output,
            progress=lambda what: errors.print(what, highlight=False),
            report=report,
        )
    except (ArtifactError, EvaluationError, PolicyError, RunError) as error:
        refuse(error)
    if not is_whole:
        errors.print("stopped; the same command resumes", highlight=False)
        raise typer.Exit(STOPPED)
    if screens.simulated:
        errors.print("The screens are simulated: these figures say nothing about biology.", style="yellow")
    typer.echo(table, nl=False)
    errors.print(f"In {output}: recipes.json, .md, .tex, .html, and the runs", highlight=False)
