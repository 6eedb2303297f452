"""Held-out questions during a run: whether the policy becomes better at what it is not rewarded for.

Every process asks its share of them, of the engine that writes the completions of the run: vLLM, with the weights as
they are now, or transformers. What P(yes) is at the answers, one pass of the model itself tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
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
from bioverify_trainer.evaluate.local import LocalModel, greedy
from bioverify_trainer.evaluate.measures import measure
from bioverify_trainer.evaluate.questions import Rows, Screens
from bioverify_trainer.model.generation import Ids
from bioverify_trainer.model.policy import Policy
from bioverify_trainer.preset import Preset

FIGURES = ("balanced_accuracy", "auc_per_gene", "coverage", "yes_share")
_AT_ONCE = 32
_GREEDY: Mapping[str, Any] = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
    "repetition_penalty": 1.0,
    "generation_kwargs": {},
    "structured_outputs_regex": None,
}


def held_out_rows(store: ArtifactStore, preset: Preset, recipe: Recipe) -> Rows:
    """The sample that the preset asks for, of its own cell lines: of the direction of change if the recipe asks nothing
    else, and of differential expression.

    Raises EvaluationError if there is no such question.
    """
    assert preset.heldout is not None
    is_direction = {source.task_kind for source in recipe.sources} == {TaskKind.DIRECTION_OF_CHANGE}
    kind = TaskKind.DIRECTION_OF_CHANGE if is_direction else TaskKind.DIFFERENTIAL_EXPRESSION
    rows = Screens.read(prompts.open_prompts(store)[0]).rows(kind, "test", preset.prompts.lines)
    asked = preset.heldout
    # A preset serves all cell lines, and HepG2 has a third of the genes to ask about that RPE1 has.
    return rows.sample(asked.questions, per_gene=asked.per_gene, seed=preset.grpo.seed, or_fewer=True)


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
        written = self._written_by_vllm(mine) if self._preset.grpo.use_vllm else None
        recomputation: Any = self._trainer.args.activation_checkpointing_kwargs
        # Whole on every process: ZeRO-3 spreads the weights.
        with unwrap_model_for_generation(
            self._trainer.model_wrapped,
            accelerator,
            gradient_checkpointing_kwargs=recomputation,
        ) as model:
            was_training = model.training
            model.eval()
            asked = replace(self._policy, model=model)
            writer = greedy(asked, self._preset.prompts, max_tokens=self._preset.grpo.max_completion_length)
            read = []
            for start in range(0, len(mine), _AT_ONCE):
                rows = mine[start : start + _AT_ONCE]
                tasks = [self._rows.task(row) for row in rows]
                if written is None:
                    samples = writer(tasks)
                else:
                    samples = self._reader(asked)(tasks, written[start : start + _AT_ONCE])
                for row, [sample] in zip(rows, samples, strict=True):
                    found = majority(read_answers([sample.completion], self._rows.kind), [sample.p_yes])
                    read.append((row, *found))
            model.train(was_training)
        _, answer, belief = (np.array(column) for column in zip(*sorted(gather_object(read)), strict=True))
        figures = measure(self._rows, Answers(answer, belief), resamples=1).figures
        return {name: figures[name].value for name in FIGURES}

    def _reader(self, policy: Policy) -> LocalModel:
        return LocalModel(
            policy,
            self._preset.prompts,
            max_tokens=self._preset.grpo.max_completion_length,
            samples=1,
            temperature=0,
        )

    def _written_by_vllm(self, mine: range) -> list[Ids]:
        """Greedy completions, all settings as plain as those of `bioverify_trainer.model.generation`."""
        engine: Any = self._trainer.vllm_generation  # type: ignore[attr-defined]
        # As a server it is asked for all processes in one call, which takes as many of each.
        share = -(-len(self._rows) // self._trainer.accelerator.num_processes)
        rows = [*mine, *[0] * share][:share]
        prompts = self._reader(self._policy).prompts_of([self._rows.task(row) for row in rows])
        # TRL gives it the weights of a step when that begins, and after its sleep there are none.
        engine.sync_weights()
        with _set(engine, _GREEDY):
            _, written, *_ = engine.generate(prompts, images=None, num_generations=1)
        completions: list[Ids] = written[: len(mine)]
        return completions


@contextmanager
def _set(engine: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    before = {name: getattr(engine, name) for name in settings}
    vars(engine).update(settings)
    try:
        yield
    finally:
        vars(engine).update(before)
