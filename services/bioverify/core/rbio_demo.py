"""The published rbio demo's reward, check by check, so that published runs can be reproduced.

Kept apart from our own reading rules because its quirks are deliberate here: "no" is found in "know", "AR" in "AARS1",
an answer that touches ``</think>`` does not come after it, and nested tags can lift the format term above 1.
Source: github.com/czi-ai/rbio, training demo (MIT), re-implemented from its behaviour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

from bioverify.core.completions import TaggedText, format_score

_OPENING = re.compile(r"<answer>", re.IGNORECASE)
_CLOSING = re.compile(r"</answer>", re.IGNORECASE)


class DemoReward(TypedDict):
    answer: bool | None
    format: float
    mention: float
    answer_reward: float
    total: float


def extract_answer(completion: str) -> bool | None:
    """The demo's answer: "yes", then "no", as substrings of the first block; else of the whole text, if only one."""
    inside = _first_block(completion).lower()
    if inside:
        if "yes" in inside:
            return True
        if "no" in inside:
            return False
    lowered = completion.lower()
    says_yes, says_no = "yes" in lowered, "no" in lowered
    return says_yes if says_yes != says_no else None


def _first_block(completion: str) -> str:
    """What stands in the first block; nothing if there is none.

    Two searches: the published ``<answer>(.*?)</answer>`` runs to the end of the text from every tag that never closes.
    """
    opening = _OPENING.search(completion)
    closing = _CLOSING.search(completion, opening.end()) if opening else None
    return completion[opening.end() : closing.start()] if opening and closing else ""


def mention_share(completion: str, keywords: Sequence[str]) -> float:
    """Share of the keywords found as substrings of the thoughts; 1 without keywords, 0 without thoughts."""
    if not keywords:
        return 1.0
    thoughts = TaggedText(completion).closed_thoughts
    return sum(keyword in thoughts for keyword in keywords) / len(keywords)


def demo_format_checks(completion: str, *, go: bool = False) -> dict[str, float]:
    """The eleven checks as published; for GO rows without the last one."""
    checks = TaggedText(completion).form_checks(as_published=True)
    if go:
        del checks["starts_with_think"]
    return checks


def reward(completion: str, keywords: str | Sequence[str], p_yes: float, go: bool = False) -> DemoReward:
    """The demo's total for one completion: format + 2·answer + mention, in [0, 4] but for nested tags.

    ``keywords``: gene symbols, as a sequence or as the demo's "A|B". ``p_yes`` in [0, 1]: the verifier's belief; the
    demo's own data set rounds it to three decimals before this point, which is left to the caller.
    """
    symbols = keywords.split("|") if isinstance(keywords, str) else keywords
    answer = extract_answer(completion)
    answer_reward = 0.0 if answer is None else (p_yes if answer else 1.0 - p_yes)
    format_reward = format_score(demo_format_checks(completion, go=go))
    mention = mention_share(completion, [symbol for symbol in symbols if symbol])
    return DemoReward(
        answer=answer,
        format=format_reward,
        mention=mention,
        answer_reward=answer_reward,
        total=format_reward + 2.0 * answer_reward + mention,
    )
