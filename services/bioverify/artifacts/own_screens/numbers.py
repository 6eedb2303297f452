"""Texts as numbers and labels, and whether numbers are of the kind that they are taken for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.own_screens.words import MISSING, is_missing
from bioverify.artifacts.responses import CHANGED, DECREASED, INCREASED, NOT_MEASURED, UNCHANGED

Decimal = Literal[".", ","]
Floats = npt.NDArray[np.float64]

_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
_GROUPED_BY_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?inf(?:inity)?", re.IGNORECASE)
_SIGNS = str.maketrans({"−": "-", "–": "-", "\u00a0": "", " ": "", "∞": "inf", "'": ""})


def decimal_of(texts: Iterable[str], delimiter: str) -> Decimal | None:
    """Which sign a column's numbers are written with; None if 1,046 may be either and nothing tells."""
    with_comma = [text.strip().lstrip("<>≤≥= ") for text in texts if "," in text]
    if not with_comma:
        return "."
    if any("." in text and text.rfind(".") > text.rfind(",") for text in with_comma):
        return "."
    if not all(_GROUPED.fullmatch(text.translate(_SIGNS)) for text in with_comma):
        return ","
    return "," if delimiter == ";" else "." if any("." in text for text in texts) else None


def parse(text: str, decimal: Decimal) -> float | None:
    """A number as people write it: 1,046 · −1.5 · <2e-16 · 1,5E-3 · Inf. None: it is none."""
    plain = text.translate(_SIGNS).lstrip("<>≤≥=~")
    if decimal == ",":
        if "." in plain and not _GROUPED_BY_POINTS.fullmatch(plain.partition(",")[0]):
            return None
        plain = plain.replace(".", "").replace(",", ".")
    elif _GROUPED.fullmatch(plain.partition(".")[0]):
        plain = plain.replace(",", "")
    return float(plain) if _NUMBER.fullmatch(plain) else None


@dataclass
class NumberColumn:
    """Reads one column block by block. ``unread``: texts that are no numbers, and in how many rows."""

    name: str
    decimal: Decimal = "."
    unread: Counter[str] = field(default_factory=Counter)
    n_read: int = 0

    def read(self, column: pa.Array) -> Floats:
        """NaN for a missing value or a text that is no number."""
        if pa.types.is_null(column.type):
            return np.full(len(column), np.nan)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if _is_text(column.type):
            numbers = self._from_texts(column.cast(pa.string()))
        elif pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_decimal(column.type):
            numbers = _floats(column)
        else:
            raise ArtifactError(f"column {self.name} holds {column.type}; expected numbers")
        self.n_read += int(np.count_nonzero(~np.isnan(numbers)))
        return numbers

    def _from_texts(self, column: pa.Array) -> Floats:
        plain = pc.utf8_trim_whitespace(column)
        missing = pc.is_in(pc.utf8_lower(plain), value_set=pa.array(sorted(MISSING)))
        plain = pc.if_else(missing, None, plain)
        # A point beside decimal commas may group thousands or be the wrong sign, which is seen text by text.
        if self.decimal == "." or not pc.any(pc.match_substring(plain, ".")).as_py():
            if self.decimal == ",":
                plain = pc.replace_substring(plain, ",", ".")
            try:
                return _floats(plain)
            except pa.ArrowInvalid:
                pass  # 1,046 or <2e-16 or a word: one by one
        distinct = column.dictionary_encode()
        texts = ["" if text is None else text for text in distinct.dictionary.to_pylist()]
        found = [None if is_missing(text) else parse(text, self.decimal) for text in texts]
        indices = np.asarray(distinct.indices.fill_null(len(texts)))
        counts = np.bincount(indices, minlength=len(texts) + 1)
        for text, number, count in zip(texts, found, counts.tolist(), strict=False):
            if number is None and not is_missing(text):
                self.unread[text] += count
        values = np.array([np.nan if number is None else number for number in [*found, None]], np.float64)
        chosen: Floats = values[indices]
        return chosen


@dataclass
class Range:
    """Whether the numbers of a column lie where they have to."""

    lowest: float = np.inf
    highest: float = -np.inf
    n: int = 0
    n_outside: int = 0
    n_negative: int = 0

    def see(self, numbers: Floats) -> None:
        seen = numbers[~np.isnan(numbers)]
        if len(seen):
            self.n += len(seen)
            self.lowest, self.highest = min(self.lowest, float(seen.min())), max(self.highest, float(seen.max()))
            self.n_outside += int(np.count_nonzero((seen < 0.0) | (seen > 1.0)))
            self.n_negative += int(np.count_nonzero(seen < 0.0))

    def refuse_no_p(self, column: str) -> None:
        """Raises ArtifactError for an adjusted p-value that is none."""
        if self.n_outside:
            raise ArtifactError(
                f"column {column}: {self.n_outside:,} of {self.n:,} numbers are no adjusted p-values, because they "
                f"lie outside 0 to 1 (from {self.lowest:g} to {self.highest:g}). −log10 p, scores and z-values have "
                f"to be turned into adjusted p-values first"
            )


_LABELS = {
    UNCHANGED: "0 false f no n ns n.s. nonsig not_sig notsig nosig not not_significant nonsignificant insignificant "
    "unchanged no_change nochange stable non-de notde not_de same",
    CHANGED: "1 true t yes y sig significant de changed responds differential hit",
    INCREASED: "up upregulated up-regulated up_regulated increase increased higher +",
    DECREASED: "-1 down downregulated down-regulated down_regulated dn decrease decreased lower",
}
_RESPONSE_OF = {word: response for response, words in _LABELS.items() for word in words.split()}


def label_response(text: str) -> int | None:
    """The response that a label means; NOT_MEASURED for a missing one, None for a text that is no label."""
    key = re.sub(r"\s+", "_", text.translate({ord("−"): "-"}).strip().lower())
    number = re.fullmatch(r"([+-]?[01])\.?0*", key)
    key = number[1].lstrip("+") if number else key
    if key == "-0":
        key = "0"
    if key in _RESPONSE_OF:
        return _RESPONSE_OF[key]
    return NOT_MEASURED if is_missing(text) else None


def label_responses(texts: Iterable[str]) -> dict[str, int]:
    """Text → response. 1 is an increase if other rows say −1. Raises ArtifactError for a text that is no label."""
    found: dict[str, int] = {}
    for text in texts:
        response = label_response(text)
        if response is None:
            raise ArtifactError(
                f'holds the label "{text[:40]}"; expected 0 or 1, −1, 0 or 1, TRUE or FALSE, or up, down and NS'
            )
        found[text] = response
    has_minus_one = any(re.fullmatch(r"[-−]1\.?0*", text.strip()) for text in found)
    if has_minus_one:
        found = {text: INCREASED if response == CHANGED else response for text, response in found.items()}
    return found


def _floats(column: pa.Array) -> Floats:
    floats: Floats = np.asarray(column.cast(pa.float64()).fill_null(np.nan))
    return floats


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
