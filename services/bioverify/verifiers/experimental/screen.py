"""One screen of one cell line, and what several of them say together.

A pair is one number, index of the perturbation × number of symbols + index of the measured gene. A screen is the sorted
array of its pairs and one of their responses, both memory-mapped: a batch is one binary search, worker processes share
the pages, and nothing is loaded. Queries are searched in order, because neighbours then share pages and cache lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DECREASED, UNCHANGED, INCREASED, CHANGED = -1, 0, 1, 2
"""Responses as stored (int8); CHANGED where a pair responds and its direction is not known."""
CONTRADICTED, DIRECTION_CONTRADICTED, NOT_MEASURED = 3, 4, 5
"""What else several screens may say together: one saw a change and one did not; both did, in opposite directions."""

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Screen:
    line: str
    provenance: str
    """What evidence calls it: "PerturbQA train"."""
    pairs: Int64s
    responses: Int8s
    simulated: bool = False
    name: str = ""
    """What the build calls it: "perturbqa"."""

    def find(self, wanted: Int64s) -> Int8s:
        """The stored response of each pair, NOT_MEASURED where there is none. Any order, repeats allowed."""
        if not len(self.pairs) or not len(wanted):
            return np.full(len(wanted), NOT_MEASURED, np.int8)
        order = np.argsort(wanted)
        ordered = wanted[order]
        at = np.searchsorted(self.pairs, ordered)
        at[at == len(self.pairs)] = 0
        found = np.empty(len(wanted), np.int8)
        found[order] = np.where(self.pairs[at] == ordered, self.responses[at], NOT_MEASURED)
        return found


def combine(findings: Sequence[Int8s]) -> Int8s:
    """What screens that were asked about the same pairs say together. Their order does not matter."""
    increased, decreased, changed, unchanged = (
        np.any([found == response for found in findings], axis=0)
        for response in (INCREASED, DECREASED, CHANGED, UNCHANGED)
    )
    together: Int8s = np.select(
        [
            unchanged & (increased | decreased | changed),
            increased & decreased,
            increased,
            decreased,
            changed,
            unchanged,
        ],
        [CONTRADICTED, DIRECTION_CONTRADICTED, INCREASED, DECREASED, CHANGED, UNCHANGED],
        NOT_MEASURED,
    ).astype(np.int8)
    return together
