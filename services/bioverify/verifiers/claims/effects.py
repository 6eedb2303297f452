"""What a sentence says that a knockdown does to a gene's expression: "knockdown of A raises B in K562 cells".

A gene is knocked down if a word for it stands beside its name ("loss of A", "A is knocked down"); a knockout is another
perturbation. What happens to the other gene is the word that stands before it ("raises the expression of B") or behind
it ("B is upregulated", "B falls when A is knocked down"), with nothing but words of expression between. A word with an
object of its own ("B lowers translation") says nothing of B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from bioverify.core.cell_lines import CELL_LINES
from bioverify.verifiers.claims.phrases import TURN_OF, UNKNOWN, Turn, Words

DEPLETING_WORDS = "knockdown silencing silenced depletion depleted loss kd"
KNOCKED, DOWN = "knocked", "down"
BESIDE_WORDS = "of down gene protein expression both is are was were be been being"
"""Between a gene and the word that says that it is knocked down."""
RAISING_WORDS = (
    "raises raising increase increases upregulates upregulation elevates elevation induces induction rises higher"
)
LOWERING_WORDS = "lowers decrease decreases downregulates downregulation reduces reduction diminishes falls drops lower"
CHANGING_WORDS = "changes alters alteration affects effect differential differentially responds influences"
UNCHANGED_WORDS = "unchanged unaffected unaltered"
HARDLY_WORDS = "unlikely little hardly barely"
"""Shortly before the word of a change, which they deny."""
EXPRESSION_WORDS = (
    "expression expressed level levels mrna transcript transcripts transcription gene protein abundance of in on "
    "significant significantly strongly slightly markedly"
)
PASSIVE_WORDS = "is are was were be been being becomes gets remains stays"
ACTIVE_WORDS = "to will does do also"
UPON_WORDS = "upon when after following by with under in as"
LINE_WORDS = " ".join(CELL_LINES)
WORDS_OF_EFFECTS = (
    DEPLETING_WORDS, KNOCKED, DOWN, BESIDE_WORDS, RAISING_WORDS, LOWERING_WORDS, CHANGING_WORDS, UNCHANGED_WORDS,
    HARDLY_WORDS, EXPRESSION_WORDS, PASSIVE_WORDS, ACTIVE_WORDS, UPON_WORDS, LINE_WORDS,
)  # fmt: skip

HARDLY_REACH = 4
REACH = 6
"""Words between a gene and what happens to it, or the word that says that it is knocked down."""
_SOFT = frozenset(
    [UNKNOWN, *(mark for mark, turn in TURN_OF.items() if turn in {Turn.NEGATION, Turn.HEDGE, Turn.HYPOTHESIS})]
)
_CLOSING = frozenset(mark for mark, turn in TURN_OF.items() if turn in {Turn.BREAK, Turn.JOIN, Turn.HYPOTHESIS})

Group = tuple[int, int, Sequence[int]]
"""Where genes that stand side by side begin and end, and which they are."""


class Change(StrEnum):
    RAISED = "raised"
    LOWERED = "lowered"
    CHANGED = "changed"


class Read(NamedTuple):
    """``measured``: whose expression changes. ``at``: of the word that says so; ``start``, ``end``: of all of it.

    ``is_unchanged``: the word itself denies the change.
    """

    perturbation: int
    measured: Sequence[int]
    change: Change
    is_unchanged: bool
    lines: tuple[str, ...]
    at: int
    start: int
    end: int


class Effects:
    """Reads them off the sentences of encoded texts."""

    def __init__(self, words: Words) -> None:
        stems = words.stems_in
        self._depleting, self._knocked, self._down = stems(DEPLETING_WORDS), stems(KNOCKED), stems(DOWN)
        self._any_depleting = self._depleting | self._knocked
        self._beside = stems(BESIDE_WORDS)
        self._of = stems("of")
        self._change = {
            **dict.fromkeys(stems(CHANGING_WORDS) | stems(UNCHANGED_WORDS), Change.CHANGED),
            **dict.fromkeys(stems(RAISING_WORDS), Change.RAISED),
            **dict.fromkeys(stems(LOWERING_WORDS), Change.LOWERED),
        }
        self._unchanged, self._hardly = stems(UNCHANGED_WORDS), stems(HARDLY_WORDS)
        self._expression = stems(EXPRESSION_WORDS)
        self._passive, self._active, self._upon = stems(PASSIVE_WORDS), stems(ACTIVE_WORDS), stems(UPON_WORDS)
        self._closing = _CLOSING | self._upon
        self._line_of = {words.encode(line): line for line in CELL_LINES}

    def read(self, text: str, begin: int, end: int, groups: Sequence[Group]) -> Iterator[Read]:
        """Of one sentence. A knockdown of several genes at once is not one of each."""
        if len(groups) < 2 or self._any_depleting.isdisjoint(text[begin:end]):
            return
        depleted: list[Group] = []
        others: list[Group] = []
        for group in groups:
            knockdown = self._knockdown(text, begin, end, group)
            (depleted if knockdown else others).append(knockdown or group)
        lines = tuple(line for mark, line in self._line_of.items() if mark in text[begin:end])
        for group in others if depleted else ():
            at = self._effect_on(text, begin, end, group)
            cause = self._cause(text, depleted, others, group, at) if at >= 0 else None
            if cause is not None and len(cause[2]) == 1:
                is_hardly = not self._hardly.isdisjoint(text[max(begin, at - HARDLY_REACH) : at])
                change, is_unchanged = self._change[text[at]], (text[at] in self._unchanged) is not is_hardly
                span = min(at, cause[0], group[0]), max(at + 1, cause[1], group[1])
                yield Read(cause[2][0], group[2], change, is_unchanged, lines, at, *span)

    def _knockdown(self, text: str, begin: int, end: int, group: Group) -> Group | None:
        """The group with the word that says that it is knocked down, if one does."""
        at = group[0] - 1
        while at > begin and group[0] - at < REACH and text[at] in self._beside:
            at -= 1
        # "When A is knocked down B …": that is A.
        if at >= begin and self._depletes(text, at) and text[max(begin, at - 1)] not in self._passive:
            return at, group[1], group[2]
        at = group[1]
        while at < end - 1 and at - group[1] < REACH and text[at] in self._beside - self._of:
            at += 1
        is_depleted = at < end and self._depletes(text, at) and text[at + 1 : at + 2] not in self._of
        return (group[0], at + 1, group[2]) if is_depleted else None

    def _depletes(self, text: str, at: int) -> bool:
        return text[at] in self._depleting or (text[at] in self._knocked and text[at + 1 : at + 2] in self._down)

    def _effect_on(self, text: str, begin: int, end: int, group: Group) -> int:
        """Where the word stands that says what happens to the gene; −1 without one."""
        at = group[0] - 1
        while at >= begin and group[0] - at <= REACH and (text[at] in self._expression or text[at] == UNKNOWN):
            if text[at] in self._change:
                break
            at -= 1
        if at >= begin and group[0] - at <= REACH and text[at] in self._change:
            return at
        is_passive = False
        for at in range(group[1], min(end, group[1] + REACH)):
            mark = text[at]
            if mark in self._change:
                is_whole = is_passive or at + 1 == end or text[at + 1] in self._closing
                return at if is_whole else -1
            if mark in self._passive:
                is_passive = True
            elif mark not in self._expression and mark not in self._active and mark not in _SOFT:
                break
        return -1

    def _cause(
        self, text: str, depleted: Sequence[Group], others: Sequence[Group], group: Group, at: int
    ) -> Group | None:
        """The knockdown that does it: the last one before, else the first one behind "upon", "when" or the like."""
        before = [one for one in depleted if one[1] <= min(at, group[0])]
        if before:
            # "Loss of A lowers C, which raises B" is of C; "… lowers C and raises B" of A.
            is_another_s = any(before[-1][1] <= one[0] and one[1] <= at for one in others if one is not group)
            return None if is_another_s and TURN_OF.get(text[at - 1]) not in {Turn.JOIN, Turn.BREAK} else before[-1]
        behind = [one for one in depleted if one[0] >= max(at + 1, group[1])]
        if behind and not self._upon.isdisjoint(text[max(at + 1, group[1]) : behind[0][0]]):
            return behind[0]
        return None
