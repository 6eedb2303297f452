"""Signs that a policy has found a way to be rewarded without becoming better.

Logged per step under ``watch/``, all over the completions of the step:

* ``words``: mean length; ``repetition``: mean share of a completion's word 4-grams that occurred in it before;
* ``yes_share``: share of "yes" (or "increase") among the answers that can be read; ``unread``: share that cannot;
* ``mention_only``: share whose thoughts name all genes of the question and say hardly anything else;
* ``disagreement``: mean distance between the highest and the lowest belief, if two verifiers or more hold one.

None of them enters the reward. Beside them, under ``not_read/WHAT/REASON``, stands the share of completions of which
the question, a thought or the answer could not be read (`bioverify.core.readings`). What a run's figures give reason to
doubt is said by `bioverify.core.alarms`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

from bioverify.client import ItemReward, ScoreItem
from bioverify.core.answers import AnswerProblem
from bioverify.core.completions import TaggedText, mentions
from bioverify.core.outcomes import Scored

N_GRAM = 4
FEWEST_OTHER_WORDS = 5
"""Below this many words beside the genes' names, thoughts say hardly anything."""
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


def _spread(reward: ItemReward) -> float | None:
    beliefs = [
        part.outcome.belief
        for part in reward.parts
        if isinstance(part.outcome, Scored) and part.outcome.belief is not None
    ]
    return max(beliefs) - min(beliefs) if len(beliefs) > 1 else None
