"""Signs that a policy has found a way to be rewarded without becoming better.

Logged per step under ``watch/``, all over the completions of the step:

* ``words``: mean length; ``repetition``: mean share of a completion's word 4-grams that occurred in it before;
* ``yes_share``: share of "yes" (or "increase") among the answers that can be read; ``unread``: share that cannot;
* ``mention_only``: share whose thoughts name all genes of the question and say hardly anything else;
* ``disagreement``: mean distance between the highest and the lowest belief, if two verifiers or more hold one.

None of them enters the reward. One alarm compares what is rewarded with what is held out (`heldout` in a preset),
another looks for groups whose members are all rewarded alike: they teach nothing.

Beside them, under ``not_read/WHAT/REASON``, stands the share of completions of which the question, a thought or the
answer could not be read (`bioverify.core.readings`): a third alarm.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from bioverify.client import ItemReward, ScoreItem
from bioverify.core.answers import AnswerProblem
from bioverify.core.completions import TaggedText, mentions
from bioverify.core.outcomes import Scored
from bioverify.core.readings import THOUGHTS_READ, Readable

N_GRAM = 4
FEWEST_OTHER_WORDS = 5
"""Below this many words beside the genes' names, thoughts say hardly anything."""
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
_WORD = re.compile(r"[\w-]+")


def signs(items: Sequence[ScoreItem], rewards: Sequence[ItemReward]) -> dict[str, float]:
    """The figures above; those that are not defined for these completions are left out."""
    found = {
        "words": fmean(len(_WORD.findall(item.completion)) for item in items),
        "repetition": fmean(repetition(item.completion) for item in items),
        "mention_only": fmean(is_mention_only(item.completion, item.task.genes if item.task else ()) for item in items),
    }
    asked = [reward.answer for reward in rewards if reward.answer is not None]
    read = [answer for answer in asked if not isinstance(answer, AnswerProblem)]
    if asked:
        found["unread"] = 1 - len(read) / len(asked)
    if read:
        found["yes_share"] = fmean(read)
    spreads = [spread for spread in map(_spread, rewards) if spread is not None]
    if spreads:
        found["disagreement"] = fmean(spreads)
    return found


def repetition(completion: str) -> float:
    """Share of the word 4-grams that occurred before, in [0, 1]; 0 for fewer than five words."""
    words = _WORD.findall(completion.lower())
    grams = [tuple(words[start : start + N_GRAM]) for start in range(len(words) - N_GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def is_mention_only(completion: str, genes: Sequence[str]) -> bool:
    """Whether the thoughts name all ``genes`` and hold hardly another word."""
    thoughts = TaggedText(completion).thoughts
    others = [word for word in _WORD.findall(thoughts) if word not in genes]
    return bool(genes) and len(others) < FEWEST_OTHER_WORDS and all(mentions(thoughts, gene) for gene in genes)


def unread_shares(logs: Mapping[str, Any]) -> dict[str, float]:
    """What could not be read in one step, in words, with its share of the completions; nothing of what was read."""
    shares = {words: sum(_by_reason(logs, what).values()) for what, words in _UNREAD.items()}
    return {words: share for words, share in shares.items() if share}


def alarms(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
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


def _spread(reward: ItemReward) -> float | None:
    beliefs = [
        part.outcome.belief
        for part in reward.parts
        if isinstance(part.outcome, Scored) and part.outcome.belief is not None
    ]
    return max(beliefs) - min(beliefs) if len(beliefs) > 1 else None
