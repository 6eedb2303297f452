"""One screen of one cell line, and what several of them say together.

A pair is one number, index of the perturbation × number of symbols + index of the measured gene. A screen is the sorted
array of its pairs and one of their responses, both memory-mapped: a batch is one binary search, worker processes share
the pages, and nothing is loaded. Queries are searched in order, because neighbours then share pages and cache lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bioverify.artifacts.responses import (
    CHANGED,
    CONTRADICTED,
    DECREASED,
    DIRECTION_CONTRADICTED,
    INCREASED,
    NOT_MEASURED,
    UNCHANGED,
)

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]

KNOCKDOWN = "knockdown"


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
    kind: str = KNOCKDOWN
    """How genes were perturbed, as evidence calls it: "CRISPRa"."""
    contradictions: Int64s = field(default_factory=lambda: np.empty((0, 5), np.int64))
    """A row per pair whose rows contradict each other: pair, and how many rows saw a change, none, a rise, a fall."""

    def find(self, wanted: Int64s) -> Int8s:
        """The stored response of each pair, NOT_MEASURED if there is none. Any order, repeats allowed."""
        if not len(self.pairs) or not len(wanted):
            return np.full(len(wanted), NOT_MEASURED, np.int8)
        order = np.argsort(wanted)
        ordered = wanted[order]
        at = np.searchsorted(self.pairs, ordered)
        at[at == len(self.pairs)] = 0
        found = np.empty(len(wanted), np.int8)
        found[order] = np.where(self.pairs[at] == ordered, self.responses[at], NOT_MEASURED)
        return found

    def contradiction(self, pair: int) -> str:
        """What the rows of a pair say that contradict each other: "2 changed, 1 not"."""
        at = int(np.searchsorted(self.contradictions[:, 0], pair))
        _, changed, unchanged, increased, decreased = self.contradictions[at].tolist()
        return f"{changed} changed, {unchanged} not" if unchanged else f"{increased} increased, {decreased} decreased"


def combine(findings: Sequence[Int8s]) -> Int8s:
    """What screens that were asked about the same pairs say together. Their order does not matter."""
    increased, decreased, changed, unchanged, contradicted, both_ways = (
        np.any([found == response for found in findings], axis=0)
        for response in (INCREASED, DECREASED, CHANGED, UNCHANGED, CONTRADICTED, DIRECTION_CONTRADICTED)
    )
    together: Int8s = np.select(
        [
            contradicted | (unchanged & (increased | decreased | changed | both_ways)),
            both_ways | (increased & decreased),
            increased,
            decreased,
            changed,
            unchanged,
        ],
        [CONTRADICTED, DIRECTION_CONTRADICTED, INCREASED, DECREASED, CHANGED, UNCHANGED],
        NOT_MEASURED,
    ).astype(np.int8)
    return together
