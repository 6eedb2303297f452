"""The tables of docs/reading.md, row by row."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from bioverify.core.answers import AnswerProblem, parse_answer
from bioverify.core.completions import thought_problem
from bioverify.core.conversation import whole_completion
from bioverify.core.questions import Unread, read_question
from bioverify.core.readings import REASONS
from bioverify.core.tasks import TASKS, TaskKind, make_task

PAGE = (Path(__file__).parents[2] / "docs" / "reading.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[tuple[str, str]]:
    table = PAGE.split(heading)[1].split("\n\n")[0]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.strip().splitlines()[1:]]
    return [tuple(cell.strip().replace("\\|", "|").replace("\\*", "*").strip("`") for cell in row) for row in cells]


QUESTIONS = rows("| wording | read as |")
ANSWERS = rows("| completion | answer |")
THOUGHTS = rows("| completion | thought |")


def test_the_page_has_its_tables():
    assert len(QUESTIONS) >= 14
    assert len(ANSWERS) >= 20
    assert len(THOUGHTS) >= 7


def test_the_page_names_every_reason_why_something_was_not_read():
    listed = {
        what: re.findall(r"`(\w+)`", reasons)
        for what, reasons in re.findall(r"^\| (question|thought|answer) \| (.*) \|$", PAGE, re.MULTILINE)
    }
    assert listed == {what: list(reasons) for what, reasons in REASONS.items()}


@pytest.mark.parametrize(("completion", "thought"), THOUGHTS)
def test_a_thought_is_read_or_not_as_the_page_says(completion, thought):
    assert (thought_problem(whole_completion(completion.replace("\\n", "\n"))) or "read") == thought


@pytest.mark.parametrize(("wording", "read_as"), QUESTIONS)
def test_a_wording_is_read_as_the_page_says(wording, read_as):
    question = read_question(wording)
    if isinstance(question, Unread):
        assert read_as == f"not read: {question.reason}"
    elif question is None:
        assert read_as == "nothing asked"
    else:
        said = json.loads(read_as)
        assert list(said) == [question.kind]
        assert make_task(question.kind, said[question.kind].values()) == question
        assert list(said[question.kind]) == list(asdict(question))


@pytest.mark.parametrize(("completion", "answer"), ANSWERS)
def test_a_completion_is_answered_as_the_page_says(completion, answer):
    kind = TaskKind.DIRECTION_OF_CHANGE if "crease" in answer else TaskKind.DIFFERENTIAL_EXPRESSION
    read = parse_answer(whole_completion(completion), kind)
    words = TASKS[kind].words
    assert words
    assert answer == (read.value if isinstance(read, AnswerProblem) else words.affirming if read else words.denying)
