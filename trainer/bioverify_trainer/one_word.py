"""GRPO for a policy whose completion is one word: sampling and loss out of one forward pass.

TRL writes, decodes and weighs every completion by itself. Of `model.gene_vectors` all completions of a group are "yes"
or "no", so a step is one forward pass over its questions; the members of a group are drawn from the two probabilities;
each distinct answer of a question is scored once, by the live services; and the loss of a member counts as often as it
was drawn. Loss, advantages and distance to the start are TRL's, on policy, over the one token that is not certain.

Groups whose members are all rewarded alike are drawn again as by `bioverify_trainer.draws`. Questions that can never be
scored are not looked for first, as they are there: to ask about one costs as much as to score it, and nothing was
written for it in vain.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from trl.trainer.grpo_config import GRPOConfig

from bioverify.adapters.trl import RewardFunction
from bioverify_trainer.dataset import MakeRow, columns_of
from bioverify_trainer.draws import LEAST_DIFFERENCE, REPLACED, WRITTEN_AGAIN
from bioverify_trainer.model import generation
from bioverify_trainer.model.gene_vectors import GeneVectorsModel
from bioverify_trainer.model.policy import Policy
from bioverify_trainer.pace import Pace
from bioverify_trainer.preset import Preset
from bioverify_trainer.reward import WAITED
from bioverify_trainer.runs.folder import RunError
from bioverify_trainer.saving import SavingTrainer

ANSWERS = ("<answer> yes </answer>", "<answer> no </answer>")
_COLUMNS = ("prompt_id", "source", "prompt_form", "task_kind", "task")
# TRL's own, against a division by zero.
_LEAST_DEVIATION = 1e-4

Scaling = Literal["group", "batch", "none"]


class _Asked(NamedTuple):
    """Questions × tokens, and questions × 2: log-probability of each answer (with its gradient), how many members gave
    it and were scored, and its reward."""

    ids: torch.Tensor
    log_p: torch.Tensor
    counts: torch.Tensor
    rewards: torch.Tensor

    @property
    def differ(self) -> torch.Tensor:
        """Whether the members of a group are rewarded differently."""
        apart: torch.Tensor = (self.rewards[:, 0] - self.rewards[:, 1]).abs() > LEAST_DIFFERENCE
        return apart & (self.counts > 0).all(dim=1)


class OneWordTrainer(SavingTrainer):
    """``any_row_scored``: whether any answer of the last step could be scored."""

    any_row_scored = False

    def __init__(
        self,
        preset: Preset,
        policy: Policy,
        reward: RewardFunction,
        args: GRPOConfig,
        draws: Dataset,
        row: MakeRow,
        pace: Pace,
    ) -> None:
        """``draws``: the questions of all steps in order; ``row``: what else may be drawn in the place of each."""
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
        self._most_redraws = preset.prompts.redraws
        self._row = row
        self._policy = policy
        self._reward = reward
        self._pace = pace
        self._start: Any = copy.deepcopy(policy.model)
        self._start.train(mode=False)
        self._figures: dict[str, float] = {}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_others: Any, **_options: Any) -> torch.Tensor:
        ids, log_p, counts, rewards = self._improved(model, inputs["step"].columns)
        self.any_row_scored = bool(counts.any())
        with torch.no_grad():
            start_log_p = self._start.answer_log_probabilities(ids) if self._grpo.beta else log_p.detach()
        found, deviation = advantages(rewards, counts, self._grpo.scale_rewards)
        members = counts.sum().clamp(min=1)
        far = start_log_p - log_p
        distance = far.exp() - far - 1
        # On policy the ratio is one, and its gradient that of the log-probability.
        ratio = (log_p - log_p.detach()).exp()
        self._figures |= {
            "reward_std": float(deviation.mean()),
            "frac_reward_zero_std": float((deviation < _LEAST_DEVIATION / 100).float().mean()),
            "kl": float((distance.detach() * counts).sum() / members),
            "entropy": float(-(log_p.detach().exp() * log_p.detach()).sum(dim=1).mean()),
        }
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

    def _improved(self, model: Any, rows: dict[str, list[Any]]) -> _Asked:
        """The answers to the questions, or to others in place of those whose answers are all rewarded alike."""
        asked = self._answers(model, rows, self._figures.__setitem__)
        n_scored = asked.counts.sum()
        # Of the questions as first drawn, as all figures but those of the loss.
        self._figures["reward"] = float((asked.rewards * asked.counts).sum() / n_scored) if n_scored else float("nan")
        alike = ~asked.differ
        n_alike, n_written = int(alike.sum()), 0
        for redraw in range(1, self._most_redraws + 1):
            # If nothing at all was scored, it is not because of the questions.
            if not n_scored or not alike.any():
                break
            places = alike.nonzero().flatten()
            n_written += len(places)
            others = columns_of([self._row(rows["index"][place], redraw) for place in places.tolist()])
            found = self._answers(model, others, self._add_waited)
            useful = found.differ
            asked = _Asked(
                *(old.index_copy(0, places[useful], new[useful]) for old, new in zip(asked, found, strict=True))
            )
            alike = ~asked.differ
        if self._most_redraws:
            self._figures[REPLACED] = (n_alike - int(alike.sum())) / len(alike)
            self._figures[WRITTEN_AGAIN] = n_written / len(alike)
        return asked

    def _answers(self, model: Any, rows: dict[str, list[Any]], log_metric: Callable[[str, float], None]) -> _Asked:
        ids = self._ids(rows["prompt"]).to(self.args.device)
        answerer: GeneVectorsModel = self.accelerator.unwrap_model(model)
        log_p = answerer.answer_log_probabilities(ids)
        drawn = torch.bernoulli(log_p.detach()[:, :1].exp().expand(-1, self._grpo.num_generations)).sum(dim=1)
        counts = torch.stack([drawn, self._grpo.num_generations - drawn], dim=1)
        with self._pace.measuring("rewards"):
            rewards = self._rewards(rows, counts, log_metric)
        return _Asked(ids, log_p, counts * ~rewards.isnan(), rewards.nan_to_num())

    def _add_waited(self, name: str, value: float) -> None:
        if name == WAITED:
            self._figures[WAITED] += value

    def _ids(self, prompts: Sequence[Any]) -> torch.Tensor:
        texts = [generation.rendered(self._policy, turns) for turns in prompts]
        return torch.tensor(self._policy.tokenizer(texts, add_special_tokens=False)["input_ids"])

    def _rewards(
        self, rows: dict[str, list[Any]], counts: torch.Tensor, log_metric: Callable[[str, float], None]
    ) -> torch.Tensor:
        """Questions × 2; NaN for an answer that nobody gave, or that cannot be scored."""
        given = counts.nonzero().tolist()
        scored = self._reward(
            completions=[ANSWERS[word] for _, word in given],
            completion_ids=[()] * len(given),
            log_metric=log_metric,
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


def check(preset: Preset) -> None:
    """Raises RunError if the preset asks for what one forward pass cannot do."""
    grpo = preset.grpo
    refused = {
        "policy.lora": preset.policy.lora is not None,
        "grpo.use_vllm": grpo.use_vllm,
        "grpo.num_iterations": grpo.num_iterations != 1,
        "grpo.gradient_accumulation_steps": grpo.gradient_accumulation_steps != 1,
        "grpo.temperature": grpo.temperature != 1,
        "grpo.loss_type": grpo.loss_type not in ("grpo", "bnpo", "dapo"),
        "grpo.activation_checkpointing": grpo.activation_checkpointing,
        "launcher.processes": preset.launcher.processes != 1,
        "launcher.deepspeed": preset.launcher.deepspeed is not None,
    }
    if wrong := [key for key, is_set in refused.items() if is_set]:
        raise RunError(
            f"{', '.join(wrong)}: a policy over gene vectors is trained by one process, one on-policy step per batch "
            "of one-word answers. Leave these as preset gene-vectors has them"
        )


class _Step:
    """What transformers passes on unread."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns


class _Steps(torch.utils.data.Dataset[dict[str, _Step]]):
    def __init__(self, draws: Dataset, questions: int) -> None:
        self._draws = draws
        self._questions = questions

    def __len__(self) -> int:
        return len(self._draws) // self._questions

    def __getitem__(self, step: int) -> dict[str, _Step]:
        return {"step": _Step(self._draws[step * self._questions : (step + 1) * self._questions])}
