"""What is said first of a scored answer."""

from __future__ import annotations

import pytest

from bioverify.core.answers import AnswerProblem
from bioverify.core.outcomes import Evidence, Failed, NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, GeneAnnotation
from bioverify.core.verdicts import verdict
from bioverify.core.verifier import UNRECOGNISED_QUESTION, refuse

DE = DifferentialExpression("AARS", "TRIB3", "k562")
DIRECTION = DirectionOfChange("AARS", "TRIB3", "k562")
TOGETHER = CoExpression("CD3D", "CD3E")
YES, NO = Scored(0.0, belief=1.0), Scored(1.0, belief=0.0)
OTHER_LINES = Scored(0.3, {"other_lines": 2.0}, belief=0.7)
SIMULATED = Scored(0.0, evidence=(Evidence("responds", simulated=True),), belief=1.0)
NO_BLOCK, BOTH = AnswerProblem.NO_ANSWER_BLOCK, AnswerProblem.BOTH_ANSWER_WORDS


def silent(reason: str) -> NotApplicable:
    return NotApplicable(reason, "the verifier's own words")


@pytest.mark.parametrize(
    ("task", "answer", "screen", "said"),
    [
        (DE, False, YES, "The screen says yes; the answer says no."),
        (DE, True, YES, "The screen says yes; the answer says yes."),
        (DE, True, NO, "The screen says no; the answer says yes."),
        (DIRECTION, False, YES, "The screen says increase; the answer says decrease."),
        (DIRECTION, True, NO, "The screen says decrease; the answer says increase."),
        (DE, NO_BLOCK, YES, "The screen says yes; the answer could not be read (no_answer_block)."),
        (DE, True, silent("pair_not_measured"), "The screen has no row for this pair; the answer says yes."),
        (DIRECTION, True, silent("no_change_measured"), "The screen saw no change; the answer says increase."),
        (DE, False, silent("unknown_gene"), "The screen does not know one of the genes; the answer says no."),
        (DE, True, silent("out_of_paper"), "The screen has nothing to say (out_of_paper); the answer says yes."),
        (DE, True, Failed("away", "", True), "The screen could not be asked (away); the answer says yes."),
        (DE, True, None, "No screen was asked; the answer says yes."),
        (
            TOGETHER,
            True,
            refuse(TOGETHER, [DE.kind, DIRECTION.kind]),
            "The screen answers no question of this kind; the answer says yes.",
        ),
        (GeneAnnotation(("AARS",)), None, None, "No screen was asked."),
        (None, True, UNRECOGNISED_QUESTION, "No question was read; the answer says yes."),
        (None, BOTH, None, "No question was read; the answer could not be read (both_answer_words)."),
        (DE, False, OTHER_LINES, "The screen of other lines suggests yes; the answer says no."),
        (DE, False, SIMULATED, "The simulated screen says yes; the answer says no."),
        (DE, True, Scored(0.5, belief=0.5), "The screen says neither; the answer says yes."),
        (DE, True, Scored(0.5), "The screen says neither; the answer says yes."),
    ],
)
def test_the_verdict_says_what_the_screen_says_and_what_the_answer_says(task, answer, screen, said):
    assert verdict(task, answer, screen) == said
