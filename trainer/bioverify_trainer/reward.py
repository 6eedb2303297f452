"""The reward that TRL asks for, over the bioverify client.

The members of a group may sit on several processes, and a term that is missing for one of them has to be dropped for
all. So the items of all processes are brought together, the main process asks once for everything, and every process
takes its own rows out of the same reply: no process can have seen less of a group than another.

A row that cannot be scored comes back as None, which TRL leaves out of the group's mean and gives no advantage; so does
every row of a call that failed, because an exception here would end the run and a number would be a lie. If more
than a set share of the rows is lost to faults that may pass, training waits: it keeps a checkpoint, and asks for the
same rows again, at growing intervals, until the services are back. Faults that do not pass (a verifier that raises on
an item) and facts (a gene unknown to a required verifier) are masked without a wait.

The function is a plain one, because TRL runs it on the thread that trains: there, and in the same order on every
process, the processes may talk to each other.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from accelerate import PartialState  # type: ignore[import-untyped]
from accelerate.utils import gather_object  # type: ignore[import-untyped]

from bioverify.adapters.trl import LostCall, RewardFunction, ask, on_main_process
from bioverify.client import Client, ItemReward, Message, ScoredBatch, ScoreItem, TlsIdentity
from bioverify.client.values import readings_of
from bioverify.core import alarms
from bioverify.core.answers import ParseMode
from bioverify.core.completions import PromptForm
from bioverify.core.conversation import ConversationError, read_completion, whole_completion
from bioverify.core.outcomes import Evidence, Failed, NotApplicable, Scored
from bioverify.core.readings import ALL_REASONS
from bioverify.core.recipes import Recipe
from bioverify_trainer.dataset import read_task
from bioverify_trainer.preset import LONGEST_PAUSE_S
from bioverify_trainer.prompts import Turn
from bioverify_trainer.runs import watch
from bioverify_trainer.stopping import stop_signal

FIRST_PAUSE_S = 1.0
WAITED = "reward_call/waited_seconds"
"""Metric: seconds that services were waited for."""
MOST_LOGGED = 256
"""Of the completions of a call, in parts and signs, for which all parts of an outcome are read: a policy of one word
writes thousands, in an order of chance."""

logger = logging.getLogger(__name__)

LogMetric = Callable[[str, float], None]


def make_reward(
    target: str,
    recipe: Recipe,
    *,
    deadline_s: float,
    max_unscorable_share: float = 1.0,
    before_pause: Callable[[], None] = lambda: None,
    samples_per_step: int = 0,
    record_sample: Callable[[Mapping[str, Any]], None] | None = None,
    prefix_of: Callable[[list[Turn]], str] = lambda _: "",
    decode: Callable[[Sequence[int]], str] | None = None,
) -> RewardFunction:
    """The reward function for TRL's ``reward_funcs``.

    Above ``max_unscorable_share`` (in [0, 1]) of rows lost to faults that may pass, ``before_pause`` is called once on
    every process, and the rows are asked for again until the share is met. ``samples_per_step`` completions of each
    step's first call are handed to ``record_sample`` with their parts and evidence. ``prefix_of``: the thought that the
    template opens behind a prompt, which is no part of the completions. ``decode``: what makes a completion's text of
    its tokens, if TRL's own decoding would lose tags.
    """
    client = Client(target, tls=TlsIdentity.from_environment())
    as_published = recipe.parse_mode is ParseMode.RBIO_DEMO
    wants_samples = samples_per_step > 0 and record_sample is not None
    sampled_step = 0

    def bioverify_reward(
        prompts: list[list[Turn]],
        completions: list[list[Turn]],
        *,
        completion_ids: Sequence[Sequence[int]],
        prompt_id: list[str],
        source: list[str],
        prompt_form: list[str],
        task_kind: list[str],
        task: list[str],
        log_metric: LogMetric,
        trainer_state: Any,
        **_unused_columns: Any,
    ) -> list[float | None]:
        nonlocal sampled_step
        step = int(trainer_state.global_step) + 1
        first = PartialState().process_index * len(completions)
        prefix = prefix_of(prompts[0]) if prompts else ""
        written: Sequence[Any] = completions if decode is None else list(map(decode, completion_ids))
        here = [
            ScoreItem(
                id=f"{step}-{first + row}",
                completion=whole_text(completion, prefix, as_published=as_published),
                prompt=[Message(turn["role"], turn["content"]) for turn in prompts[row]],
                task=read_task(task_kind[row], task[row]),
                group_id=prompt_id[row],
                source=source[row],
                prompt_form=PromptForm(prompt_form[row]),
            )
            for row, completion in enumerate(written)
        ]
        items: list[ScoreItem] = gather_object(here)
        started = time.perf_counter()
        waited_s = 0.0
        for pause_s in _pauses():
            asked = time.perf_counter()
            reply = on_main_process(
                lambda: ask(client, items, recipe, deadline_s=deadline_s, with_evidence=wants_samples)
            )
            call_s = time.perf_counter() - asked
            share, why = _lost_for_now(reply)
            if share <= max_unscorable_share:
                break
            if not waited_s:
                before_pause()
            logger.warning(
                "step %d: %.0f %% of %d completions cannot be scored now: %s. Training asks again in %g s",
                step,
                100 * share,
                len(items),
                why,
                pause_s,
            )
            stop_signal.wait(pause_s)
            waited_s = time.perf_counter() - started
        log_metric(WAITED, waited_s)
        if isinstance(reply, LostCall):
            logger.warning("step %d: %d completions have no reward, %s", step, len(items), reply.why)
            log_metric("reward_call/failed", 1.0)
            log_metric("reward_call/unscorable", 1.0)
            return [None] * len(here)
        log_metric("reward_call/failed", 0.0)
        log_metric("reward_call/seconds", call_s)
        _log_batch(items, reply, log_metric)
        if wants_samples and record_sample is not None and step != sampled_step:
            sampled_step = step
            # The first of each group in turn, so that several prompts are seen.
            for row in _first_of_each_group(items)[:samples_per_step]:
                record_sample(sample_record(step, items[row], reply.rewards[row]))
        return [reward.reward for reward in reply.rewards[first : first + len(here)]]

    return bioverify_reward


def whole_text(completion: Any, prefix: str, *, as_published: bool) -> Any:
    """What the policy wrote, with the reasoning that was split off; as it is if it holds no text, to be refused."""
    try:
        read = read_completion(completion)
    except ConversationError:
        return completion
    return whole_completion(read.final, reasoning=read.reasoning, prefix=prefix, as_published=as_published)


def _pauses() -> Iterator[float]:
    """Seconds between one try and the next: doubling, up to half a minute, without end."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _lost_for_now(reply: ScoredBatch | LostCall) -> tuple[float, str]:
    """The share of rows, in [0, 1], that have no reward because of faults that may pass, and the commonest reason."""
    if isinstance(reply, LostCall):
        return float(reply.may_pass), reply.why
    lost = [reward for reward in reply.rewards if reward.may_come_back]
    reasons = Counter(reward.unscorable_because for reward in lost)
    return len(lost) / max(1, len(reply.rewards)), reasons.most_common(1)[0][0] if reasons else ""


