"""What a run's figures give reason to doubt.

One alarm compares what is rewarded with what is held out (`heldout` in a preset), another looks for groups whose
members are all rewarded alike, which teach nothing, a third for what could not be read (`bioverify.core.readings`):
that stands in the figures under ``not_read/WHAT/REASON``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from bioverify.core.readings import THOUGHTS_READ, Readable

HELD_OUT = "heldout/balanced_accuracy"
BEFORE = "heldout_before/balanced_accuracy"
SIGNIFICANT = 2.0
"""Standard errors by which the reward must have risen to count as risen."""
ALIKE = "frac_reward_zero_std"
"""TRL's name for the share of groups whose members are all rewarded alike."""
MOSTLY_ALIKE = 0.9
NO_GAIN = 0.01
"""Held-out balanced accuracy that rose by less has not risen."""

MOST_UNREAD = 0.25
"""Share of the last quarter's completions, in [0, 1], above which what could not be read raises the alarm."""
NOT_READ = "not_read/"

_UNREAD = {Readable.QUESTION: "questions not read", Readable.THOUGHT: "no thought", Readable.ANSWER: "answers not read"}
_SUBJECT = {
    Readable.QUESTION: "the question was not read",
    Readable.THOUGHT: "no thought could be read",
    Readable.ANSWER: "the answer could not be read",
}
_WHAT_TO_DO = {
    Readable.QUESTION: "Ask in one of the forms of docs/reading.md, or give the task beside the prompt.",
    Readable.THOUGHT: (
        f"{THOUGHTS_READ} The thought that a template opens and tags that are special tokens are read in a run. If it "
        "is thought_not_closed, raise grpo.max_completion_length; if empty_thought, let the template think "
        "(grpo.chat_template_kwargs); if no_thought, look at samples.jsonl for how the policy marks its thoughts, and "
        "ask for them by prompts.chain_of_thought or prompts.example_turns."
    ),
    Readable.ANSWER: (
        "An answer stands in exactly one <answer>…</answer> behind the thoughts and says one of the question's two "
        "words. If completions/clipped_ratio is high, raise grpo.max_completion_length; else prompts.example_turns "
        "shows the policy the form."
    ),
}


def unread_shares(logs: Mapping[str, Any]) -> dict[str, float]:
    """What could not be read in one step, in words, with its share of the completions; nothing of what was read."""
    shares = {words: sum(_by_reason(logs, what).values()) for what, words in _UNREAD.items()}
    return {words: share for words, share in shares.items() if share}


def raised(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a run's metrics give reason to doubt, each with what to do; none if they give no reason, or cannot tell."""
    return [*filter(None, (_rewarded_alone(metrics), _groups_alike(metrics))), *_not_read(metrics)]


def _not_read(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """What could not be read of the last quarter of the steps, if it is more than `MOST_UNREAD`."""
    steps = [record for record in metrics if any(name.startswith(NOT_READ) for name in record)]
    last = steps[-max(1, len(steps) // 4) :]
    found = []
    for what in Readable:
        by_reason: Counter[str] = Counter()
        for record in last:
            by_reason.update(_by_reason(record, what))
        share = by_reason.total() / max(1, len(last))
        if share > MOST_UNREAD:
            reasons = ", ".join(f"{reason} {sum_ / len(last):.0%}" for reason, sum_ in by_reason.most_common() if sum_)
            found.append(
                f"Of {share:.0%} of the completions of the last {len(last)} steps {_SUBJECT[what]} ({reasons}). "
                f"{_WHAT_TO_DO[what]}"
            )
    return found


def _by_reason(record: Mapping[str, Any], what: Readable) -> dict[str, float]:
    prefix = f"{NOT_READ}{what}/"
    return {name.removeprefix(prefix): record[name] or 0.0 for name in record if name.startswith(prefix)}


def _groups_alike(metrics: Sequence[Mapping[str, Any]]) -> str | None:
    """In every step of the last quarter, more than nine groups in ten had nothing to compare."""
    shares = [float(record[ALIKE]) for record in metrics if record.get(ALIKE) is not None]
    last = shares[-(len(shares) // 4) :]
    if len(shares) < 8 or min(last) <= MOSTLY_ALIKE:
        return None
    return (
        f"In {fmean(last):.0%} of the groups of the last quarter all members had the same reward, so they taught "
        "nothing: the answers are the same whatever the question. Begin again with a KL distance (grpo.beta above 0), "
        "rewards that are not divided by their deviation (grpo.scale_rewards: none), labels balanced within each gene "
        "(prompts.balance: gene), a lower grpo.learning_rate, or more varied sampling (grpo.temperature)."
    )


def _rewarded_alone(metrics: Sequence[Mapping[str, Any]]) -> str | None:
    """The reward has risen, first quarter of the steps against last, by more than twice the standard error.

    And the held-out balanced accuracy, first measurement against last, has not.
    """
    held_out = [
        float(record[name]) for record in metrics for name in (BEFORE, HELD_OUT) if record.get(name) is not None
    ]
    rewards = [float(record["reward"]) for record in metrics if record.get("reward") is not None]
    quarter = len(rewards) // 4
    if len(held_out) < 2 or quarter < 2:
        return None
    first, last = rewards[:quarter], rewards[-quarter:]
    rise = fmean(last) - fmean(first)
    error = math.sqrt((stdev(first) ** 2 + stdev(last) ** 2) / quarter)
    gain = held_out[-1] - held_out[0]
    if rise <= SIGNIFICANT * error or gain >= NO_GAIN:
        return None
    return (
        f"The reward rose from {fmean(first):.2f} to {fmean(last):.2f}, and the balanced accuracy on held-out "
        f"questions went from {held_out[0]:.3f} to {held_out[-1]:.3f}: it is something else that is being rewarded."
    )
