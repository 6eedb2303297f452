"""What the training rows of the screen say of "knockdown of A raises B in line L".

A claim that names a line is held against that line's row, else against the question's line, else against all lines
that measured the pair, which then have to agree. Without a row nothing is said.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from bioverify.artifacts.responses import CHANGED, DECREASED, INCREASED, UNCHANGED
from bioverify.core.outcomes import Verdict
from bioverify.verifiers.claims.effects import Change

RESPONSE_WORDS = {DECREASED: "decreased", UNCHANGED: "no change", INCREASED: "increased", CHANGED: "changed"}
_TRUE_OF = {
    Change.RAISED: frozenset({INCREASED}),
    Change.LOWERED: frozenset({DECREASED}),
    Change.CHANGED: frozenset({INCREASED, DECREASED, CHANGED}),
}


@dataclass(frozen=True)
class Screen:
    lines: Sequence[str]
    n_genes: int
    pairs: memoryview
    """As in `artifact.SCREEN_FILE`, sorted."""
    responses: memoryview
    provenance: str
    simulated: bool

    def response(self, line: str, perturbation: int, measured: int) -> int | None:
        if line not in self.lines:
            return None
        pair = (self.lines.index(line) * self.n_genes + perturbation) * self.n_genes + measured
        at = bisect_left(self.pairs, pair)
        if at == len(self.pairs) or self.pairs[at] != pair:
            return None
        response: int = self.responses[at]
        return response

    def judge(
        self, perturbation: int, measured: int, change: Change, lines: Sequence[str]
    ) -> tuple[Verdict, list[tuple[str, int]]] | None:
        """Of an affirmed claim, with the rows (line, response); ``lines``: none, all. None: no row that says it."""
        rows = [(line, self.response(line, perturbation, measured)) for line in lines or self.lines]
        known = [(line, response) for line, response in rows if response is not None]
        # Of a response without a direction it is not known whether it is a rise.
        says = [one for one in known if one[1] != CHANGED or change is Change.CHANGED]
        agrees = {response in _TRUE_OF[change] for _, response in says}
        if len(agrees) != 1:
            return None
        return (Verdict.SUPPORTED if agrees.pop() else Verdict.CONTRADICTED), says
