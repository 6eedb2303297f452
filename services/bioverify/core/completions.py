"""The parts of a completion: thoughts, blocks of gene knowledge, mentioned genes, and the form checks.

The eleven form checks are those of the published rbio demo; the five on ``<gene_info>`` are those of its public
history for Gene Ontology prompts. Each is in [0, 1]; the format score is their mean. All are read off one list of the
completion's tags and the number of words before each, so that the text is gone through once; tests hold the result to
the plain reading, one regular expression per check.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

MAX_WORDS = 200
MAX_THINKS = 3
MIN_THINK_CHARACTERS = 10

_THINK, _ANSWER, _GENE_INFO = "think", "answer", "gene_info"
# ASCII: without it, case is ignored so far that <thin\u212a> is a tag, with the sign for kelvin.
_TAG = re.compile(rf"<(/?)({_THINK}|{_ANSWER}|{_GENE_INFO})>", re.IGNORECASE | re.ASCII)
_ANY_TAG = re.compile(rf"<(/?)({_THINK}|{_ANSWER}|{_GENE_INFO})(?:\s[^<>]*)?>", re.IGNORECASE | re.ASCII)
_WORD = re.compile(r"\w+")
_UPPER_CHARACTERS = frozenset(string.ascii_uppercase + string.digits)
_SYMBOL_CHARACTERS = _UPPER_CHARACTERS | frozenset(string.ascii_lowercase)
# What is no word becomes a space, and counting words is splitting: three times as fast as the expression above.
_ASCII_WORDS = bytes(code if code < 128 and (chr(code).isalnum() or chr(code) == "_") else 32 for code in range(256))


class PromptForm(StrEnum):
    ANSWER = "answer"
    GENE_INFO = "gene_info"


class ThoughtProblem(StrEnum):
    """Why a completion has no thought that verifiers can read."""

    NO_THOUGHT = "no_thought"
    EMPTY_THOUGHT = "empty_thought"
    THOUGHT_NOT_CLOSED = "thought_not_closed"


class _Tag(NamedTuple):
    """``kind``: its name in lower case. ``number``: its position among all tags of the text."""

    name: str
    kind: str
    closes: bool
    start: int
    end: int
    number: int


def _tags(form: re.Pattern[str], text: str) -> list[_Tag]:
    return [
        _Tag(name := match[2], name.lower(), match[1] == "/", match.start(), match.end(), number)
        for number, match in enumerate(form.finditer(text))
    ]


class TaggedText:
    """A completion whose tags have been found."""

    def __init__(self, text: str) -> None:
        self.text = text
        # The form checks are the published ones and count bare names only; the reading takes attributes as well.
        self._tags = _tags(_TAG, text)
        has_others = text.count("<") > len(self._tags)
        self._read_tags = _tags(_ANY_TAG, text) if has_others else self._tags

    @cached_property
    def thoughts(self) -> str:
        """The contents of all closed think blocks, joined by a space.

        A first ``</think>`` that nothing opened ends a thought too: many chat templates write the opening tag
        themselves, as the end of the prompt.
        """
        tags = self._read_tags
        if tags is self._tags and tags and tags[0].kind == _THINK and not tags[0].closes:
            return self.closed_thoughts
        return " ".join([self.text[start:end] for start, end in self.thought_spans])

    @property
    def thought_spans(self) -> list[tuple[int, int]]:
        """Where the `thoughts` stand in the text."""
        thinks = [tag for tag in self._read_tags if tag.kind == _THINK]
        spans = _spans(thinks)
        if thinks and thinks[0].closes:
            spans.insert(0, (0, thinks[0].start))
        return spans

    @cached_property
    def closed_thoughts(self) -> str:
        """The contents of all closed think blocks as the published checks see them."""
        own = [tag for tag in self._tags if tag.kind == _THINK]
        return " ".join([self.text[start:end] for start, end in _spans(own)])

    @property
    def thought_problem(self) -> ThoughtProblem | None:
        """Why `thoughts` hold nothing; None if they hold something."""
        if self.thoughts and not self.thoughts.isspace():
            return None
        thinks = [tag for tag in self._read_tags if tag.kind == _THINK]
        if not thinks:
            return ThoughtProblem.NO_THOUGHT
        is_closed = any(tag.closes for tag in thinks)
        return ThoughtProblem.EMPTY_THOUGHT if is_closed else ThoughtProblem.THOUGHT_NOT_CLOSED

    @property
    def gene_info_blocks(self) -> list[str]:
        """The contents of the closed gene_info blocks, in order."""
        return [self.text[start:end].strip() for start, end in self.gene_info_spans]

    @property
    def gene_info_spans(self) -> list[tuple[int, int]]:
        """Where the closed gene_info blocks' contents stand in the text."""
        return _spans([tag for tag in self._read_tags if tag.kind == _GENE_INFO])

    def mention_share(self, symbols: Sequence[str]) -> float:
        """Share of the question's symbols that the thoughts name; 1 without symbols, 0 without thoughts."""
        if not symbols:
            return 1.0
        return sum([mentions(self.thoughts, symbol) for symbol in symbols]) / len(symbols)

    def form_checks(self, form: PromptForm = PromptForm.ANSWER, *, as_published: bool = False) -> dict[str, float]:
        """The eleven published checks by name, each in [0, 1]; their mean is the format score.

        For ``PromptForm.GENE_INFO`` the last check is replaced by the five on gene_info blocks, and gene_info counts
        as a tag. ``as_published`` keeps three quirks of the published code: an answer that
        follows ``</think>`` without a space does not count as coming after it, words on both sides of a tag without a
        space are one, and the names of tags nested in a block count as tagged words, so that their share can exceed 1.
        """
        text, tags = self.text, self._tags
        if form is PromptForm.ANSWER:
            tags = [tag for tag in tags if tag.kind != _GENE_INFO]
        opening = [tag for tag in tags if not tag.closes]
        n_thinks = sum([tag.kind == _THINK for tag in opening])
        answers = [tag.start for tag in opening if tag.kind == _ANSWER]
        think_end = max([tag.end for tag in tags if tag.closes and tag.kind == _THINK], default=None)
        has_think, has_tag = float(n_thinks > 0), float(bool(opening))
        gap = 1 if as_published else 0
        blocks = _blocks([tag.kind for tag in tags], tags)
        stripped = text.strip()
        checks = {
            "has_think": has_think,
            "tagged_word_share": self._tagged_word_share(tags, as_published=as_published),
            "at_most_200_words": float(self._words_before[-1] <= MAX_WORDS),
            "one_answer": float(len(answers) == 1),
            "answer_after_think": float(bool(answers) and think_end is not None and answers[0] >= think_end + gap),
            "think_has_text": float(len(self.closed_thoughts.strip()) > MIN_THINK_CHARACTERS) * has_think,
            "no_nested_tags": float(all(last == first + 1 for first, last in blocks)) * has_tag,
            "at_most_3_thinks": float(n_thinks <= MAX_THINKS) * has_think,
            "tags_closed": float(_tags_close_in_order(tags)) * has_tag,
            "ends_with_answer": float(stripped.endswith("</answer>")),
        }
        if form is PromptForm.ANSWER:
            checks["starts_with_think"] = float(stripped.startswith("<think>"))
            return checks
        infos = [tag for tag in tags if tag.kind == _GENE_INFO]
        closed = _blocks([tag.kind for tag in infos], infos)
        info_end = infos[closed[0][1]].end if closed else len(text)
        checks["has_gene_info"] = float(bool(closed))
        checks["think_after_gene_info"] = float(any(t.kind == _THINK and t.start >= info_end for t in opening))
        checks["answer_after_gene_info"] = float(any(start >= info_end for start in answers))
        checks["gene_info_has_text"] = float(any(self.gene_info_blocks))
        checks["starts_with_gene_info"] = float(stripped.lower().startswith("<gene_info>"))
        return checks

    @cached_property
    def _words_before(self) -> list[int]:
        """Words in front of each tag, and of the whole text. A tag's name is a word."""
        words, end, before = 0, 0, []
        for tag in self._tags:
            words += _count_words(self.text[end : tag.start])
            before.append(words)
            words, end = words + 1, tag.end
        return [*before, words + _count_words(self.text[end:])]

    def _tagged_word_share(self, tags: Sequence[_Tag], *, as_published: bool) -> float:
        """Words inside blocks / all words. Here a tag counts if it is written in lower case."""
        as_written = [tag for tag in tags if tag.name == tag.kind]
        n_tagged = 0
        for first, last in _blocks([tag.name for tag in as_written], as_written):
            inside = self._words_before[as_written[last].number] - self._words_before[as_written[first].number] - 1
            n_tagged += inside if as_published else inside - (last - first - 1)
        if as_published:
            ends = [0, *(tag.end for tag in as_written)]
            starts = [*(tag.start for tag in as_written), len(self.text)]
            n_words = _count_words("".join(map(self.text.__getitem__, map(slice, ends, starts))))
        else:
            n_words = self._words_before[-1] - len(as_written)
        return n_tagged / n_words if n_words else 0.0


