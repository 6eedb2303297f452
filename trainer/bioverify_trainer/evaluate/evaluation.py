"""One evaluation: some models, the held-out questions of some lines and tasks, a table.

What a checkpoint or an endpoint answers is kept in a file of completions, together with the settings it was asked with;
the same command resumes there, and other settings are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bioverify.files import replace_file
from bioverify_trainer.evaluate import baselines, completions
from bioverify_trainer.evaluate.answers import Answers
from bioverify_trainer.evaluate.measures import Measured, measure
from bioverify_trainer.evaluate.questions import TASKS, EvaluationError, Rows, Screens
from bioverify_trainer.evaluate.verifiers import claim_sums
from bioverify_trainer.preset import Preset

if TYPE_CHECKING:
    from bioverify_trainer.evaluate.endpoint import Endpoint
    from bioverify_trainer.evaluate.local import LocalModel

ALL_LINES = "all"
BASELINE = "baseline:"
SHOWN_BASELINES = ("always-yes", "gene-rate", "other-lines")
"""Beside every other model, because they need nothing."""


@dataclass(frozen=True)
class Settings:
    """``questions``: None for the whole test split, else a sample of about as many, ``per_gene`` of each gene.

    ``max_tokens``: None for what each model's preset says. ``with_claims``: the verifier claims at ``target`` is asked
    about every completion. ``presets``: what each of the models is asked with.
    """

    models: Sequence[str]
    lines: Sequence[str]
    tasks: Sequence[str]
    questions: int | None
    per_gene: int
    samples: int
    temperature: float
    max_tokens: int | None
    at_once: int
    seed: int
    target: str
    resamples: int
    with_baselines: bool
    with_claims: bool
    presets: Mapping[str, Preset]

    def max_tokens_of(self, model: str) -> int:
        return self.max_tokens or self.presets[model].grpo.max_completion_length

    def asked_with(self, model: str) -> dict[str, Any]:
        """What answers depend on: a file of them holds for one such setting."""
        return {
            "model": model,
            "samples": self.samples,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens_of(model),
            "prompts": self.presets[model].prompts.model_dump(mode="json"),
            "chat_template_kwargs": self.presets[model].grpo.chat_template_kwargs or {},
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Result:
    """A model on a task and a line, or on all lines pooled."""

    model: str
    task: str
    line: str
    measured: Measured


def evaluate(
    screens: Screens, settings: Settings, folder: Path, *, progress: Callable[[str, int, int], None]
) -> list[Result]:
    """The results of every model, task and line; ``progress`` hears model, questions done and their number.

    Raises EvaluationError, ClientError.
    """
    results = []
    for task in settings.tasks:
        asked = screens.rows(TASKS[task], "test", settings.lines)
        if settings.questions is not None:
            asked = asked.sample(settings.questions, per_gene=settings.per_gene, seed=settings.seed)
        first: Rows | None = None
        for model in settings.models:
            rows, answers = _answers(model, asked, settings, folder / task, progress)
            first = first or rows
            results += _results(model, task, rows, answers, settings)
        assert first is not None
        beside = [f"{BASELINE}{name}" for name in SHOWN_BASELINES] if settings.with_baselines else []
        for model in beside:
            if model not in settings.models:
                _, answers = _answers(model, first, settings, folder, progress)
                results += _results(model, task, first, answers, settings)
    return results


def _answers(
    model: str, asked: Rows, settings: Settings, folder: Path, progress: Callable[[str, int, int], None]
) -> tuple[Rows, Answers]:
    if model.startswith(BASELINE):
        name = model.removeprefix(BASELINE)
        if name not in baselines.NAMES:
            raise EvaluationError(f"--model {model}: the baselines are {', '.join(baselines.NAMES)}")
        return asked, baselines.answer(name, asked, target=settings.target)
    path = Path(model)
    if path.suffix != ".jsonl":
        path = file_of(model, settings, folder)
        done = 0

        def heard(more: int) -> None:
            nonlocal done
            done += more
            progress(model, done, len(asked))

        answerer = answerer_of(model, settings)
        completions.ask(asked, answerer, path, samples=settings.samples, at_once=settings.at_once, progress=heard)
    elif not path.is_file():
        raise EvaluationError(f"--model {model}: there is no such file")
    claims = partial(claim_sums, target=settings.target) if settings.with_claims else None
    rows, answers, n_others = completions.read(path, asked, claim_sums=claims)
    if n_others:
        progress(f"{model}: {n_others} lines ask other questions and are left out", len(rows), len(asked))
    return rows, answers


def file_of(model: str, settings: Settings, folder: Path, **more: Any) -> Path:
    """Where the model's answers are kept. Raises EvaluationError if the file holds answers to other settings.

    ``more``: what these answers depend on beside the settings.
    """
    name = re.sub(r"[^\w.+-]+", "-", model).strip("-.")
    folder.mkdir(parents=True, exist_ok=True)
    path, kept = folder / f"{name}.jsonl", folder / f"{name}.settings.json"
    asked_with = json.dumps(settings.asked_with(model) | more, indent=2) + "\n"
    if not kept.exists():
        replace_file(kept, asked_with)
    elif kept.read_text() != asked_with:
        raise EvaluationError(f"{path} holds answers to other settings ({kept.name}); choose another --output")
    return path


def answerer_of(model: str, settings: Settings) -> LocalModel | Endpoint:
    """Who is asked: an endpoint, or a checkpoint, which is opened. Raises EvaluationError."""
    preset = settings.presets[model]
    prompts, max_tokens = preset.prompts, settings.max_tokens_of(model)
    if model.startswith(("http://", "https://")):
        from bioverify_trainer.evaluate.endpoint import Endpoint

        address, _, name = model.partition("#")
        if not name:
            raise EvaluationError(f"--model {model}: say which of the endpoint's models, as in {address}#NAME")
        return Endpoint(
            address,
            name,
            prompts,
            max_tokens=max_tokens,
            samples=settings.samples,
            temperature=settings.temperature,
            at_once=settings.at_once,
            template_arguments=preset.grpo.chat_template_kwargs or {},
        )
    import torch

    from bioverify_trainer.evaluate.local import LocalModel
    from bioverify_trainer.model.policy import PolicyError, open_for, use_threads

    use_threads(preset.launcher.threads)
    torch.manual_seed(settings.seed)
    try:
        policy = open_for(preset, model)
    except PolicyError as error:
        raise EvaluationError(f"--model {model}: {error}") from error
    return LocalModel(
        policy, prompts, max_tokens=max_tokens, samples=settings.samples, temperature=settings.temperature
    )


def _results(model: str, task: str, rows: Rows, answers: Answers, settings: Settings) -> list[Result]:
    found = []
    present = [
        code for code, line in enumerate(rows.screens.lines) if line in settings.lines and (rows.line == code).any()
    ]
    for code in sorted(present, key=lambda code: settings.lines.index(rows.screens.lines[code])):
        here = np.flatnonzero(rows.line == code)
        measured = measure(rows.where(here), answers.where(here), resamples=settings.resamples, seed=settings.seed)
        found.append(Result(model, task, rows.screens.lines[code], measured))
    if len(present) > 1:
        measured = measure(rows, answers, resamples=settings.resamples, seed=settings.seed)
        found.append(Result(model, task, ALL_LINES, measured))
    return found
