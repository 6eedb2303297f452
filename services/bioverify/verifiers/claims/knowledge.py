"""What the sources hold to be true of one claim: supported, contradicted, or not known to them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bioverify.artifacts.names import Texts
from bioverify.core.outcomes import Verdict
from bioverify.verifiers.claims.extraction import Naming

Int32s = npt.NDArray[np.int32]
Float32s = npt.NDArray[np.float32]


class Kind(StrEnum):
    TERM = "term"
    NAME = "name"
    PAIR = "pair"
    LINK = "link"
    """A pair, by a network; its target is the network's number."""


LEAST_BITS, MOST_BITS = 2.0, 8.0
"""Information content of a term or name below which it is too general for a claim, and from which it weighs 1."""
MAX_NAMED = 3
"""Genes that share a name, at most, for it to belong to another gene."""
MAX_KEPT = 16_384
"""Judgements that are remembered: a group's completions speak of the same genes."""
MAX_KEPT_GENES = 512


class Finding(NamedTuple):
    """Of a phrase and a gene, affirmed. ``target``: row of the term, number of the phrase of a name."""

    kind: Kind
    verdict: Verdict
    weight: float
    target: int


def _weights(bits: npt.NDArray[np.floating]) -> Float32s:
    return np.where(bits < LEAST_BITS, 0, np.minimum(bits, MOST_BITS) / MOST_BITS).astype(np.float32)


class Lists:
    """Lists of whole numbers, one after the other; each sorted."""

    def __init__(self, offsets: Int32s, values: npt.NDArray[np.integer]) -> None:
        self.offsets, self.values = offsets, values
        # Looking one number up is five times as fast without NumPy.
        self._starts, self._numbers = offsets.data, values.data

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> npt.NDArray[np.integer]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def sizes(self) -> Int32s:
        return np.diff(self.offsets)

    def has(self, row: int, value: int) -> bool:
        end = self._starts[row + 1]
        at = bisect_left(self._numbers, value, self._starts[row], end)
        return at < end and self._numbers[at] == value

    def numbers(self, row: int) -> list[int]:
        return self._numbers[self._starts[row] : self._starts[row + 1]].tolist()


@dataclass(frozen=True)
class Knowledge:
    symbols: Sequence[str]
    term_ids: Int32s
    term_names: Texts
    bits: Float32s
    ancestors: Lists
    """Of a term: rows of itself and what follows from it."""
    closure: Lists
    """Of a gene: rows of its terms and what follows from them."""
    direct: Lists
    codes: Lists
    """Of a gene, for each of ``direct`` a row of ``code_names``."""
    code_names: Sequence[str]
    denied: Lists
    """Of a gene: rows of terms that an annotation with NOT says it has not, and of all below them."""
    phrase_terms: Lists
    phrase_names: Lists
    phrase_called: Lists
    """Of a phrase: the genes whose whole name it is, or their family's, which is then no name of another gene."""

    @cached_property
    def weights(self) -> Float32s:
        """Of terms, in [0, 1]."""
        return _weights(self.bits)

    @cached_property
    def name_weights(self) -> Float32s:
        """Of phrases, as names of genes; 0 of those that are none."""
        n_called = self.phrase_names.sizes()
        return np.where(n_called, _weights(np.log2(len(self.symbols) / np.maximum(n_called, 1))), 0).astype(np.float32)

    @cached_property
    def judge(self) -> Callable[[int, int, Naming], Finding | None]:
        """Of a gene, a phrase, and how it is said to be what the gene is. None: not a claim about the gene."""
        return lru_cache(MAX_KEPT)(self._judge)

    @cached_property
    def shared(self) -> Callable[[int, int], int]:
        """Row of the most special term that two genes share; −1 if they share none of full weight."""
        return lru_cache(MAX_KEPT)(self._shared)

    def _shared(self, gene: int, other: int) -> int:
        both = self._special(gene) & self._special(other)
        return max(both, key=lambda term: (self.bits[term], -term), default=-1)

    @cached_property
    def _special(self) -> Callable[[int], frozenset[int]]:
        """Of a gene: its terms of full weight, those that follow among them."""

        def special(gene: int) -> frozenset[int]:
            terms = self.closure[gene]
            return frozenset(terms[self.bits[terms] >= MOST_BITS].tolist())

        return lru_cache(MAX_KEPT_GENES)(special)

    def _judge(self, gene: int, phrase: int, naming: Naming) -> Finding | None:
        called = self.phrase_called.numbers(phrase) if phrase >= 0 else []
        terms = self.phrase_terms.numbers(phrase) if phrase >= 0 else [-1 - phrase]
        # Words of a name that stand elsewhere ("associates with RNA polymerase II") name another one.
        own_names = self.phrase_names if naming else self.phrase_called
        is_own_name = phrase >= 0 and own_names.has(phrase, gene)
        best: Finding | None = None
        for term in terms:
            weight = float(self.weights[term])
            if self.closure.has(gene, term):
                if best is None or best.verdict is not Verdict.SUPPORTED or weight > best.weight:
                    best = Finding(Kind.TERM, Verdict.SUPPORTED, weight, term)
            elif best is None or best.verdict is Verdict.UNSUPPORTED:
                if self.denied.has(gene, term):
                    best = Finding(Kind.TERM, Verdict.CONTRADICTED, weight, term)
                elif best is None or weight < best.weight:
                    best = Finding(Kind.TERM, Verdict.UNSUPPORTED, weight, term)
        if is_own_name:
            weight = float(self.name_weights[phrase])
            if best is None or best.verdict is not Verdict.SUPPORTED or weight > best.weight:
                best = Finding(Kind.NAME, Verdict.SUPPORTED, weight, phrase)
        elif best is None and naming is Naming.WHOLE and 0 < len(called) <= MAX_NAMED:
            best = Finding(Kind.NAME, Verdict.CONTRADICTED, float(self.name_weights[phrase]), phrase)
        return best if best is not None and best.weight > 0 else None

    def term_name(self, term: int) -> str:
        return self.term_names[term].decode()

    def term_shown(self, term: int) -> str:
        """Id and name."""
        return f"GO:{int(self.term_ids[term]):07} {self.term_name(term)}"

    def grounds(self, gene: int, term: int) -> str:
        """Evidence codes of the gene's annotation with the term, else with the most special one below it, named."""
        direct = self.direct[gene]
        at = int(direct.searchsorted(term))
        if at < len(direct) and int(direct[at]) == term:
            return self._codes_at(gene, at)
        below = [at for at, own in enumerate(direct.tolist()) if self.ancestors.has(own, term)]
        at = max(below, key=lambda one: float(self.bits[direct[one]]))
        return f"{self._codes_at(gene, at)}; through {self.term_shown(int(direct[at]))}"

    def _codes_at(self, gene: int, at: int) -> str:
        return self.code_names[int(self.codes[gene][at])] or "without evidence codes"
