"""Many rows of one pair become one response. Rows are one int64 each, sorted in place, so memory is that of the pairs.

A key is the pair × 4 + the code of the response. Rows that contradict each other are not voted on: the pair keeps the
response CONTRADICTED, and the numbers of its rows beside it.
"""

from __future__ import annotations

import numpy as np

from bioverify.artifacts.responses import (
    CHANGED,
    CONTRADICTED,
    DECREASED,
    DIRECTION_CONTRADICTED,
    INCREASED,
    UNCHANGED,
)
from bioverify.verifiers.experimental.screen import Int8s, Int64s

_RESPONSES = (DECREASED, UNCHANGED, INCREASED, CHANGED)
"""By their code in a key."""
_DECREASED, _UNCHANGED, _INCREASED, _CHANGED = (1 << code for code in range(4))
_CHUNK = 1 << 22


def keys_of(pairs: Int64s, responses: Int8s) -> Int64s:
    """``responses``: one of DECREASED, UNCHANGED, INCREASED, CHANGED."""
    keys: Int64s = pairs * 4 + (responses - DECREASED)
    return keys


def collapse(keys: Int64s, *, need_undirected: bool) -> tuple[Int64s, Int8s, Int64s]:
    """Sorted pairs, their responses, and the contradictions as `Screen` holds them. ``keys`` is overwritten.

    ``need_undirected``: a direction counts only for a pair that has a row of CHANGED or UNCHANGED, too.
    """
    keys.sort()
    is_first = np.ones(len(keys), np.bool_)
    for start in range(1, len(keys), _CHUNK):
        end = min(start + _CHUNK, len(keys))
        np.not_equal(keys[start:end] >> 2, keys[start - 1 : end - 1] >> 2, out=is_first[start:end])
    seen = np.empty(len(keys), np.uint8)
    for start in range(0, len(keys), _CHUNK):
        seen[start : start + _CHUNK] = 1 << (keys[start : start + _CHUNK] & 3)
    rows = None
    if not is_first.all():
        rows = keys
        starts = np.flatnonzero(is_first)
        keys = keys[starts]
        seen = np.bitwise_or.reduceat(seen, starts)
    keys >>= 2
    if need_undirected:
        kept = (seen & (_CHANGED | _UNCHANGED)) != 0
        keys, seen = keys[kept], seen[kept]
    responses = _TOGETHER[seen]
    contradicting = keys[responses >= CONTRADICTED]
    return keys, responses, _counts(rows, contradicting) if rows is not None else np.empty((0, 5), np.int64)


def _counts(rows: Int64s, contradicting: Int64s) -> Int64s:
    own = rows[np.isin(rows >> 2, contradicting)]
    at = np.searchsorted(contradicting, own >> 2)
    of_code = [np.bincount(at[(own & 3) == code], minlength=len(contradicting)) for code in range(4)]
    decreased, unchanged, increased, undirected = of_code
    # PerturbQA has a row without direction for each that has one.
    changed = np.maximum(undirected, increased + decreased)
    return np.stack([contradicting, changed, unchanged, increased, decreased], axis=1).astype(np.int64)


def _together(seen: int) -> int:
    if seen & _UNCHANGED:
        return CONTRADICTED if seen != _UNCHANGED else UNCHANGED
    if seen & _INCREASED and seen & _DECREASED:
        return DIRECTION_CONTRADICTED
    return INCREASED if seen & _INCREASED else DECREASED if seen & _DECREASED else CHANGED


_TOGETHER = np.array([_together(seen) for seen in range(16)], np.int8)