def thought_problem(completion: str) -> ThoughtProblem | None:
    """`TaggedText.thought_problem`, at once for the usual form: the aggregator asks it of every completion."""
    opening, closing = f"<{_THINK}>", f"</{_THINK}>"
    if completion.startswith(opening):
        end = completion.find("<", len(opening))
        if completion.startswith(closing, end) and completion[len(opening) : end].strip():
            return None
    return TaggedText(completion).thought_problem


def _spans(own: Sequence[_Tag]) -> list[tuple[int, int]]:
    """Where the contents of the closed blocks of tags of one kind stand."""
    blocks = _blocks([own[0].kind] * len(own) if own else [], own)
    return [(own[first].end, own[last].start) for first, last in blocks]


def _blocks(names: Sequence[str], tags: Sequence[_Tag]) -> list[tuple[int, int]]:
    """Positions of an opening tag and of the next closing one of its name; the next block starts after that."""
    closing: dict[str, int] = {}
    ends: list[int | None] = [None] * len(tags)
    for at in range(len(tags) - 1, -1, -1):
        if tags[at].closes:
            closing[names[at]] = at
        else:
            ends[at] = closing.get(names[at])
    blocks = []
    free_from = 0
    for first, last in enumerate(ends):
        if last is not None and first >= free_from:
            blocks.append((first, last))
            free_from = last + 1
    return blocks


