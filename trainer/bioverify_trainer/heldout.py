"""Held-out questions during a run: whether the policy becomes better at what it is not rewarded for.

Every process asks its share of them, by transformers, also if vLLM generates the completions of the run.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import numpy as np
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.models.utils import unwrap_model_for_generation

from bioverify.artifacts import prompts
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe
from bioverify.core.tasks import TaskKind
from bioverify_trainer.evaluate.answers import Answers, majority
from bioverify_trainer.evaluate.completions import read_answers
from bioverify_trainer.evaluate.local import greedy
from bioverify_trainer.evaluate.measures import measure
from bioverify_trainer.evaluate.questions import Rows, Screens
from bioverify_trainer.model.policy import Policy
from bioverify_trainer.preset import Preset

FIGURES = ("balanced_accuracy", "auc_per_gene", "coverage", "yes_share")
_AT_ONCE = 32


def held_out_rows(store: ArtifactStore, preset: Preset, recipe: Recipe) -> Rows:
    """The sample that the preset asks for, of its own cell lines: of the direction of change if the recipe asks nothing
    else, and of differential expression.

    Raises EvaluationError if there are not so many questions.
    """
    assert preset.heldout is not None
    is_direction = {source.task_kind for source in recipe.sources} == {TaskKind.DIRECTION_OF_CHANGE}
    kind = TaskKind.DIRECTION_OF_CHANGE if is_direction else TaskKind.DIFFERENTIAL_EXPRESSION
    rows = Screens.read(prompts.open_prompts(store)[0]).rows(kind, "test", preset.prompts.lines)
    return rows.sample(preset.heldout.questions, per_gene=preset.heldout.per_gene, seed=preset.grpo.seed)


class HeldOutQuestions(TrainerCallback):
    """Adds ``heldout/…`` to the log of every n-th step; the first log also has ``heldout_before/…``.

    Answers are greedy, so that the random numbers of the run are those of a run without.
    """

    def __init__(self, rows: Rows, preset: Preset, policy: Policy, trainer: Trainer) -> None:
        self._rows = rows
        self._trainer = trainer
        self._preset = preset
        self._policy = policy
        self._found: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self._found |= {f"heldout_before/{name}": value for name, value in self._measure().items()}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        assert self._preset.heldout is not None
        if state.global_step % self._preset.heldout.every == 0:
            self._found |= {f"heldout/{name}": value for name, value in self._measure().items()}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: MutableMapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is not None:
            logs.update(self._found)
            self._found = {}

    def _measure(self) -> dict[str, float]:
        accelerator = self._trainer.accelerator
        mine = range(accelerator.process_index, len(self._rows), accelerator.num_processes)
        recomputation: Any = self._trainer.args.activation_checkpointing_kwargs
        # Whole on every process: ZeRO-3 spreads the weights.
        with unwrap_model_for_generation(
            self._trainer.model_wrapped,
            accelerator,
            gradient_checkpointing_kwargs=recomputation,
        ) as model:
            was_training = model.training
            model.eval()
            asked = greedy(
                replace(self._policy, model=model),
                self._preset.prompts,
                max_tokens=self._preset.grpo.max_completion_length,
            )
            read = []
            for start in range(0, len(mine), _AT_ONCE):
                rows = mine[start : start + _AT_ONCE]
                samples = asked([self._rows.task(row) for row in rows])
                for row, [sample] in zip(rows, samples, strict=True):
                    found = majority(read_answers([sample.completion], self._rows.kind), [sample.p_yes])
                    read.append((row, *found))
            model.train(was_training)
        _, answer, belief = (np.array(column) for column in zip(*sorted(gather_object(read)), strict=True))
        figures = measure(self._rows, Answers(answer, belief), resamples=1).figures
        return {name: figures[name].value for name in FIGURES}
