"""What could not be read of many items, counted by reason: questions, thoughts, answers.

The reasons are those of `UnreadReason`, `ThoughtProblem` and `AnswerProblem`, under the same names in the contract, in
JSON, in the labels of metrics and in a run's ``metrics.jsonl``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bioverify.core.answers import Answer, AnswerProblem
from bioverify.core.completions import ThoughtProblem
from bioverify.core.conversation import CLOSING, OPENING, REASONING_KEYS, THOUGHT_MARKS
from bioverify.core.questions import UnreadReason


class Readable(StrEnum):
    """What is read of an item."""

    QUESTION = "question"
    THOUGHT = "thought"
    ANSWER = "answer"


REASONS: Mapping[Readable, type[StrEnum]] = {
    Readable.QUESTION: UnreadReason,
    Readable.THOUGHT: ThoughtProblem,
    Readable.ANSWER: AnswerProblem,
}
ALL_REASONS = tuple((what, reason) for what, reasons in REASONS.items() for reason in reasons)

_COUNTED = {
    Readable.QUESTION: "questions were not read",
    Readable.THOUGHT: "completions have no thought that could be read",
    Readable.ANSWER: "answers could not be read",
}
THOUGHTS_READ = (
    f"Read as a thought are {OPENING}…{CLOSING}, {', '.join(f'{opening}…' for opening, _ in THOUGHT_MARKS)}, and what "
    f"a server split off ({', '.join(REASONING_KEYS)})."
)
_WHAT_TO_DO = (
    f"{THOUGHTS_READ} If the chat template ends with {OPENING}, that is no part of the completions: give it as prefix "
    f"beside them, or the tokenizer to the adapter's make_reward. If {OPENING} is a special token, decode with "
    "skip_special_tokens=False. A thought that is not closed was cut off: raise the limit of tokens. See "
    "docs/reading.md."
)


@dataclass(slots=True)
class Readings:
    """``items`` were looked at; ``not_read`` counts by what it was and why."""

    items: int = 0
    not_read: dict[Readable, Counter[str]] = field(default_factory=lambda: {what: Counter() for what in Readable})

    def add(self, unread_question: UnreadReason | None, thought: ThoughtProblem | None, answer: Answer | None) -> None:
        """One item. ``answer``: as it was read, or why it could not be."""
        self.items += 1
        if unread_question is not None:
            self.not_read[Readable.QUESTION][unread_question] += 1
        if thought is not None:
            self.not_read[Readable.THOUGHT][thought] += 1
        if isinstance(answer, AnswerProblem):
            self.not_read[Readable.ANSWER][answer] += 1

    def update(self, others: Readings) -> None:
        self.items += others.items
        for what, counts in others.not_read.items():
            self.not_read[what].update(counts)

    def lines(self) -> list[str]:
        """For a person, one line for each kind of thing that was not read: how many, and why."""
        return [
            f"{counts.total():,} of {self.items:,} {_COUNTED[what]}: {_by_reason(counts)}"
            for what, counts in self.not_read.items()
            if counts
        ]

    @property
    def warning(self) -> str:
        """What to do about it if no completion at all has a thought; empty if one has, or none was looked at."""
        return no_thoughts(self.items) if self.items and self.not_read[Readable.THOUGHT].total() == self.items else ""


def no_thoughts(completions: int) -> str:
    """``completions``: all that were looked at, none of which has a thought."""
    none = "The completion has no" if completions == 1 else f"None of the {completions:,} completions has a"
    return f"{none} thought that could be read, so every reward lacks what is rewarded of thoughts. {_WHAT_TO_DO}"


def _by_reason(counts: Counter[str]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