def _tags_close_in_order(tags: Sequence[_Tag]) -> bool:
    open_tags: list[str] = []
    for tag in tags:
        if not tag.closes:
            open_tags.append(tag.name)
        elif not open_tags or open_tags.pop() != tag.name:
            return False
    return not open_tags


def _count_words(text: str) -> int:
    if text.isascii():
        return len(text.encode().translate(_ASCII_WORDS).split())
    return len(_WORD.findall(text))


def mentions(text: str, symbol: str) -> bool:
    """Whether ``text`` names the gene as a whole symbol, in its own case (MET is a gene, "met" a verb).

    "ATP6" is not named by "MT-ATP6", nor "HLA" by "HLA-A"; "AARS1" is by "AARS1-mediated" and by "anti-AARS1".
    """
    start = text.find(symbol)
    while start >= 0:
        end = start + len(symbol)
        # Slices, because what lies outside of the text touches nothing.
        before, after = text[max(0, start - 2) : start], text[end : end + 2]
        if not _touches(before[-1:], before[:-1]) and not _touches(after[:1], after[1:]):
            return True
        start = text.find(symbol, start + 1)
    return False


def _touches(nearest: str, next_to_it: str) -> bool:
    return nearest in _SYMBOL_CHARACTERS or (nearest == "-" and next_to_it in _UPPER_CHARACTERS)


def format_score(checks: dict[str, float]) -> float:
    """Mean of the checks, in [0, 1]."""
    return sum(checks.values()) / len(checks)
