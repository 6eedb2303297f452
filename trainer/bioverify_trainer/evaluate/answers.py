"""What a model answered, ready to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bioverify.core.answers import Answer, AnswerProblem

NO_ANSWER = -1
CLAIM_SUMS = ("claims_applicable", "claims_checked", "claims_precision", "claims_contradicted")
"""Columns of `Answers.claims`: completions to which the verifier claims applies, those with something to check, and of
these the precisions and the numbers of contradicted claims, summed."""


@dataclass(frozen=True)
class Answers:
    """One entry per question, in the questions' order.

    ``answer``: 1 for "yes" or "increase", 0, or `NO_ANSWER`. ``belief``: p of 1, in [0, 1]. ``format_score``: mean over
    the question's completions; None for a model that writes none. ``claims``: questions × `CLAIM_SUMS`, summed over the
    question's completions; None if claims were not checked.
    """

    answer: npt.NDArray[np.int64]
    belief: npt.NDArray[np.float64]
    format_score: npt.NDArray[np.float64] | None = None
    claims: npt.NDArray[np.float64] | None = None

    def where(self, chosen: npt.NDArray[np.int64]) -> Answers:
        """Those at the given positions."""
        form = None if self.format_score is None else self.format_score[chosen]
        claims = None if self.claims is None else self.claims[chosen]
        return Answers(self.answer[chosen], self.belief[chosen], form, claims)


def majority(answers: Sequence[Answer], beliefs: Sequence[float | None]) -> tuple[int, float]:
    """Answer and belief of several samples to one question.

    The answer is the majority of those that can be read; with as many of each, what the belief says. The belief is the
    mean of those that were read off probabilities; without one, the share of "yes" among the answers, and one half
    if there is no answer either, which ranks the question neither above nor below others.
    """
    read = [answer for answer in answers if not isinstance(answer, AnswerProblem)]
    given = [belief for belief in beliefs if belief is not None]
    share = sum(read) / len(read) if read else 0.5
    belief = sum(given) / len(given) if given else share
    if not read:
        return NO_ANSWER, belief
    return int(share > 0.5 or (share == 0.5 and belief >= 0.5)), belief
