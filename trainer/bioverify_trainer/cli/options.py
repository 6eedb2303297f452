"""What several commands share: options, how a recipe and a preset are found, how a refusal is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from bioverify import recipes
from bioverify.core.recipes import Recipe
from bioverify.settings import SettingsError
from bioverify_trainer.preset import Preset, load_preset, preset_for

console = Console(highlight=False)
errors = Console(stderr=True)

RecipeArgument = Annotated[str, typer.Argument(help="A shipped recipe (bioverify recipes lists them) or a .yaml file.")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.")]
PresetOption = Annotated[
    str,
    typer.Option("--preset", help="A shipped preset (cpu, one-gpu, h100x1, h100x8, rbio1-published) or a .yaml file."),
]
OwnPresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="The preset whose prompts, precision and threads are used; if omitted, the one that a run's model was "
        "trained with, and cpu for any other model.",
    ),
]
TARGET_VARIABLE = "BIOVERIFY_TARGET"
"""`bioverify train` and the others set it to the local stack that runs, if nobody did."""
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key of the preset: grpo.max_steps=4. May be repeated.")
]
TargetOption = Annotated[
    str, typer.Option(envvar=TARGET_VARIABLE, help="The aggregator: host:port or unix:/path; none: the running stack.")
]


def resolve(recipe: str, preset: str, changes: list[str] | None) -> tuple[Recipe, Preset]:
    """Both, read and checked; a mistake ends the command."""
    try:
        found = recipes.read(Path(recipe)) if recipe.endswith((".yaml", ".yml")) else recipes.load(recipe)
        return found, load_preset(preset, changes)
    except SettingsError as error:
        refuse(error)


def resolve_preset(model: str, preset: str | None, changes: list[str] | None) -> Preset:
    """The preset that the model is asked with; a mistake ends the command."""
    try:
        return preset_for(model, preset, changes)
    except SettingsError as error:
        refuse(error)


def refuse(why: Exception | str) -> NoReturn:
    """End the command with this as its one line, and status 2."""
    errors.print(str(why), style="red", markup=False, highlight=False)
    raise typer.Exit(2)


def quieten() -> None:
    """One progress bar is enough; the libraries' own would be drawn over it."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from datasets.utils.logging import (  # type: ignore[import-untyped]
        disable_progress_bar as datasets_without_bars,
    )
    from transformers.utils import logging as transformers_logging

    datasets_without_bars()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    # Our own log counts and explains rows without a reward; TRL prints the whole prompt of each at every step.
    logging.getLogger("trl.trainer.grpo_trainer").addFilter(
        lambda record: "All reward functions returned None" not in record.getMessage()
    )
