"""One sentence first: what the screen says, and what the answer says."""

from __future__ import annotations

from bioverify.core.answers import Answer, AnswerProblem, answer_word
from bioverify.core.outcomes import Failed, NotApplicable, Outcome, Scored
from bioverify.core.tasks import YES_NO, Task

SCREEN = "experimental"
"""The verifier that holds what was measured."""
OTHER_LINES = "other_lines"
"""Its component that is above 0 if the belief comes from other cell lines than the one asked about."""

_NOTHING_READ = "No question was read"
_SILENT = {
    "unrecognised_question": _NOTHING_READ,
    "other_task_kind": "The screen answers no question of this kind",
    "unknown_gene": "The screen does not know one of the genes",
    "ambiguous_gene": "The name of one of the genes is ambiguous",
    "unknown_cell_line": "There is no screen of this cell line",
    "pair_not_measured": "The screen has no row for this pair",
    "not_a_knockdown": "The pair was measured under another kind of perturbation",
    "screens_contradict": "The screens contradict each other",
    "rows_contradict": "The screen contradicts itself",
    "no_change_measured": "The screen saw no change",
    "direction_not_measured": "The screen saw a change of unknown direction",
}


def verdict(task: Task | None, answer: Answer | None, screen: Outcome | None) -> str:
    """ "The screen says yes; the answer says no."

    ``screen``: what `SCREEN` said; None if it was not asked. No word of the answer if the question has no yes or no.
    """
    said = _said_by_screen(task, screen)
    if isinstance(answer, AnswerProblem):
        return f"{said}; the answer could not be read ({answer_word(answer, task)})."
    if answer is None:
        return f"{said}."
    return f"{said}; the answer says {answer_word(answer, task)}."


def _said_by_screen(task: Task | None, screen: Outcome | None) -> str:
    if screen is None:
        return _NOTHING_READ if task is None else "No screen was asked"
    if isinstance(screen, Failed):
        return f"The screen could not be asked ({screen.reason})"
    if isinstance(screen, NotApplicable):
        return _SILENT.get(screen.reason) or f"The screen has nothing to say ({screen.reason})"
    return _believed(task, screen)


def _believed(task: Task | None, screen: Scored) -> str:
    # Without its evidence a simulated screen cannot be told from a real one.
    kind = "simulated screen" if any(one.simulated for one in screen.evidence) else "screen"
    if screen.belief is None or screen.belief == 0.5:
        return f"The {kind} says neither"
    words = (task and task.words) or YES_NO
    word = words.affirming if screen.belief > 0.5 else words.denying
    if screen.components.get(OTHER_LINES):
        return f"The {kind} of other lines suggests {word}"
    return f"The {kind} says {word}"
