"""Recipes compared: one policy trained by each, with the same seeds and the same budget, on the same held-out rows.

A comparison has settings: a cell line and a kind of question. In each, every recipe is trained with every seed on the
line's training rows, or, for transfer, on those of the other lines; beside them the first recipe over shuffled vectors
(nothing can be learned that transfers) and the same network on the labels themselves (as much as it can learn).

A figure is the per-gene AUC on the line's test rows, mean over seeds; over several lines it is the mean over the genes
of all. Its interval is that of other test perturbations, the runs being as they are; what other seeds would change is
not in it, and the figures of the single seeds show that. A difference is paired: the rows are the same, so what makes a
perturbation hard for both recipes is not in its interval.

A run is a folder of its own, and so are its answers: whatever is finished is not done again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.cell_lines import CELL_LINE_NAMES
from bioverify.core.recipes import Recipe
from bioverify.core.tasks import TaskKind
from bioverify_trainer.evaluate import completions
from bioverify_trainer.evaluate.local import greedy
from bioverify_trainer.evaluate.measures import NORMAL_95, Figure, Floats, PerGeneAuc, standard_error
from bioverify_trainer.evaluate.questions import TASKS, Rows, Screens
from bioverify_trainer.evaluate.tables import Table
from bioverify_trainer.model.gene_vectors import NAME, SHUFFLED
from bioverify_trainer.model.policy import open_for
from bioverify_trainer.preset import HeldOut, Preset
from bioverify_trainer.runs.folder import RunError, RunFolder, read_records
from bioverify_trainer.train import train

CONTROL = "shuffled vectors"
REFERENCE = "labels, supervised"
ALL_LINES = "all lines"
NOT_ESTABLISHED = "not established"
_AT_ONCE = 256
# K562 tests the direction of change with 150 genes of both labels, of which 32 have four rows of each.
_HELD_OUT_DIRECTION = {"questions": 240, "per_gene": 2}

Transfer = Literal["none", "loose", "strict"]
"""From which lines the training rows are: the line itself; all others; all others without what the line tests."""


@dataclass(frozen=True)
class Candidate:
    """``name``: of the recipe, and of the control or reference if it is one."""

    name: str
    recipe: Recipe
    preset: Preset


@dataclass(frozen=True)
class Setting:
    """What is learned and asked: a kind of question about a cell line."""

    task: str
    line: str
    transfer: Transfer = "none"

    @property
    def kind(self) -> TaskKind:
        return TASKS[self.task]

    @property
    def folder(self) -> str:
        return f"{self.task}-{self.line}" + ("" if self.transfer == "none" else f"-{self.transfer}")

    def recipe_of(self, recipe: Recipe) -> Recipe:
        """The recipe with its questions about the response to a knockdown asked about this kind."""
        sources = tuple(
            source.model_copy(update={"task_kind": self.kind})
            if source.task_kind is TaskKind.DIFFERENTIAL_EXPRESSION
            else source
            for source in recipe.sources
        )
        return recipe.model_copy(update={"sources": sources})

    def preset_of(self, preset: Preset, seed: int, lines: Sequence[str]) -> Preset:
        """``lines``: all that there are."""
        prompts: dict[str, Any] = {"lines": (self.line,)}
        heldout = preset.heldout
        if self.transfer != "none":
            prompts = {"lines": tuple(one for one in lines if one != self.line), "strict": self.transfer == "strict"}
            # They would be those of the lines that are trained on.
            heldout = None
        elif heldout and self.kind is TaskKind.DIRECTION_OF_CHANGE:
            heldout = HeldOut(every=heldout.every, **_HELD_OUT_DIRECTION)
        return preset.model_copy(
            update={
                "prompts": preset.prompts.model_copy(update=prompts),
                "grpo": preset.grpo.model_copy(update={"seed": seed}),
                "heldout": heldout,
            }
        )


@dataclass(frozen=True)
class Curve:
    """By step, mean over runs: reward of every step, and the AUC of held-out questions for the steps that asked."""

    reward: list[tuple[int, float]] = field(default_factory=list)
    auc: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Compared:
    """``per_seed``: AUC of each run; ``difference``: from the first candidate, None for it.

    ``without_variance``: share of the groups of all steps, in [0, 1]; ``seconds``: of a run's steps, and
    ``reward_share`` of them in the verifiers' hands, means over runs. NaN if it was not recorded.
    """

    name: str
    per_seed: list[float]
    auc: Figure
    difference: Figure | None
    without_variance: float
    seconds: float
    reward_share: float
    curve: Curve
    task: str = ""
    line: str = ""

    @property
    def verdict(self) -> str:
        """What the paired interval allows to say."""
        if self.difference is None:
            return ""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else NOT_ESTABLISHED


def candidates(
    recipes: Sequence[Recipe], preset: Preset, *, with_control: bool, with_reference: bool = False
) -> list[Candidate]:
    """One per recipe, the first over shuffled vectors, and its questions learned by their labels.

    Raises RunError if the policy has no such control.
    """
    found = [Candidate(recipe.name, recipe, preset) for recipe in recipes]
    if (with_control or with_reference) and preset.policy.model != NAME:
        raise RunError(
            f"policy.model: {preset.policy.model} has no control over shuffled vectors and no supervised reference, "
            f"{NAME} has; use --no-control --no-reference"
        )
    if with_control:
        policy = preset.policy.model_copy(update={"model": SHUFFLED})
        shuffled = preset.model_copy(update={"policy": policy})
        found.append(Candidate(f"{recipes[0].name}, {CONTROL}", recipes[0], shuffled))
    if with_reference:
        supervised = preset.model_copy(update={"learn_from": "labels"})
        found.append(Candidate(f"{recipes[0].name}, {REFERENCE}", recipes[0], supervised))
    return found


def compare(
    chosen: Sequence[Candidate],
    settings: Sequence[Setting],
    seeds: Sequence[int],
    *,
    questions: int | None,
    per_gene: int,
    screens: Screens,
    store: ArtifactStore,
    target: str,
    output: Path,
    progress: Callable[[str], None],
    report: Callable[[list[Compared]], None],
) -> bool:
    """Train and ask what is not done yet; False if a run was told to stop.

    ``questions``: None for all test rows, else a sample of about as many, ``per_gene`` of each gene. ``report`` hears,
    after each seed, of all that is finished.

    Raises RunError, PolicyError, ArtifactError, EvaluationError.
    """
    runs: dict[Setting, dict[str, list[Run]]] = {}
    asked_of = {setting: screens.rows(setting.kind, "test", [setting.line]) for setting in settings}
    if questions is not None:
        # Before any training: a line that has too few is refused at once.
        asked_of = {setting: rows.sample(questions, per_gene=per_gene, seed=0) for setting, rows in asked_of.items()}
    for setting, asked in asked_of.items():
        of_setting = runs.setdefault(setting, {candidate.name: [] for candidate in chosen})
        # Seed by seed: what was interrupted has compared all recipes with the seeds that are done.
        for seed in seeds:
            for candidate in chosen:
                progress(f"{CELL_LINE_NAMES[setting.line]}, {setting.task}: {candidate.name}, seed {seed}")
                name = candidate.name.replace(", ", "-").replace(" ", "-")
                folder = RunFolder(output / setting.folder / name / f"seed-{seed}")
                preset = setting.preset_of(candidate.preset, seed, screens.lines)
                if not _trained(setting.recipe_of(candidate.recipe), preset, folder, store, target):
                    return False
                of_setting[candidate.name].append(_read(folder, preset, asked))
            report(summaries(runs))
    return True


@dataclass(frozen=True)
class Run:
    """What a comparison needs of one run: the held-out rows and its beliefs of them, and how it went."""

    rows: Rows
    belief: Floats
    auc: float
    pulls: Floats
    without_variance: float
    seconds: float
    reward_share: float
    curve: Curve


def summaries(runs: Mapping[Setting, Mapping[str, Sequence[Run]]]) -> list[Compared]:
    """Setting by setting, then over the lines of each task if there are several."""
    found = [
        replace(one, task=_told(setting), line=CELL_LINE_NAMES[setting.line])
        for setting, of_setting in runs.items()
        for one in summary(of_setting)
    ]
    for told in dict.fromkeys(_told(setting) for setting in runs):
        of_task = [of_setting for setting, of_setting in runs.items() if _told(setting) == told]
        if len(of_task) > 1:
            over = {
                name: [_over_lines(same_seed) for same_seed in zip(*(one[name] for one in of_task), strict=False)]
                for name in of_task[0]
            }
            found += [replace(one, task=told, line=ALL_LINES) for one in summary(over)]
    return found


def summary(runs: Mapping[str, Sequence[Run]]) -> list[Compared]:
    """Of the runs of each candidate, all on the same rows; the first candidate is what others are compared with.

    Runs are in the order of their seeds. If one candidate has fewer, a difference is of the seeds that both have.
    """
    first = next(iter(runs.values()))
    found = []
    for name, own in runs.items():
        if not own:
            continue
        both = min(len(own), len(first))
        difference = _figure(_auc(own[:both]) - _auc(first[:both]), _pulls(own[:both]) - _pulls(first[:both]))
        found.append(
            Compared(
                name=name,
                per_seed=[run.auc for run in own],
                auc=_figure(_auc(own), _pulls(own)),
                difference=None if own is first else difference,
                without_variance=float(np.mean([run.without_variance for run in own])),
                seconds=float(np.mean([run.seconds for run in own])),
                reward_share=float(np.mean([run.reward_share for run in own])),
                curve=_mean_curve([run.curve for run in own]),
            )
        )
    return found


def run_of(
    rows: Rows,
    belief: Floats,
    *,
    without_variance: float = math.nan,
    seconds: float = math.nan,
    reward_share: float = math.nan,
    curve: Curve | None = None,
) -> Run:
    """From the beliefs that one run has of the held-out rows. What is sampled is a perturbation, in all its lines."""
    _, cluster = np.unique(rows.perturbation, return_inverse=True)
    auc = PerGeneAuc(rows.line * len(rows.screens.genes) + rows.measured_gene, rows.label, belief)
    value, pulls = auc(np.ones(len(rows))), auc.pulls(cluster)
    return Run(rows, belief, value, pulls, without_variance, seconds, reward_share, curve or Curve())


def as_table(compared: Sequence[Compared]) -> Table:
    """Markdown and LaTeX write it."""
    first = compared[0].name
    return Table(
        ("task", "line", "recipe", f"than {first}", "per seed", "no variance", "s per run", "of it rewards"),
        ("per-gene AUC", f"less {first}"),
        [
            (
                [
                    one.task,
                    one.line,
                    one.name,
                    one.verdict,
                    " ".join(f"{auc:.3f}".lstrip("0") for auc in one.per_seed),
                    f"{one.without_variance:.1%}",
                    f"{one.seconds:.0f}",
                    f"{one.reward_share:.0%}",
                ],
                [one.auc, one.difference],
            )
            for one in compared
        ],
    )


def _told(setting: Setting) -> str:
    return setting.task if setting.transfer == "none" else f"{setting.task}, {setting.transfer} transfer"


def _over_lines(runs: Sequence[Run]) -> Run:
    """One run of each line as one."""
    rows = replace(
        runs[0].rows,
        line=np.concatenate([run.rows.line for run in runs]),
        perturbation=np.concatenate([run.rows.perturbation for run in runs]),
        measured_gene=np.concatenate([run.rows.measured_gene for run in runs]),
        label=np.concatenate([run.rows.label for run in runs]),
    )
    return run_of(
        rows,
        np.concatenate([run.belief for run in runs]),
        without_variance=float(np.mean([run.without_variance for run in runs])),
        seconds=float(np.mean([run.seconds for run in runs])),
        reward_share=float(np.mean([run.reward_share for run in runs])),
    )


def _auc(runs: Sequence[Run]) -> float:
    return float(np.mean([run.auc for run in runs]))


def _pulls(runs: Sequence[Run]) -> Floats:
    mean: Floats = np.mean([run.pulls for run in runs], axis=0)
    return mean


def _figure(value: float, pulls: Floats) -> Figure:
    reach = NORMAL_95 * standard_error(pulls)
    return Figure(value, value - reach, value + reach)


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    def mean(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        of_step: dict[int, list[float]] = {}
        for step, value in points:
            of_step.setdefault(step, []).append(value)
        return [(step, float(np.mean(values))) for step, values in sorted(of_step.items())]

    return Curve(
        mean([point for curve in curves for point in curve.reward]),
        mean([point for curve in curves for point in curve.auc]),
    )


def _trained(recipe: Recipe, preset: Preset, folder: RunFolder, store: ArtifactStore, target: str) -> bool:
    """Whether the run is finished. Raises RunError if the folder holds a run by another recipe or preset."""
    if folder.config_file.exists():
        config: dict[str, Any] = json.loads(folder.config_file.read_text())
        wanted = {"recipe": recipe.model_dump(mode="json"), "preset": preset.model_dump(mode="json")}
        if differs := [key for key, value in wanted.items() if config[key] != value]:
            raise RunError(f"{folder.path} holds a run of another {' and '.join(differs)}; choose another --output")
    if folder.model.is_dir():
        return True
    trained = train(recipe, preset, target=target, output=folder.path, store=store, restartable=True)
    return not trained.was_stopped


def _read(folder: RunFolder, preset: Preset, asked: Rows) -> Run:
    policy = open_for(preset, str(folder.model))
    answerer = greedy(policy, preset.prompts, max_tokens=preset.grpo.max_completion_length)
    path = folder.path / "held-out.jsonl"
    completions.ask(asked, answerer, path, samples=1, at_once=_AT_ONCE, progress=lambda _: None)
    rows, answers, _ = completions.read(path, asked)
    records = read_records(folder.metrics_file)
    seconds = [record["step_seconds"] for record in records]
    first, last = "heldout_before/auc_per_gene", "heldout/auc_per_gene"
    return run_of(
        rows,
        answers.belief,
        without_variance=float(np.mean([record["frac_reward_zero_std"] for record in records])),
        seconds=sum(seconds),
        reward_share=float(np.average([record["pace/rewards"] for record in records], weights=seconds)),
        curve=Curve(
            [(record["step"], record["reward"]) for record in records if record["reward"] is not None],
            [(0, record[first]) for record in records if first in record]
            + [(record["step"], record[last]) for record in records if last in record],
        ),
    )
