"""Reading the answer off a completion: one rule for every verifier, the trainer and the evaluation.

A completion answers where it holds exactly one closed ``<answer>`` block, and the block holds exactly one of the two
words that the question offers, as a whole word. Everything else is no answer, with the reason kept.
"""

from __future__ import annotations

import re
from enum import StrEnum

from bioverify.core import rbio_demo
from bioverify.core.tasks import TaskKind


class ParseMode(StrEnum):
    WHOLE_WORDS = "whole-words"
    RBIO_DEMO = "rbio-demo"


class AnswerProblem(StrEnum):
    EMPTY_COMPLETION = "empty_completion"
    NO_ANSWER_BLOCK = "no_answer_block"
    SEVERAL_ANSWER_BLOCKS = "several_answer_blocks"
    NO_ANSWER_WORD = "no_answer_word"
    BOTH_ANSWER_WORDS = "both_answer_words"


Answer = bool | AnswerProblem
"""True for "yes" or "increase", False for "no" or "decrease", otherwise why there is none."""

_OPENING = re.compile(r"<answer>", re.IGNORECASE | re.ASCII)
_BLOCK = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.ASCII | re.DOTALL)
_YES_NO = re.compile(r"(?<![\w-])(?:(yes)|(no))(?![\w-])", re.IGNORECASE)
_INCREASE_DECREASE = re.compile(r"(?<![\w-])(?:(increase[sd]?)|(decrease[sd]?))(?![\w-])", re.IGNORECASE)


def parse_answer(completion: str, kind: TaskKind | None = None, mode: ParseMode = ParseMode.WHOLE_WORDS) -> Answer:
    """Read the answer off a completion.

    ``kind`` decides which pair of words counts: increase/decrease for a direction of change, otherwise yes/no.
    In mode ``rbio-demo`` the rule is the published demo's (substrings, first block, then the whole text), which knows
    yes and no only; a direction of change is then read by whole words all the same.
    """
    if not completion.strip():
        return AnswerProblem.EMPTY_COMPLETION
    if mode is ParseMode.RBIO_DEMO and kind is not TaskKind.DIRECTION_OF_CHANGE:
        demo_answer = rbio_demo.extract_answer(completion)
        return AnswerProblem.NO_ANSWER_WORD if demo_answer is None else demo_answer
    block = answer_block(completion)
    if isinstance(block, AnswerProblem):
        return block
    words = _INCREASE_DECREASE if kind is TaskKind.DIRECTION_OF_CHANGE else _YES_NO
    affirmed = denied = False
    for affirming, _denying in words.findall(block):
        if affirming:
            affirmed = True
        else:
            denied = True
    if affirmed and denied:
        return AnswerProblem.BOTH_ANSWER_WORDS
    if not affirmed and not denied:
        return AnswerProblem.NO_ANSWER_WORD
    return affirmed


def answer_block(completion: str) -> str | AnswerProblem:
    """What stands in the one answer block, or why there is none to read."""
    openings = len(_OPENING.findall(completion))
    if openings > 1:
        return AnswerProblem.SEVERAL_ANSWER_BLOCKS
    block = _BLOCK.search(completion)
    return AnswerProblem.NO_ANSWER_BLOCK if block is None else block.group(1)
