"""ROUGE-1, ROUGE-2 and ROUGE-L F-measure with the Porter stemmer, equal to the package rouge-score, but fast.

A vocabulary of reference tokens gives each stemmed token one character, so a text becomes a short string. A token
outside the vocabulary becomes one character that no reference holds: it can match nothing, so the scores do not change.
References are prepared once: which tokens and pairs of neighbours they hold, how often. All candidates of a batch are
counted in one sorted array, and what they have in common with their references is one minimum of two arrays. The
longest common subsequence is rapidfuzz's bit-parallel one.

Source of the formulas: Lin, 2004; tokens as in rouge-score 0.1.2 (lower case, runs of a-z and 0-9, words longer than
three characters stemmed).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq
from rouge_score_rs.tokenizers import DefaultTokenizer

_UNKNOWN = "\x00"
_SURROGATES = range(0xD800, 0xE000)
_TOKEN_BYTES = bytes(code if code < 128 and chr(code).isalnum() else ord(" ") for code in range(256))
_tokenizer = DefaultTokenizer(use_stemmer=True)  # type: ignore[no-untyped-call]

MAX_CACHED_WORDS = 200_000
PAIRS_AT_ONCE = 512
_UNKNOWN_NUMBER = 0
_NUMBER_BITS = 21
_ROW_SHIFT = 2 * _NUMBER_BITS

Int64s = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def words_of(text: str) -> list[bytes]:
    """The tokens before stemming. What is not ASCII after lowering separates words, as it does in rouge-score."""
    return text.lower().encode("ascii", "replace").translate(_TOKEN_BYTES).split()


def _stem(word: bytes) -> str:
    """Porter stem of a word of more than three characters; may be empty."""
    return "".join(_tokenizer.tokenize(word.decode()))  # type: ignore[no-untyped-call]


class _WordCharacters(dict[bytes, str]):
    """Word → its stem's character, found once per word. Forgets everything when texts have brought too many words."""

    def __init__(self, of_stem: Mapping[str, str]) -> None:
        super().__init__()
        self._of_stem = of_stem

    def __missing__(self, word: bytes) -> str:
        if len(self) >= MAX_CACHED_WORDS:
            self.clear()
        stemmed = _stem(word)
        character = self[word] = self._of_stem.get(stemmed, _UNKNOWN) if stemmed else ""
        return character


class Vocabulary:
    """Characters for the tokens of all reference texts."""

    def __init__(self, references: Iterable[str]) -> None:
        characters = (chr(code) for code in range(1, 0x110000) if code not in _SURROGATES)
        words = dict.fromkeys(chain.from_iterable(map(words_of, references)))
        stems = dict.fromkeys(filter(None, map(_stem, words)))
        self._characters = _WordCharacters(dict(zip(stems, characters, strict=False)))

    def encode(self, text: str) -> str:
        """One character per token of the text."""
        return "".join(map(self._characters.__getitem__, words_of(text)))


class Reference:
    """Several texts, encoded, that one candidate is compared with at once.

    ``grams``: numbers of the tokens in any of them, then, from ``n_tokens`` on, of the pairs of neighbours; each part
    starts with a number that no text has, so that none is empty. ``counts``: texts × grams, how often each holds each.
    """

    __slots__ = ("counts", "grams", "lengths", "n_tokens", "texts")

    def __init__(self, texts: Sequence[str]) -> None:
        numbers = [_numbers(text) for text in texts]
        tokens = [Counter(own.tolist()) for own in numbers]
        pairs = [Counter(_pairs(own).tolist()) for own in numbers]
        of_tokens, of_pairs = dict.fromkeys(chain.from_iterable(tokens)), dict.fromkeys(chain.from_iterable(pairs))
        self.texts = tuple(texts)
        self.lengths = [len(text) for text in texts]
        self.n_tokens = 1 + len(of_tokens)
        self.grams = np.array([_UNKNOWN_NUMBER, *of_tokens, _UNKNOWN_NUMBER, *of_pairs], np.int64)
        self.counts = np.array(
            [
                [0, *(own[gram] for gram in of_tokens), 0, *(two[gram] for gram in of_pairs)]
                for own, two in zip(tokens, pairs, strict=True)
            ],
            np.int32,
        )


def _numbers(text: str) -> Int64s:
    """The number of each token, below 2²¹."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)


def _pairs(numbers: Int64s) -> Int64s:
    """A number for each pair of neighbours, from 2²¹ on and below 2⁴²."""
    return ((numbers[:-1] + 1) << _NUMBER_BITS) + numbers[1:]


def rouge(pairs: Sequence[tuple[Reference, str]]) -> Scores:
    """F-measures in [0, 1] of encoded candidates: pairs × texts of a reference × (ROUGE-1, ROUGE-2, ROUGE-L).

    All references must hold equally many texts; a text without tokens scores 0, as does a candidate without.
    """
    chunks = [_rouge(pairs[start : start + PAIRS_AT_ONCE]) for start in range(0, len(pairs), PAIRS_AT_ONCE)]
    return np.concatenate(chunks) if chunks else np.empty((0, 0, 3))


def _rouge(pairs: Sequence[tuple[Reference, str]]) -> Scores:
    row_of = {text: row for row, text in enumerate(dict.fromkeys(text for _, text in pairs))}
    rows = np.array([row_of[text] for _, text in pairs])
    sizes = np.array([(reference.n_tokens, len(reference.grams)) for reference, _ in pairs])
    starts = np.cumsum(sizes[:, 1]) - sizes[:, 1]
    asked = np.concatenate([reference.grams for reference, _ in pairs]) + np.repeat(rows << _ROW_SHIFT, sizes[:, 1])
    counts = np.concatenate([reference.counts for reference, _ in pairs], axis=1)
    common = np.minimum(counts, _found(list(row_of), asked))
    of_kind = np.add.reduceat(common, np.stack([starts, starts + sizes[:, 0]], axis=1).ravel(), axis=1)
    known = [text.replace(_UNKNOWN, "") for text in row_of]
    n_common = np.empty((len(pairs), len(common), 3))
    n_common[:, :, :2] = of_kind.reshape(len(common), len(pairs), 2).transpose(1, 0, 2)
    n_common[:, :, 2] = [
        [LCSseq.similarity(text, known[row]) for text in reference.texts]
        for (reference, _), row in zip(pairs, rows.tolist(), strict=True)
    ]
    fewer = np.array([0, 1, 0])  # a text has one pair of neighbours less than tokens
    n_reference = np.array([reference.lengths for reference, _ in pairs])[:, :, None] - fewer
    n_candidate = np.array([len(text) for _, text in pairs])[:, None, None] - fewer
    scores = np.zeros(n_common.shape)
    # The harmonic mean of n_common/n_candidate and n_common/n_reference.
    np.divide(2.0 * n_common, n_candidate + n_reference, out=scores, where=n_common > 0)
    return scores


def _found(texts: Sequence[str], asked: Int64s) -> Int64s:
    """How often a text holds a gram, where both are one number: the text's row and the gram's."""
    numbers = _numbers("".join(texts))
    row = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    is_known = numbers != _UNKNOWN_NUMBER
    are_neighbours = is_known[:-1] & is_known[1:] & (row[:-1] == row[1:])
    in_rows = numbers + (row << _ROW_SHIFT)
    grams = np.concatenate(
        [in_rows[is_known], (_pairs(numbers) + (row[:-1] << _ROW_SHIFT))[are_neighbours], [np.iinfo(np.int64).max]]
    )
    held, times = np.unique(grams, return_counts=True)
    at = np.searchsorted(held, asked)
    return np.where(held[at] == asked, times[at], 0)
