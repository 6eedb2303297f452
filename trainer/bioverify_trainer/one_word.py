"""GRPO for a policy whose completion is one word: sampling and loss out of one forward pass.

TRL writes, decodes and weighs every completion by itself. Of `model.gene_vectors` all completions of a group are one of
two words, so a step is one forward pass over its questions; the members of a group are drawn from the two
probabilities; each distinct answer of a question is scored once, by the live services; and the loss of a member counts
as often as it was drawn. Loss, advantages and distance to the start are TRL's, on policy, over the one token that is
not certain.

Questions are used in ``grpo.num_iterations`` steps, with those of the steps before and after; their two answers are
then both scored, once, and each step draws its members from the policy as it is: on policy, where TRL's iterations are
off it. Rewards are most of a step's time, so that a larger batch of questions that were asked before costs little.

``learn_from: labels`` is the reference: the same network and the same questions, by cross-entropy on their measured
labels. Rewards are asked for and recorded all the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from trl.trainer.grpo_config import GRPOConfig

from bioverify.adapters.trl import RewardFunction
from bioverify.core.recipes import Pairs, Recipe
from bioverify.core.tasks import TaskKind
from bioverify_trainer.model.gene_vectors import KINDS, GeneVectorsModel, completion, question_ids
from bioverify_trainer.model.policy import Policy
from bioverify_trainer.pace import Pace
from bioverify_trainer.preset import Preset
from bioverify_trainer.runs.folder import RunError
from bioverify_trainer.saving import SavingTrainer

_COLUMNS = ("prompt_id", "source", "prompt_form", "task_kind", "task")
# TRL's own, against a division by zero.
_LEAST_DEVIATION = 1e-4

Scaling = Literal["group", "batch", "none"]


class OneWordTrainer(SavingTrainer):
    """``any_row_scored``: whether any answer of the last step could be scored."""

    any_row_scored = False

    def __init__(
        self, preset: Preset, policy: Policy, reward: RewardFunction, args: GRPOConfig, draws: Dataset, pace: Pace
    ) -> None:
        """``draws``: the questions of all steps in order."""
        check(preset)
        # To transformers a step is one row.
        args.per_device_train_batch_size = 1
        super().__init__(
            model=policy.model,
            args=args,
            train_dataset=_Steps(draws, preset.prompts_per_step),
            data_collator=lambda rows: rows[0],
            processing_class=policy.tokenizer,
        )
        self._grpo = preset.grpo
        self._by_labels = preset.learn_from == "labels"
        self._policy = policy
        self._reward = reward
        self._pace = pace
        self._start: Any = copy.deepcopy(policy.model)
        self._start.train(mode=False)
        self._figures: dict[str, float] = {}
        self._recent: dict[int, _Questions] = {}
        self._is_repeated = preset.grpo.num_iterations > 1

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_others: Any, **_options: Any) -> torch.Tensor:
        answerer: GeneVectorsModel = self.accelerator.unwrap_model(model)
        questions = self._questions_of(inputs["step"])
        ids = torch.cat([one.ids for one in questions])
        log_p = answerer.answer_log_probabilities(ids)
        drawn = torch.bernoulli(log_p.detach()[:, :1].exp().expand(-1, self._grpo.num_generations)).sum(dim=1)
        counts = torch.stack([drawn, self._grpo.num_generations - drawn], dim=1)
        with self._pace.measuring("rewards"):
            of_each = counts.split([len(one.ids) for one in questions])  # type: ignore[no-untyped-call]
            for one, given in zip(questions, of_each, strict=True):
                if one.rewards is None:
                    # What is asked about once more may be answered otherwise then.
                    one.rewards = self._rewards(one.columns, torch.ones_like(given) if self._is_repeated else given)
        rewards = torch.cat([one.rewards for one in questions if one.rewards is not None])
        counts = counts * ~rewards.isnan()
        rewards = rewards.nan_to_num()
        self.any_row_scored = bool(counts.any())
        found, deviation = advantages(rewards, counts, self._grpo.scale_rewards)
        members = counts.sum().clamp(min=1)
        # Without a pull back to the start an answer may become so sure that the distance is no number.
        start_log_p = torch.cat([one.start_log_p for one in questions]) if self._grpo.beta else log_p.detach()
        far = start_log_p - log_p
        distance = far.exp() - far - 1
        # On policy the ratio is one, and its gradient that of the log-probability.
        ratio = (log_p - log_p.detach()).exp()
        self._figures |= {
            "reward": float((rewards * counts).sum() / members) if self.any_row_scored else float("nan"),
            "reward_std": float(deviation.mean()),
            "frac_reward_zero_std": float((deviation < _LEAST_DEVIATION / 100).float().mean()),
            "kl": float((distance.detach() * counts).sum() / members),
            "entropy": float(-(log_p.detach().exp() * log_p.detach()).sum(dim=1).mean()),
        }
        if self._by_labels:
            label = torch.tensor([label for one in questions for label in one.columns["label"]], device=log_p.device)
            return torch.nn.functional.nll_loss(log_p, 1 - label)
        loss: torch.Tensor = ((self._grpo.beta * distance - found * ratio) * counts).sum() / members
        return loss

    def log(self, logs: dict[str, float], *others: Any, **options: Any) -> None:
        super().log(logs | self._figures, *others, **options)
        self._figures = {}

    def floating_point_ops(self, inputs: Any) -> int:
        del inputs  # transformers would look for a batch of tokens
        return 0

    def _get_train_sampler(self, *_others: Any) -> Any:
        # Each draw is random already, and its place in the order must be its index.
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def _questions_of(self, step: _Step) -> list[_Questions]:
        """Of this step and of those before it that are used again; a resumed run asks for these once more."""
        draws: Any = self.train_dataset
        before = range(max(0, step.number - self._grpo.num_iterations + 1), step.number)
        self._recent = {
            number: self._recent.get(number) or self._questions(draws[number]["step"].columns) for number in before
        }
        self._recent[step.number] = self._questions(step.columns)
        return list(self._recent.values())

    def _questions(self, columns: dict[str, list[Any]]) -> _Questions:
        ids = question_ids(self._policy.tokenizer, [turns[-1]["content"] for turns in columns["prompt"]])
        ids = ids.to(self.args.device)
        with torch.no_grad():
            return _Questions(columns, ids, self._start.answer_log_probabilities(ids))

    def _rewards(self, rows: dict[str, list[Any]], counts: torch.Tensor) -> torch.Tensor:
        """Questions × 2; NaN for an answer that nobody gave, or that cannot be scored."""
        given = counts.nonzero().tolist()
        scored = self._reward(
            completions=[completion(TaskKind(rows["task_kind"][row]), word) for row, word in given],
            completion_ids=[()] * len(given),
            log_metric=self._figures.__setitem__,
            trainer_state=self.state,
            # The question alone: with its task beside it, nobody reads the system turn.
            prompts=[rows["prompt"][row][-1:] for row, _ in given],
            **{name: [rows[name][row] for row, _ in given] for name in _COLUMNS},
        )
        rewards = torch.full(counts.shape, float("nan"))
        for (row, word), number in zip(given, scored, strict=True):
            if number is not None:
                rewards[row, word] = number
        return rewards.to(counts.device)


def advantages(rewards: torch.Tensor, counts: torch.Tensor, scaling: Scaling) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's advantage of each answer, questions × 2, and the deviation of each group, of which ``counts`` gave it."""
    members = counts.sum(dim=1, keepdim=True)
    centred = rewards - (rewards * counts).sum(dim=1, keepdim=True) / members.clamp(min=1)
    deviation = ((centred**2 * counts).sum(dim=1, keepdim=True) / (members - 1).clamp(min=1)).sqrt()
    if scaling == "group":
        return centred / (deviation + _LEAST_DEVIATION), deviation
    if scaling == "batch":
        # Members are compared with their group, and divided by the deviation of all.
        n = counts.sum().clamp(min=2)
        off = rewards - (rewards * counts).sum() / n
        return centred / (((off**2 * counts).sum() / (n - 1)).sqrt() + _LEAST_DEVIATION), deviation
    return centred, deviation