def _first_of_each_group(items: Sequence[ScoreItem]) -> list[int]:
    """All rows: the first of each group, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    place = []
    for item in items:
        place.append(seen[item.group_id])
        seen[item.group_id] += 1
    return sorted(range(len(items)), key=place.__getitem__)


def _log_batch(items: Sequence[ScoreItem], batch: ScoredBatch, log_metric: LogMetric) -> None:
    """Metrics of one call: shares of rows in [0, 1], values in [0, 1], contributions in units of the reward."""
    rewards = batch.rewards
    by_source: defaultdict[str, list[float]] = defaultdict(list)
    for item, reward in zip(items, rewards, strict=True):
        if item.source and reward.reward is not None:
            by_source[item.source].append(reward.reward)
    for source, numbers in by_source.items():
        log_metric(f"source/{source}", fmean(numbers))
    log_metric("reward_call/unscorable", fmean(reward.reward is None for reward in rewards))
    items, rewards = items[:MOST_LOGGED], rewards[:MOST_LOGGED]
    readings = readings_of(rewards)
    for what, reason in ALL_REASONS:
        log_metric(f"{alarms.NOT_READ}{what}/{reason}", readings.not_read[what][reason] / max(1, readings.items))
    told = [pair for pair in zip(items, rewards, strict=True) if isinstance(pair[0].completion, str)]
    if told:
        for sign, number in watch.signs([item for item, _ in told], [reward for _, reward in told]).items():
            log_metric(f"watch/{sign}", number)
    values: defaultdict[str, list[float]] = defaultdict(list)
    contributions: defaultdict[str, list[float]] = defaultdict(list)
    for reward in rewards:
        for part in reward.parts:
            if part.value is not None:
                values[part.term.label].append(part.value)
            if part.contribution is not None:
                contributions[part.term.label].append(part.contribution)
    for label, numbers in values.items():
        log_metric(f"value/{label}", fmean(numbers))
    for label, numbers in contributions.items():
        log_metric(f"contribution/{label}", fmean(numbers))
    for report in batch.verifiers:
        prefix = f"verifier/{report.verifier}"
        log_metric(f"{prefix}/unscorable", fmean(report.verifier in reward.lacking for reward in rewards))
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
                "value": part.value,
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
