"""What several commands share: options, how a recipe and a preset are found, how a refusal is said."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console

from bioverify import recipes
from bioverify.core.recipes import Recipe
from bioverify.settings import SettingsError
from bioverify.transport.addresses import why_no_target
from bioverify_trainer.preset import ALIASES, Preset, load_preset, preset_for, preset_names

console = Console(highlight=False)
errors = Console(stderr=True)


def recipe_names(incomplete: str) -> list[str]:
    """What a shell completes of shipped recipes."""
    return [name for name in recipes.names() if name.startswith(incomplete)]


def known_presets(incomplete: str) -> list[str]:
    """What a shell completes of shipped presets."""
    return [name for name in (*preset_names(), *ALIASES) if name.startswith(incomplete)]


def run_folders(incomplete: str) -> list[str]:
    """What a shell completes of runs: those of ./runs, or of the folder that is being typed."""
    folder = Path(incomplete.rpartition("/")[0] or "runs")
    found = (str(config.parent) for config in folder.glob("*/run.json"))
    return sorted(run for run in found if run.startswith(incomplete))


def a_target(target: str | None) -> str | None:
    """The value of an option that names a service of gRPC. Ends the command for a URL."""
    if problem := why_no_target(target or ""):
        refuse(problem)
    return target


def a_file_to_write(file: Path | None) -> Path | None:
    """The value of an option that names one. Ends the command if its folder is missing, before anything is computed."""
    if file is not None and not file.parent.is_dir():
        refuse(f"{file}: there is no folder {file.parent}. Run: mkdir -p {file.parent}")
    if file is not None and file.is_dir():
        refuse(f"{file} is a folder; name a file in it")
    return file


RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="A shipped recipe (bioverify recipes lists them) or a .yaml file.", autocompletion=recipe_names
    ),
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.", autocompletion=run_folders)]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        help="A shipped preset (cpu, one-gpu, h100x1, h100x8, rbio1-published) or a .yaml file.",
        autocompletion=known_presets,
    ),
]
OwnPresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="The preset whose prompts, precision and threads are used; if omitted, the one that a run's model was "
        "trained with, and cpu for any other model.",
        autocompletion=known_presets,
    ),
]
TARGET_VARIABLE = "BIOVERIFY_TARGET"
"""Without it and the option, `bioverify train` and the others find the local stack that runs."""
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key of the preset: grpo.max_steps=4. May be repeated.")
]
TargetOption = Annotated[
    str,
    typer.Option(
        envvar=TARGET_VARIABLE,
        help="The aggregator: host:port or unix:/path; none: the running stack.",
        callback=a_target,
    ),
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


def print_json(value: Any) -> None:
    """For another program: indented, in UTF-8, whatever the terminal's width."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def refuse(why: Exception | str) -> NoReturn:
    """End the command with this as its one line, and status 2."""
    errors.print(str(why), style="red", markup=False, highlight=False)
    raise typer.Exit(2)


def quieten() -> None:
    """One progress bar is enough; the libraries' own would be drawn over it."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # What transformers is going to rename, and TRL still calls by its old name, is theirs to mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\b")
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
