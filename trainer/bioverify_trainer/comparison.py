"""Recipes compared: one policy trained by each, with the same seeds and the same budget, on the same held-out rows.

A figure is the per-gene AUC on test rows of differential expression of the preset's cell lines, mean over seeds.
Its interval is that of other test perturbations, the runs being as they are; what other seeds would change is not in
it, and the figures of the single seeds show that. A difference is paired: the rows are the same, so what makes a
perturbation hard for both recipes is not in its interval.

A run is a folder of its own, and so are its answers: whatever is finished is not done again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe
from bioverify.core.tasks import TaskKind
from bioverify_trainer.evaluate import completions
from bioverify_trainer.evaluate.local import LocalModel
from bioverify_trainer.evaluate.measures import NORMAL_95, Figure, Floats, PerGeneAuc, standard_error
from bioverify_trainer.evaluate.questions import Rows, Screens
from bioverify_trainer.evaluate.tables import Table
from bioverify_trainer.model.gene_vectors import NAME, SHUFFLED
from bioverify_trainer.model.policy import open_for
from bioverify_trainer.preset import Preset
from bioverify_trainer.runs.folder import RunError, RunFolder, read_records
from bioverify_trainer.train import train

CONTROL = "shuffled vectors"
NOT_ESTABLISHED = "not established"
_AT_ONCE = 256


@dataclass(frozen=True)
class Candidate:
    """``name``: of the recipe, and of the control if it is one."""

    name: str
    recipe: Recipe
    preset: Preset


@dataclass(frozen=True)
class Compared:
    """``per_seed``: AUC of each run; ``difference``: from the first candidate, None for it.

    ``without_variance``: share of the groups of all steps, in [0, 1]; ``seconds``: of a run's steps, mean over seeds.
    """

    name: str
    per_seed: list[float]
    auc: Figure
    difference: Figure | None
    without_variance: float
    seconds: float

    @property
    def verdict(self) -> str:
        """What the paired interval allows to say."""
        if self.difference is None:
            return ""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else NOT_ESTABLISHED


def candidates(recipes: Sequence[Recipe], preset: Preset, *, with_control: bool) -> list[Candidate]:
    """One per recipe, and the first recipe over shuffled vectors. Raises RunError if the policy has no such control."""
    found = [Candidate(recipe.name, recipe, preset) for recipe in recipes]
    if with_control:
        if preset.policy.model != NAME:
            raise RunError(
                f"policy.model: {preset.policy.model} has no control over shuffled vectors, {NAME} has; "
                "use --no-control"
            )
        policy = preset.policy.model_copy(update={"model": SHUFFLED})
        shuffled = preset.model_copy(update={"policy": policy})
        found.append(Candidate(f"{recipes[0].name}, {CONTROL}", recipes[0], shuffled))
    return found


def compare(
    chosen: Sequence[Candidate],
    seeds: Sequence[int],
    *,
    questions: int | None,
    per_gene: int,
    screens: Screens,
    store: ArtifactStore,
    target: str,
    output: Path,
    progress: Callable[[str], None],
) -> list[Compared] | None:
    """Train and ask what is not done yet; None if a run was told to stop.

    ``questions``: None for all test rows, else a sample of about as many, ``per_gene`` of each gene.

    Raises RunError, PolicyError, ArtifactError, EvaluationError.
    """
    asked = screens.rows(TaskKind.DIFFERENTIAL_EXPRESSION, "test", chosen[0].preset.prompts.lines)
    if questions is not None:
        asked = asked.sample(questions, per_gene=per_gene, seed=0)
    runs: list[list[_Run]] = [[] for _ in chosen]
    # Seed by seed: what was interrupted has compared all recipes with the seeds that are done.
    for seed in seeds:
        for candidate, of_candidate in zip(chosen, runs, strict=True):
            progress(f"{candidate.name}, seed {seed}")
            folder = RunFolder(output / candidate.name.replace(", ", "-").replace(" ", "-") / f"seed-{seed}")
            grpo = candidate.preset.grpo.model_copy(update={"seed": seed})
            preset = candidate.preset.model_copy(update={"grpo": grpo})
            if not _trained(candidate.recipe, preset, folder, store, target):
                return None
            of_candidate.append(_read(folder, preset, asked))
    return summary({candidate.name: of_candidate for candidate, of_candidate in zip(chosen, runs, strict=True)})


@dataclass(frozen=True)
class _Run:
    auc: float
    pulls: Floats
    without_variance: float
    seconds: float


def summary(runs: Mapping[str, Sequence[_Run]]) -> list[Compared]:
    """Of the runs of each candidate, all on the same rows; the first candidate is what others are compared with."""
    first = next(iter(runs.values()))
    found = []
    for name, own in runs.items():
        found.append(
            Compared(
                name=name,
                per_seed=[run.auc for run in own],
                auc=_figure(_auc(own), _pulls(own)),
                difference=None if own is first else _figure(_auc(own) - _auc(first), _pulls(own) - _pulls(first)),
                without_variance=float(np.mean([run.without_variance for run in own])),
                seconds=float(np.mean([run.seconds for run in own])),
            )
        )
    return found


def run_of(rows: Rows, belief: Floats, *, without_variance: float = math.nan, seconds: float = math.nan) -> _Run:
    """What a comparison needs of the beliefs that one run has of the held-out rows."""
    _, cluster = np.unique(np.stack([rows.line, rows.perturbation]), axis=1, return_inverse=True)
    auc = PerGeneAuc(rows.line * len(rows.screens.genes) + rows.measured_gene, rows.label, belief)
    return _Run(auc(np.ones(len(rows))), auc.pulls(cluster), without_variance, seconds)


def as_table(compared: Sequence[Compared]) -> Table:
    """Markdown and LaTeX write it."""
    first = compared[0].name
    return Table(
        ("recipe", f"than {first}", "per seed", "groups without variance", "s per run"),
        ("per-gene AUC", f"less {first}"),
        [
            (
                [
                    one.name,
                    one.verdict,
                    " ".join(f"{auc:.3f}".lstrip("0") for auc in one.per_seed),
                    f"{one.without_variance:.1%}",
                    f"{one.seconds:.0f}",
                ],
                [one.auc, one.difference],
            )
            for one in compared
        ],
    )


def _auc(runs: Sequence[_Run]) -> float:
    return float(np.mean([run.auc for run in runs]))


def _pulls(runs: Sequence[_Run]) -> Floats:
    mean: Floats = np.mean([run.pulls for run in runs], axis=0)
    return mean


def _figure(value: float, pulls: Floats) -> Figure:
    reach = NORMAL_95 * standard_error(pulls)
    return Figure(value, value - reach, value + reach)


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


def _read(folder: RunFolder, preset: Preset, asked: Rows) -> _Run:
    answerer = LocalModel(
        open_for(preset, str(folder.model)),
        preset.prompts,
        max_tokens=preset.grpo.max_completion_length,
        samples=1,
        temperature=0,
    )
    path = folder.path / "held-out.jsonl"
    completions.ask(asked, answerer, path, samples=1, at_once=_AT_ONCE, progress=lambda _: None)
    rows, answers, _ = completions.read(path, asked)
    records = read_records(folder.metrics_file)
    return run_of(
        rows,
        answers.belief,
        without_variance=float(np.mean([record["frac_reward_zero_std"] for record in records])),
        seconds=sum(record["step_seconds"] for record in records),
    )
