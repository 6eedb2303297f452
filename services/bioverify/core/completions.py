"""The parts of a completion: thoughts, blocks of gene knowledge, mentioned genes, and the form checks.

The eleven form checks are those of the published rbio demo; the five on ``<gene_info>`` are those of its public
history for Gene Ontology prompts. Each is in [0, 1]; the format score is their mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

MAX_WORDS = 200
MAX_THINKS = 3
MIN_THINK_CHARACTERS = 10

_WORD = re.compile(r"\w+")
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL | re.IGNORECASE)
_OPEN_THINK = re.compile(r"<think>", re.IGNORECASE)
_CLOSE_THINK = re.compile(r"</think>", re.IGNORECASE)
_OPEN_ANSWER = re.compile(r"<answer>", re.IGNORECASE)
_GENE_INFO = re.compile(r"<gene_info>(.*?)</gene_info>", re.DOTALL | re.IGNORECASE)


class PromptForm(StrEnum):
    ANSWER = "answer"
    GENE_INFO = "gene_info"


def think_text(completion: str) -> str:
    """The contents of all closed think blocks, joined by a space."""
    return " ".join(_THINK.findall(completion))


def gene_info_blocks(completion: str) -> list[str]:
    """The contents of the closed gene_info blocks, in order."""
    return [block.strip() for block in _GENE_INFO.findall(completion)]


@lru_cache(maxsize=65_536)
def _symbol_pattern(symbol: str) -> re.Pattern[str]:
    # "ATP6" is not mentioned by "MT-ATP6", nor "HLA" by "HLA-A"; "AARS1" is by "AARS1-mediated" and "anti-AARS1".
    return re.compile(rf"(?<![A-Za-z0-9])(?<![A-Z0-9]-){re.escape(symbol)}(?![A-Za-z0-9])(?!-[A-Z0-9])")


def mentions(text: str, symbol: str) -> bool:
    """Whether ``text`` names the gene as a whole symbol, in its own case (MET is a gene, "met" a verb)."""
    return symbol in text and _symbol_pattern(symbol).search(text) is not None


def mention_share(completion: str, symbols: Sequence[str]) -> float:
    """Share of the question's symbols that the thoughts name; 1 without symbols, 0 without thoughts."""
    if not symbols:
        return 1.0
    thoughts = think_text(completion)
    return sum(mentions(thoughts, symbol) for symbol in symbols) / len(symbols)


@dataclass(frozen=True, slots=True)
class _TagSet:
    """The expressions over one set of tags: think and answer, or these and gene_info."""

    any_tag: re.Pattern[str]
    opening: re.Pattern[str]
    block: re.Pattern[str]
    block_exact_case: re.Pattern[str]
    tag_exact_case: re.Pattern[str]

    @staticmethod
    def of(names: str) -> _TagSet:
        return _TagSet(
            any_tag=re.compile(rf"<(/?)({names})>", re.IGNORECASE),
            opening=re.compile(rf"<(?:{names})>", re.IGNORECASE),
            block=re.compile(rf"<({names})>(.*?)</\1>", re.DOTALL | re.IGNORECASE),
            block_exact_case=re.compile(rf"<({names})>(.*?)</\1>", re.DOTALL),
            tag_exact_case=re.compile(rf"</?(?:{names})>"),
        )


_TAGS = {
    PromptForm.ANSWER: _TagSet.of("think|answer"),
    PromptForm.GENE_INFO: _TagSet.of("think|answer|gene_info"),
}


def _tags_close_in_order(text: str, tags: _TagSet) -> bool:
    open_tags: list[str] = []
    for slash, name in tags.any_tag.findall(text):
        if not slash:
            open_tags.append(name)
        elif not open_tags or open_tags.pop() != name:
            return False
    return not open_tags


def _count_words(text: str) -> int:
    return len(_WORD.findall(text))


def form_checks(
    completion: str, form: PromptForm = PromptForm.ANSWER, *, as_published: bool = False
) -> dict[str, float]:
    """The eleven published checks by name, each in [0, 1]; their mean is the format score.

    For ``PromptForm.GENE_INFO`` the last check is replaced by the five on gene_info blocks, and gene_info counts as a
    tag. ``as_published`` keeps two quirks of the published code: an answer that follows ``</think>`` without a space
    does not count as coming after it, and the names of tags nested in a block count as tagged words, so that their
    share can exceed 1.
    """
    text = completion
    tags = _TAGS[form]
    n_thinks = len(_OPEN_THINK.findall(text))
    answer_starts = [match.start() for match in _OPEN_ANSWER.finditer(text)]
    think_ends = [match.end() for match in _CLOSE_THINK.finditer(text)]
    has_think = float(n_thinks > 0)
    has_tag = float(tags.opening.search(text) is not None)

    # Words on both sides of a tag are two words; the published code counts them as one ("</think><answer>").
    between = "" if as_published else " "
    n_words = _count_words(tags.tag_exact_case.sub(between, text))
    blocks = [inner for _, inner in tags.block_exact_case.findall(text)]
    if not as_published:
        blocks = [tags.tag_exact_case.sub(between, inner) for inner in blocks]
    n_tagged_words = sum(map(_count_words, blocks))

    gap = 1 if as_published else 0
    answer_after_think = bool(answer_starts and think_ends) and answer_starts[0] >= think_ends[-1] + gap

    nested = any(tags.any_tag.search(inner) for _, inner in tags.block.findall(text))
    stripped = text.strip()
    checks = {
        "has_think": has_think,
        "tagged_word_share": n_tagged_words / n_words if n_words else 0.0,
        "at_most_200_words": float(_count_words(text) <= MAX_WORDS),
        "one_answer": float(len(answer_starts) == 1),
        "answer_after_think": float(answer_after_think),
        "think_has_text": float(len(think_text(text).strip()) > MIN_THINK_CHARACTERS) * has_think,
        "no_nested_tags": float(not nested) * has_tag,
        "at_most_3_thinks": float(n_thinks <= MAX_THINKS) * has_think,
        "tags_closed": float(_tags_close_in_order(text, tags)) * has_tag,
        "ends_with_answer": float(stripped.endswith("</answer>")),
    }
    if form is PromptForm.ANSWER:
        checks["starts_with_think"] = float(stripped.startswith("<think>"))
        return checks
    first_info = _GENE_INFO.search(text)
    info_end = first_info.end() if first_info else len(text)
    checks["has_gene_info"] = float(first_info is not None)
    checks["think_after_gene_info"] = float(_OPEN_THINK.search(text, info_end) is not None)
    checks["answer_after_gene_info"] = float(any(start >= info_end for start in answer_starts))
    checks["gene_info_has_text"] = float(any(gene_info_blocks(text)))
    checks["starts_with_gene_info"] = float(stripped.lower().startswith("<gene_info>"))
    return checks


def format_score(checks: dict[str, float]) -> float:
    """Mean of the checks, in [0, 1]."""
    return sum(checks.values()) / len(checks)
