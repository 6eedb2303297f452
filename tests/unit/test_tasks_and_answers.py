import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.core.answers import AnswerProblem, ParseMode, parse_answer
from bioverify.core.questions import parse_task
from bioverify.core.tasks import (
    CoExpression,
    DifferentialExpression,
    DirectionOfChange,
    GeneAnnotation,
    TaskKind,
)

SYMBOLS = st.from_regex(r"[A-Z][A-Z0-9]{1,8}(-[A-Z0-9]{1,3})?", fullmatch=True)
CELL_LINES = st.sampled_from(["k562", "rpe1", "hepg2", "jurkat"])
TASKS = st.one_of(
    st.builds(DifferentialExpression, SYMBOLS, SYMBOLS, CELL_LINES),
    st.builds(DirectionOfChange, SYMBOLS, SYMBOLS, CELL_LINES),
    st.builds(CoExpression, SYMBOLS, SYMBOLS),
    st.builds(GeneAnnotation, st.lists(SYMBOLS, min_size=1, max_size=4).map(tuple)),
)


@given(TASKS, st.text(max_size=50))
def test_a_question_is_read_back_as_the_task_it_was_made_from(task, preamble):
    assert parse_task(f"{preamble} {task.question}") == task


@given(TASKS, TASKS)
def test_the_last_question_counts_because_earlier_ones_are_examples(example, asked):
    assert parse_task(f"{example.question}\n{asked.question}") == asked


@pytest.mark.parametrize("text", ["", "What is the capital of France?", "Is AARS1 related to ASNS?", "knockdown of A"])
def test_other_questions_are_no_task(text):
    assert parse_task(text) is None


@pytest.mark.parametrize("spelling", ["K562", "K-562", "k562", "k 562", "K_562"])
def test_a_cell_line_has_one_spelling(spelling):
    task = parse_task(f"Is a knockdown of AARS1 in {spelling} cells likely to change the expression of ASNS?")
    assert task == DifferentialExpression("AARS1", "ASNS", "k562")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<answer>yes</answer>", True),
        ("<answer> No. </answer>", False),
        ("<ANSWER>YES!</ANSWER>", True),
        ("<answer>It is not known</answer>", AnswerProblem.NO_ANSWER_WORD),
        ("<answer>yes or no</answer>", AnswerProblem.BOTH_ANSWER_WORDS),
        ("<answer>yes</answer> <answer>yes</answer>", AnswerProblem.SEVERAL_ANSWER_BLOCKS),
        ("<answer>yes", AnswerProblem.NO_ANSWER_BLOCK),
        ("yes", AnswerProblem.NO_ANSWER_BLOCK),
        ("  \n", AnswerProblem.EMPTY_COMPLETION),
        ("<answer></answer>", AnswerProblem.NO_ANSWER_WORD),
    ],
)
def test_an_answer_is_one_whole_word_in_the_one_block(completion, answer):
    assert parse_answer(completion) == answer


def test_a_direction_is_answered_by_increase_or_decrease():
    kind = TaskKind.DIRECTION_OF_CHANGE
    assert parse_answer("<answer>increase</answer>", kind) is True
    assert parse_answer("<answer>Decreased expression</answer>", kind) is False
    assert parse_answer("<answer>yes</answer>", kind) is AnswerProblem.NO_ANSWER_WORD


def test_the_demo_mode_keeps_the_published_quirks():
    assert parse_answer("<answer>unknown</answer>", mode=ParseMode.RBIO_DEMO) is False
    assert parse_answer("surely yes", mode=ParseMode.RBIO_DEMO) is True
    assert parse_answer("perhaps", mode=ParseMode.RBIO_DEMO) is AnswerProblem.NO_ANSWER_WORD


@given(st.text())
def test_any_text_reads_as_an_answer_or_a_reason(text):
    assert isinstance(parse_answer(text), bool | AnswerProblem)


@given(st.text(alphabet=st.characters(exclude_characters="<>")), st.sampled_from(["yes", "no"]))
def test_thoughts_never_change_the_answer(thoughts, word):
    assert parse_answer(f"<think>{thoughts}</think> <answer>{word}</answer>") is (word == "yes")
