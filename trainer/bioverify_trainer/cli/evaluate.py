"""`bioverify eval`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from bioverify import ports
from bioverify.core.cell_lines import CELL_LINES
from bioverify.files import replace_file
from bioverify_trainer.cli.options import (
    TARGET_VARIABLE,
    OwnPresetOption,
    SetOption,
    a_file_to_write,
    a_target,
    errors,
    refuse,
)

if TYPE_CHECKING:
    from bioverify_trainer.evaluate.labelling import Labelled


def evaluate(
    models: Annotated[
        list[str],
        typer.Option(
            "--model",
            help="May be repeated. baseline:gene-rate, baseline:always-yes, baseline:other-lines, baseline:mlp; a "
            ".jsonl file of completions; a checkpoint or adapter folder, hub id or smollm2; http://host:port/v1#NAME.",
        ),
    ],
    lines: Annotated[list[str] | None, typer.Option("--line", help="May be repeated; if omitted, all four.")] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", help="de or direction, may be repeated; or cell-type or disease-state, with --cells."),
    ] = None,
    cells: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Observations to be labelled, as .h5ad.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The column of the observations that holds the label.")] = None,
    choices: Annotated[bool, typer.Option("--choices", help="Offer the labels in the question.")] = False,
    questions: Annotated[
        int | None,
        typer.Option(min=2, help="Ask a sample of about so many, half of them positive; if omitted, the test split."),
    ] = None,
    per_gene: Annotated[int, typer.Option(min=2, help="Questions of each gene in the sample.")] = 10,
    samples: Annotated[int, typer.Option(min=1, help="Completions per question; the majority answers.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling; 0 answers greedily.")] = 0.0,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of a completion, at the most; if omitted, the preset's.")
    ] = None,
    chain_of_thought: Annotated[
        bool | None,
        typer.Option("--cot/--no-cot", help="The chain-of-thought suffix; if omitted, the preset's."),
    ] = None,
    preset: OwnPresetOption = None,
    changes: SetOption = None,
    batch: Annotated[int, typer.Option(min=1, help="Number of questions asked at once.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the sample, of sampling and of the bootstrap.")] = 0,
    resamples: Annotated[int, typer.Option(min=1, help="Number of bootstrap resamples of the perturbations.")] = 1000,
    with_baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Measure baselines too.")] = True,
    claims: Annotated[
        bool | None,
        typer.Option(
            "--claims/--no-claims",
            help="Check the claims of the thoughts; if omitted, if the stack serves the verifier claims.",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            envvar=TARGET_VARIABLE,
            help="The aggregator, for claims and baseline:mlp; none: the running stack.",
            callback=a_target,
        ),
    ] = ports.AGGREGATOR,
    output: Annotated[Path, typer.Option(help="Folder for answers, tables and the figure.")] = Path("runs/eval"),
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            help="File for the results as JSON; - for standard output.",
            callback=lambda file: a_file_to_write(Path(file)) and file if file else None,
        ),
    ] = None,
) -> None:
    """Measure models on held-out questions.

    PerturbQA's, or labels of cells; with 95 % intervals, beside baselines. The same command resumes an evaluation that
    was interrupted. OPENAI_API_KEY is sent to an endpoint.

    Example: bioverify eval --model smollm2 --model runs/first/model --questions 520
    """
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.artifacts.prompts import open_prompts
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.client import ClientError
    from bioverify.settings import SettingsError
    from bioverify_trainer.evaluate import observations, tables
    from bioverify_trainer.evaluate.evaluation import BASELINE, Settings
    from bioverify_trainer.evaluate.evaluation import evaluate as run
    from bioverify_trainer.evaluate.labelling import evaluate_labels
    from bioverify_trainer.evaluate.questions import TASKS, EvaluationError, Screens
    from bioverify_trainer.evaluate.verifiers import has_claims
    from bioverify_trainer.preset import preset_for

    labelled_task = tasks[0] if tasks and len(tasks) == 1 and tasks[0] in observations.TASKS else None
    if (labelled_task is None) != (cells is None) or (cells is None) != (label is None):
        raise typer.BadParameter("--task cell-type or disease-state, --cells FILE and --label COLUMN go together")
    if claims and labelled_task:
        raise typer.BadParameter(f"--claims is for questions about pairs of genes, not for --task {labelled_task}")
    known_tasks = tuple(TASKS) if labelled_task is None else (labelled_task,)
    for given, known, option in ((lines, CELL_LINES, "--line"), (tasks, known_tasks, "--task")):
        for name in given or ():
            if name not in known:
                raise typer.BadParameter(f"{option} {name}: not one of {', '.join(known)}")
    writes = not all(model.startswith(BASELINE) for model in models)
    try:
        presets = {model: preset_for(model, preset, changes) for model in models}
        if chain_of_thought is not None:
            for model, own in presets.items():
                prompts = own.prompts.model_copy(update={"chain_of_thought": chain_of_thought})
                presets[model] = own.model_copy(update={"prompts": prompts})
        settings = Settings(
            models=models,
            lines=tuple(lines or CELL_LINES),
            tasks=tuple(tasks or ("de",)),
            questions=questions,
            per_gene=per_gene,
            samples=samples,
            temperature=temperature,
            max_tokens=max_tokens,
            at_once=batch,
            seed=seed,
            target=target,
            resamples=resamples,
            with_baselines=with_baselines,
            with_claims=writes and labelled_task is None and has_claims(target, wanted=claims),
            presets=presets,
        )
        with Progress(console=errors, transient=True) as bars:
            bar = bars.add_task("evaluating", total=None)

            def show(said: str, done: int, of: int) -> None:
                bars.update(bar, description=said, completed=done, total=of)

            if labelled_task and cells and label:
                everything = observations.read_observations(cells, label)
                labelled = evaluate_labels(
                    labelled_task, everything, settings, output, with_choices=choices, progress=show
                )
                _write_labelled(labelled, output, json_file)
                return
            screens = Screens.read(open_prompts(ArtifactStore.default())[0])
            results = run(screens, settings, output, progress=show)
    except (ArtifactError, ClientError, EvaluationError, SettingsError) as error:
        refuse(error)
    content = json.dumps({"simulated": screens.simulated, "results": tables.as_json(results)}, indent=2) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    replace_file(output / "results.json", content)
    replace_file(output / "results.md", tables.as_markdown(results))
    replace_file(output / "results.tex", tables.as_latex(results))
    tables.draw(results, output / "results.svg")
    if json_file == "-":
        typer.echo(content, nl=False)
        return
    if json_file:
        Path(json_file).write_text(content)
    if screens.simulated:
        errors.print("The screens are simulated: these figures say nothing about biology.", style="yellow")
    typer.echo(tables.as_markdown(results), nl=False)
    if writes and claims is None and not settings.with_claims:
        errors.print(f"Claims of the thoughts were not checked: no verifier claims at {target}", highlight=False)
    errors.print(f"In {output}: results.json, .md, .tex, .svg, and the answers", highlight=False)


def _write_labelled(results: Sequence[Labelled], output: Path, json_file: str | None) -> None:
    from bioverify_trainer.evaluate import tables
    from bioverify_trainer.evaluate.labelling import as_json, as_table

    content, table = as_json(results), as_table(results)
    output.mkdir(parents=True, exist_ok=True)
    replace_file(output / "results.json", content)
    replace_file(output / "results.md", tables.markdown(table))
    replace_file(output / "results.tex", tables.latex(table))
    if json_file and json_file != "-":
        Path(json_file).write_text(content)
    typer.echo(content if json_file == "-" else tables.markdown(table), nl=False)
