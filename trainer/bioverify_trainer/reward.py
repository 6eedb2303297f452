"""The reward that TRL asks for, over the bioverify client.

One call scores the whole batch, each item under the group id of its prompt, so that the aggregator can apply the group
rule. A row that cannot be scored comes back as None, which TRL leaves out of the group's mean and gives no advantage;
so does every row of a call that failed, because an exception here would end the run and a number would be a lie. What
the verifiers said goes to TRL as metrics, averaged over processes by TRL itself.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from bioverify.client import AsyncClient, ItemReward, Message, ScoredBatch, ScoreItem
from bioverify.core.completions import PromptForm
from bioverify.core.outcomes import Evidence, Failed, NotApplicable, Scored
from bioverify.core.recipes import Recipe
from bioverify.core.rewards import term_value
from bioverify_trainer.dataset import read_task
from bioverify_trainer.prompts import Turn

logger = logging.getLogger(__name__)

RewardFunction = Callable[..., Awaitable[list[float | None]]]
LogMetric = Callable[[str, float], None]


def make_reward(
    target: str,
    recipe: Recipe,
    *,
    deadline_s: float,
    samples_per_step: int = 0,
    record_sample: Callable[[Mapping[str, Any]], None] | None = None,
) -> RewardFunction:
    """The reward function for TRL's ``reward_funcs``.

    ``samples_per_step`` completions of each call are handed to ``record_sample`` with their parts and evidence.
    """
    client: AsyncClient | None = None
    wants_samples = samples_per_step > 0 and record_sample is not None

    async def bioverify_reward(
        prompts: list[list[Turn]],
        completions: list[list[Turn]],
        *,
        prompt_id: list[str],
        source: list[str],
        prompt_form: list[str],
        task_kind: list[str],
        task: list[str],
        log_metric: LogMetric,
        trainer_state: Any,
        **_unused_columns: Any,
    ) -> list[float | None]:
        nonlocal client
        if client is None:
            # TRL runs async rewards on a loop of its own; a channel made on another loop raises there.
            client = AsyncClient(target)
        step = int(trainer_state.global_step) + 1
        items = [
            ScoreItem(
                id=f"{step}-{row}",
                completion=completion[-1]["content"],
                prompt=[Message(turn["role"], turn["content"]) for turn in prompts[row]],
                task=read_task(task_kind[row], task[row]),
                group_id=prompt_id[row],
                source=source[row],
                prompt_form=PromptForm(prompt_form[row]),
            )
            for row, completion in enumerate(completions)
        ]
        started = time.perf_counter()
        try:
            batch = await client.score(items, recipe, deadline_s=deadline_s, with_evidence=wants_samples)
        except Exception as error:
            # Whatever it was, it says nothing about the completions: no reward, and the run goes on.
            logger.warning(
                "step %d: %d completions have no reward, the call failed (%s: %s)",
                step,
                len(items),
                type(error).__name__,
                error,
            )
            log_metric("reward_call/failed", 1.0)
            log_metric("reward_call/unscorable", 1.0)
            return [None] * len(items)
        log_metric("reward_call/failed", 0.0)
        log_metric("reward_call/seconds", time.perf_counter() - started)
        _log_batch(batch, log_metric)
        if wants_samples and record_sample is not None:
            # The first of each group in turn, so that several prompts are seen.
            for row in sorted(range(len(items)), key=lambda row: _place_in_group(items, row))[:samples_per_step]:
                record_sample(sample_record(step, items[row], batch.rewards[row]))
        return [reward.reward for reward in batch.rewards]

    return bioverify_reward


def _place_in_group(items: Sequence[ScoreItem], row: int) -> int:
    return sum(earlier.group_id == items[row].group_id for earlier in items[:row])


def _log_batch(batch: ScoredBatch, log_metric: LogMetric) -> None:
    """Metrics of one call: shares of rows in [0, 1], values in [0, 1], contributions in units of the reward."""
    rewards = batch.rewards
    log_metric("reward_call/unscorable", fmean(reward.reward is None for reward in rewards))
    values: defaultdict[str, list[float]] = defaultdict(list)
    contributions: defaultdict[str, list[float]] = defaultdict(list)
    for reward in rewards:
        for part in reward.parts:
            value = term_value(part.term, part.outcome)
            if value is not None:
                values[part.term.label].append(value)
            if part.contribution is not None:
                contributions[part.term.label].append(part.contribution)
    for label, numbers in values.items():
        log_metric(f"value/{label}", fmean(numbers))
    for label, numbers in contributions.items():
        log_metric(f"contribution/{label}", fmean(numbers))
    for report in batch.verifiers:
        prefix = f"verifier/{report.verifier}"
        log_metric(f"{prefix}/seconds", report.wall_s)
        if report.items:
            log_metric(f"{prefix}/not_applicable", report.not_applicable / report.items)
            log_metric(f"{prefix}/failed", report.failed / report.items)
        if report.distinct:
            log_metric(f"{prefix}/cache_hits", report.cache_hits / report.distinct)


def sample_record(step: int, item: ScoreItem, reward: ItemReward) -> dict[str, Any]:
    """One scored completion as plain JSON values: prompt, completion, reward, parts and evidence."""
    parts = []
    for part in reward.parts:
        outcome = part.outcome
        evidence: Sequence[Evidence] = outcome.evidence if isinstance(outcome, Scored) else ()
        parts.append(
            {
                "term": part.term.label,
                "weight": part.term.weight,
                "value": term_value(part.term, outcome),
                "contribution": part.contribution,
                "dropped_because": part.dropped_because,
                "reason": f"{outcome.reason}: {outcome.detail}" if isinstance(outcome, NotApplicable | Failed) else "",
                "evidence": [{"text": e.text, "source": e.source, "simulated": e.simulated} for e in evidence],
            }
        )
    return {
        "step": step,
        "id": item.id,
        "group_id": item.group_id,
        "source": item.source,
        "question": item.prompt[-1].content if item.prompt else "",
        "completion": item.completion,
        "reward": reward.reward,
        "unscorable_because": reward.unscorable_because,
        "parts": parts,
    }
