import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.core.answers import AnswerProblem, ParseMode, answer_word, parse_answer
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


def test_an_answer_is_written_in_the_words_of_its_question():
    asked = [
        DifferentialExpression("A", "B", "k562"),
        DirectionOfChange("A", "B", "k562"),
        CoExpression("A", "B"),
        None,
    ]
    assert [[answer_word(answer, task) for answer in (True, False)] for task in asked] == [
        ["yes", "no"], ["increase", "decrease"], ["yes", "no"], ["yes", "no"]
    ]  # fmt: skip
    assert answer_word(AnswerProblem.NO_ANSWER_WORD, asked[1]) == "no_answer_word"
    assert answer_word(None, asked[1]) is None


def test_a_direction_is_answered_by_increase_or_decrease():
    kind = TaskKind.DIRECTION_OF_CHANGE
    assert parse_answer("<answer>increase</answer>", kind) is True
    assert parse_answer("<answer>Decreased expression</answer>", kind) is False
    assert parse_answer("<answer>yes</answer>", kind) is AnswerProblem.NO_ANSWER_WORD


def test_the_demo_mode_keeps_the_published_quirks():
    assert parse_answer("<answer>unknown</answer>", mode=ParseMode.RBIO_DEMO) is False
    assert parse_answer("surely yes", mode=ParseMode.RBIO_DEMO) is True
    assert parse_answer("perhaps", mode=ParseMode.RBIO_DEMO) is AnswerProblem.NO_ANSWER_WORD


READ_WORDS = [
    # A leading yes or no decides.
    ("yes", True),
    ("Yes, there is no doubt", True),
    ("Yes, no doubt", True),
    ("No, I would not answer yes", False),
    ("no change in expression", False),
    ("yes- the stress response", True),
    ("-yes", True),
    ("- No", False),
    ("yes \u2013 strongly", True),
    ("_yes_", True),
    ("**No**", False),
    ("\uff59\uff45\uff53", True),
    ("\uff2e\uff2f", False),
    ("y\u200bes", True),
    ("\u2060no\ufeff", False),
    ("`yes`", True),
    ("(yes)", True),
    # Otherwise one of the two stands there, not negated.
    ("The answer is yes", True),
    ("The answer is no, because it is far away", False),
    ("Answer: yes, there is no doubt", True),
    ("It is not known, but yes", True),
    ("I do not doubt it: yes", True),
    ("not yes", AnswerProblem.NO_ANSWER_WORD),
    ("I would not answer yes", AnswerProblem.NO_ANSWER_WORD),
    ("I don\u2019t think that the answer is yes", AnswerProblem.NO_ANSWER_WORD),
    ("cannot say yes", AnswerProblem.NO_ANSWER_WORD),
    ("neither yes nor no", AnswerProblem.NO_ANSWER_WORD),
    ("no doubt", AnswerProblem.NO_ANSWER_WORD),
    ("There is no doubt", AnswerProblem.NO_ANSWER_WORD),
    ("yes-no", AnswerProblem.NO_ANSWER_WORD),
    ("yesterday", AnswerProblem.NO_ANSWER_WORD),
    ("no_answer", AnswerProblem.NO_ANSWER_WORD),
    ("yes/no", AnswerProblem.BOTH_ANSWER_WORDS),
    ("yes and no", AnswerProblem.BOTH_ANSWER_WORDS),
    ("No. Yes.", AnswerProblem.BOTH_ANSWER_WORDS),
    ("either yes or no", AnswerProblem.BOTH_ANSWER_WORDS),
    # An em dash parts words, with white space around it or without.
    ("yes\u2014it is a target", True),
    ("No\u2014TRIB3 is far away", False),
    ("The answer is yes\u2015strongly", True),
    # Denied by what stands behind it, or by more than one word in front.
    ("yes is wrong", AnswerProblem.NO_ANSWER_WORD),
    ("Yes would not be right", AnswerProblem.NO_ANSWER_WORD),
    ("no is unlikely", AnswerProblem.NO_ANSWER_WORD),
    ("anything but yes", AnswerProblem.NO_ANSWER_WORD),
    ("far from yes", AnswerProblem.NO_ANSWER_WORD),
    ("the opposite of yes", AnswerProblem.NO_ANSWER_WORD),
    ("yes, which is not surprising", True),
    ("yes; it is not far away", True),
    ("No, it is unlikely", False),
    # Nobody answered.
    ("No idea", AnswerProblem.NO_ANSWER_WORD),
    ("no one knows", AnswerProblem.NO_ANSWER_WORD),
    ("No answer", AnswerProblem.NO_ANSWER_WORD),
    ("No data are at hand, but yes", True),
    ("No evidence", False),
]
READ_DIRECTIONS = [
    ("increase", True),
    ("It increases.", True),
    ("increasing", True),
    ("upregulated", True),
    ("up-regulation of TRIB3", True),
    ("Downregulated", False),
    ("_decrease_", False),
    ("decrease, not increase", False),
    ("It does not decrease; it increases", True),
    ("does not increase", AnswerProblem.NO_ANSWER_WORD),
    ("no increase", AnswerProblem.NO_ANSWER_WORD),
    ("neither increase nor decrease", AnswerProblem.NO_ANSWER_WORD),
    ("decrease or increase", AnswerProblem.BOTH_ANSWER_WORDS),
    ("yes", AnswerProblem.NO_ANSWER_WORD),
    ("fails to increase", AnswerProblem.NO_ANSWER_WORD),
    ("lack of increase", AnswerProblem.NO_ANSWER_WORD),
    ("prevents an increase", AnswerProblem.NO_ANSWER_WORD),
    ("less increase", AnswerProblem.NO_ANSWER_WORD),
    ("an increase is not expected", AnswerProblem.NO_ANSWER_WORD),
    ("An increase in TRIB3 expression is unlikely", AnswerProblem.NO_ANSWER_WORD),
    ("increase cannot be expected", AnswerProblem.NO_ANSWER_WORD),
    ("Increase? No, decrease.", False),
    ("an increase of TRIB3 isn't likely, so decrease", False),
    ("increase is likely, as it is not repressed", True),
    ("decrease because ATF4 is not active", False),
    ("It fails to decrease; it increases", True),
]