def check_recipe(recipe: Recipe, preset: Preset) -> None:
    """Raises RunError if a question of the recipe cannot be asked of the policy, or has no label to learn from."""
    for source in recipe.sources:
        if source.task_kind not in KINDS:
            raise RunError(
                f"recipe {recipe.name}, source {source.name}: a policy over gene vectors has no words for "
                f"{source.task_kind} (it has for {', '.join(KINDS)})"
            )
        if preset.learn_from == "labels" and source.pairs is Pairs.ANY:
            raise RunError(f"learn_from: pairs of recipe {recipe.name}, source {source.name}, were not measured")


def check(preset: Preset) -> None:
    """Raises RunError if the preset asks for what one forward pass cannot do."""
    grpo = preset.grpo
    refused = {
        "policy.lora": preset.policy.lora is not None,
        "grpo.use_vllm": grpo.use_vllm,
        "grpo.gradient_accumulation_steps": grpo.gradient_accumulation_steps != 1,
        "grpo.temperature": grpo.temperature != 1,
        "grpo.loss_type": grpo.loss_type not in ("grpo", "bnpo", "dapo"),
        "grpo.activation_checkpointing": grpo.activation_checkpointing,
        "launcher.processes": preset.launcher.processes != 1,
        "launcher.deepspeed": preset.launcher.deepspeed is not None,
    }
    if wrong := [key for key, is_set in refused.items() if is_set]:
        raise RunError(
            f"{', '.join(wrong)}: a policy over gene vectors is trained by one process, in on-policy steps on whole "
            "batches of one-word answers. Leave these as preset gene-vectors has them"
        )


@dataclass
class _Questions:
    """``ids``: questions × tokens. Questions × 2: what the policy held of the answers at its start; their rewards, NaN
    without one, None if not asked for yet."""

    columns: dict[str, list[Any]]
    ids: torch.Tensor
    start_log_p: torch.Tensor
    rewards: torch.Tensor | None = None


class _Step:
    """What transformers passes on unread. ``number``: of the step, from 0 on."""

    def __init__(self, number: int, columns: dict[str, list[Any]]) -> None:
        self.number = number
        self.columns = columns


class _Steps(torch.utils.data.Dataset[dict[str, _Step]]):
    def __init__(self, draws: Dataset, questions: int) -> None:
        self._draws = draws
        self._questions = questions

    def __len__(self) -> int:
        return len(self._draws) // self._questions

    def __getitem__(self, step: int) -> dict[str, _Step]:
        return {"step": _Step(step, self._draws[step * self._questions : (step + 1) * self._questions])}
