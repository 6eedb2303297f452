"""Which questions a step trains on: none that can never be scored, and few whose answers teach nothing.

TRL writes and scores the questions that its dataset has next. Two kinds of them are wasted and drawn again here, each
by its index and how often it was drawn (`PromptSource.draw`), so that a resumed run asks the same:

* A question that a required verifier does not know (a gene without annotation) has no reward whatever is answered.
  Before anything is written, the services are asked about all questions of the step in one call, with a placeholder for
  the completion: "not applicable" is a fact about the question (`bioverify.core.outcomes`), a fault is none, and
  services that do not answer rule no question out.
* Dynamic sampling (DAPO, arXiv:2503.14476): a group whose members are all rewarded alike has no advantages. Up to
  ``prompts.redraws`` times the step's groups of this kind are written for other questions, and those among them that
  have something to compare take their places. What finds no better one stays. TRL 1.16 has nothing of the kind.

Figures of a step are those of its questions as first drawn, so that they describe the policy and not the selection; the
advantages, and with them the share of groups alike, are those of what is trained on.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from trl.trainer.grpo_trainer import GRPOTrainer

from bioverify.adapters.trl import LostCall, ask, on_main_process
from bioverify.client import Client, ItemReward, Message, ScoreItem, TlsIdentity
from bioverify.core.completions import PromptForm
from bioverify.core.outcomes import NotApplicable
from bioverify.core.recipes import Recipe, Requirement
from bioverify.core.rewards import decisive
from bioverify_trainer.dataset import MakeRow, Row, read_task
from bioverify_trainer.reward import WAITED

NEVER_SCORABLE = "draws/never_scorable"
"""Share of a step's draws that were left out because they can never be scored."""
REPLACED = "draws/replaced"
"""Share of a step's groups that took the place of one whose members were all rewarded alike."""
WRITTEN_AGAIN = "draws/written_again"
"""Groups that were written beside those first drawn, per group of a step."""
LEAST_DIFFERENCE = 1e-6
"""Of two rewards that are told apart."""

# Well formed, so that nothing but the question can be why a verifier does not apply.
_PLACEHOLDER = "<think> </think> <answer> yes </answer>"
_MOST_TRIES = 8

logger = logging.getLogger(__name__)


def can_never_be_scored(reward: ItemReward) -> bool:
    """Whether it is lacking because verifiers do not apply: a required one, or every optional one."""
    if reward.reward is not None:
        return False
    missing = decisive([part.term for part in reward.parts], [part.value for part in reward.parts])
    facts = [isinstance(part.outcome, NotApplicable) for part in reward.parts if part.term in missing]
    enough = any if any(term.requirement is Requirement.REQUIRED for term in missing) else all
    return bool(facts) and enough(facts)


FindRows = Callable[[Sequence[tuple[int, int]]], tuple[list[Row], int]]


class ScorableRows:
    """Rows of the dataset that can be scored."""

    def __init__(self, row: MakeRow, target: str, recipe: Recipe, *, deadline_s: float) -> None:
        self._row = row
        self._client = Client(target, tls=TlsIdentity.from_environment())
        self._recipe = recipe
        self._deadline_s = deadline_s

    def __call__(self, draws: Sequence[tuple[int, int]]) -> tuple[list[Row], int]:
        """Per index and how often it was drawn again: that row, or the first one behind it that can be scored.

        And how many were left out. To be called on every process, with the same. A row in whose place `_MOST_TRIES`
        draws brought none better is given as it was drawn last, and will have no reward.
        """
        rows = [self._row(*draw) for draw in draws]
        doubtful = list(range(len(rows)))
        left_out = 0
        for _ in range(_MOST_TRIES):
            items = [_about(rows[place]) for place in doubtful]
            reply = on_main_process(partial(ask, self._client, items, self._recipe, deadline_s=self._deadline_s))
            if isinstance(reply, LostCall):
                break
            judged = zip(doubtful, reply.rewards, strict=True)
            never = [(place, reward) for place, reward in judged if can_never_be_scored(reward)]
            if not never:
                break
            left_out += len(never)
            reasons = Counter(reward.unscorable_because for _, reward in never)
            logger.info("%d questions that can never be scored are left out: %s", len(never), dict(reasons))
            doubtful = [place for place, _ in never]
            for place in doubtful:
                rows[place] = self._row(rows[place]["index"], rows[place]["again"] + 1)
        return rows, left_out


def _about(row: Row) -> ScoreItem:
    return ScoreItem(
        id=row["prompt_id"],
        completion=_PLACEHOLDER,
        prompt=[Message(turn["role"], turn["content"]) for turn in row["prompt"]],
        task=read_task(row["task_kind"], row["task"]),
        group_id=row["prompt_id"],
        source=row["source"],
        prompt_form=PromptForm(row["prompt_form"]),
    )


@dataclass(frozen=True, slots=True)
class _Member:
    """One completion. ``logprobs``: of its tokens, if vLLM wrote it."""

    question: Row
    prompt_ids: list[int]
    completion_ids: list[int]
    completion: Any
    logprobs: list[float] | None


@dataclass(frozen=True, slots=True)
class _Known:
    """What TRL's next pass is told in place of writing and scoring: this process's members, all processes' rewards."""

    members: list[_Member]
    rewards: torch.Tensor