@pytest.mark.parametrize(("said", "answer"), READ_WORDS)
def test_a_yes_or_no_is_read_as_it_is_meant(said, answer):
    assert parse_answer(f"<answer>{said}</answer>") == answer


@pytest.mark.parametrize(("said", "answer"), READ_DIRECTIONS)
def test_a_direction_is_read_as_it_is_meant(said, answer):
    assert parse_answer(f"<answer>{said}</answer>", TaskKind.DIRECTION_OF_CHANGE) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<think>I must put it in <answer> tags.</think> <answer>yes</answer>", True),
        ("<think>At first <answer>no</answer> seems right, but no.</think> <answer>yes</answer>", True),
        ("<think>a</think> <answer>no</answer> <think>b</think> <answer>yes</answer>", True),
        ("thoughts\n</think>\n<answer>yes</answer>", True),
        ("<think>It never closes <answer>yes</answer>", AnswerProblem.NO_ANSWER_BLOCK),
        ("<think>a</think> <think>It never closes <answer>yes</answer>", AnswerProblem.NO_ANSWER_BLOCK),
        ("<think>a</think> <answer>yes</answer> <think>cut", True),
        ("<answer>yes</answer> <think>an afterthought</think>", AnswerProblem.NO_ANSWER_BLOCK),
        ("<think>a</think> <answer>yes</answer> <answer>yes</answer>", AnswerProblem.SEVERAL_ANSWER_BLOCKS),
        ("<think>a</THINK> <Answer>yes</aNSWER>", True),
        ("<answer >yes</answer>", True),
        ('<answer confidence="0.8">yes</answer >', True),
        ("<think>a</think\n> <answer\tid='1'>no</answer>", False),
        ("<answers>yes</answers>", AnswerProblem.NO_ANSWER_BLOCK),
        ("<answer/>yes", AnswerProblem.NO_ANSWER_BLOCK),
    ],
)
def test_the_answer_stands_behind_the_thoughts(completion, answer):
    assert parse_answer(completion) == answer


TEXTS = st.text() | st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            "<answer >",
            "yes",
            "no",
            " or ",
            " not ",
            "-",
            "_",
            "n't ",
            ".",
        ]
    )
).map("".join)


@given(TEXTS)
def test_any_text_reads_as_an_answer_or_a_reason(text):
    for kind in (None, *TaskKind):
        for mode in ParseMode:
            assert isinstance(parse_answer(text, kind, mode), bool | AnswerProblem)


@given(TEXTS.filter(lambda text: "</think>" not in text), st.sampled_from(["yes", "no"]))
def test_thoughts_never_change_the_answer(thoughts, word):
    assert parse_answer(f"<think>{thoughts}</think> <answer>{word}</answer>") is (word == "yes")


def test_the_reasons_of_no_answer_have_the_names_that_components_and_messages_carry():
    assert [*AnswerProblem] == [
        "empty_completion",
        "no_answer_block",
        "several_answer_blocks",
        "no_answer_word",
        "both_answer_words",
    ]
    assert [*ParseMode] == ["whole-words", "rbio-demo"]