class DrawingTrainer(GRPOTrainer):
    """GRPOTrainer that draws its questions as said above. ``redraw``: the number of the redraw under way, else 0."""

    redraw = 0

    def __init__(self, *, scorable_rows: FindRows, most_redraws: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._scorable_rows = scorable_rows
        self._most_redraws = most_redraws
        assert self.num_generations is not None
        self._size: int = self.num_generations
        self._known: _Known | None = None

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Any]:
        self._known = None
        draws = gather_object([(row["index"], row["again"]) for row in inputs])[:: self._size]
        groups, left_out = self._scorable_rows(draws)
        self._metrics["train"][NEVER_SCORABLE].append(left_out / (len(groups) + left_out))
        if not self._most_redraws:
            batch: dict[str, Any] = super()._generate_and_score_completions(self._share_of(groups))
            return batch
        first = self._written(groups)
        as_drawn = float(first.rewards.nanmean())
        self._known = self._improved(groups, first)
        batch = super()._generate_and_score_completions([member.question for member in self._known.members])
        self._metrics["train"]["reward"][-1] = as_drawn
        return batch

    def _generate(self, prompts: list[Any]) -> Any:
        if self._known is None:
            return super()._generate(prompts)
        members = self._known.members
        logprobs = [member.logprobs for member in members]
        return (
            [member.prompt_ids for member in members],
            [member.completion_ids for member in members],
            None,
            [member.completion for member in members],
            None if None in logprobs else logprobs,
            {},
            None,
            [],
        )

    def _calculate_rewards(self, *arguments: Any) -> torch.Tensor:
        if self._known is not None:
            return self._known.rewards
        rewards: torch.Tensor = super()._calculate_rewards(*arguments)
        return rewards

    def _share_of(self, groups: Sequence[Row]) -> list[Row]:
        """The question of each completion that this process writes, if all processes write as many."""
        here = len(groups) * self._size // self.accelerator.num_processes
        first = here * self.accelerator.process_index
        return [groups[place // self._size] for place in range(first, first + here)]

    def _written(self, groups: Sequence[Row]) -> _Known:
        questions = self._share_of(groups)
        prompts = [question["prompt"] for question in questions]
        prompt_ids, completion_ids, _, completions, logprobs, *_ = self._generate(prompts)
        rewards = self._calculate_rewards(questions, prompts, completions, completion_ids)
        of_member = [None] * len(questions) if logprobs is None else logprobs
        written = zip(questions, prompt_ids, completion_ids, completions, of_member, strict=True)
        return _Known([_Member(*each) for each in written], rewards)

    def _improved(self, groups: Sequence[Row], known: _Known) -> _Known:
        """Groups alike replaced by others, as far as ``most_redraws`` brings any."""
        size = self._size
        first = len(known.members) * self.accelerator.process_index
        alike = [group for group, differs in enumerate(self._differ(known.rewards)) if not differs]
        n_alike, n_written = len(alike), 0
        # Every process has to write as many completions as the others. What is written to make up the number is not
        # used, so that the questions do not depend on how many processes there are.
        together = self.accelerator.num_processes // math.gcd(size, self.accelerator.num_processes)
        drawn_again = [row["again"] for row in groups]
        # If nothing at all was scored, it is not because of the questions.
        while alike and self.redraw < self._most_redraws and not known.rewards.isnan().all():
            self.redraw += 1
            others = [group for group in range(len(groups)) if group not in alike]
            places = alike + others[: -len(alike) % together]
            candidates, _ = self._scorable_rows([(groups[place]["index"], drawn_again[place] + 1) for place in places])
            for place, row in zip(places, candidates, strict=True):
                drawn_again[place] = row["again"]
            with self._uncounted():
                written = self._written(candidates)
            members = gather_object(written.members)
            differ = self._differ(written.rewards)[: len(alike)]
            useful = [number for number, differs in enumerate(differ) if differs]
            for place, candidate in zip(alike, useful, strict=False):
                old, new = (slice(group * size, (group + 1) * size) for group in (place, candidate))
                known.rewards[old] = written.rewards[new]
                for here, member in zip(range(old.start - first, old.stop - first), members[new], strict=True):
                    if 0 <= here < len(known.members):
                        known.members[here] = member
            alike = alike[len(useful) :]
            n_written += len(places)
        self.redraw = 0
        self._metrics["train"][REPLACED].append((n_alike - len(alike)) / len(groups))
        self._metrics["train"][WRITTEN_AGAIN].append(n_written / len(groups))
        return known

    def _differ(self, rewards: torch.Tensor) -> list[bool]:
        """Whether there is something to compare in each group: two scored members with different rewards."""
        by_group = rewards[:, 0].view(-1, self._size)
        highest = by_group.nan_to_num(nan=-math.inf).amax(dim=1)
        lowest = by_group.nan_to_num(nan=math.inf).amin(dim=1)
        differ: list[bool] = (highest - lowest > LEAST_DIFFERENCE).tolist()
        return differ

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        """What is written meanwhile enters no figure, but for the time that the services were waited for."""
        figures, pending, tokens = self._metrics["train"], self._pending_metrics, self.state.num_input_tokens_seen
        self._metrics["train"], self._pending_metrics = defaultdict(list), defaultdict(list)
        yield
        waited_s = sum(self._pending_metrics[WAITED])
        self._metrics["train"], self._pending_metrics, self.state.num_input_tokens_seen = figures, pending, tokens
        if waited_s:
            self._pending_metrics[WAITED][-1] += waited_s
