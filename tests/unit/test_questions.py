import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.core.questions import FORMS, Unread, UnreadReason, parse_task, read_conversation, read_question
from bioverify.core.tasks import (
    TASKS,
    CoExpression,
    DifferentialExpression,
    DirectionOfChange,
    GeneAnnotation,
    TaskKind,
    canonical_cell_line,
    nearest_cell_line,
)
from bioverify.v1 import types_pb2
from tests.unit import wordings

ASKED = {
    "differential_expression": DifferentialExpression("AARS", "TRIB3", "k562"),
    "direction_of_change": DirectionOfChange("AARS", "TRIB3", "k562"),
    "co_expression": CoExpression("AARS", "TRIB3"),
    "gene_annotation": GeneAnnotation(("AARS", "TRIB3")),
}
QUESTION = DifferentialExpression("AARS", "TRIB3", "k562").question


def test_the_contract_has_the_kinds_of_the_core_and_no_others():
    assert [field.name for field in types_pb2.Task.DESCRIPTOR.oneofs_by_name["kind"].fields] == list(TaskKind)
    assert list(TASKS) == list(TaskKind)
    for kind, make in TASKS.items():
        message = types_pb2.Task.DESCRIPTOR.fields_by_name[kind].message_type
        assert [field.name for field in message.fields] == list(make.__match_args__)


@pytest.mark.parametrize("kind", TaskKind)
def test_at_least_a_hundred_wordings_of_each_question_are_read_as_it(kind):
    assert len(set(wordings.READ[kind])) >= 100
    assert {wording: read for wording in wordings.READ[kind] if (read := read_question(wording)) != ASKED[kind]} == {}


@pytest.mark.parametrize("wording", [*wordings.UNREAD, *wordings.PHRASED_OTHERWISE])
def test_a_question_about_something_else_is_not_read_and_is_quoted(wording):
    question = read_question(wording)
    assert isinstance(question, Unread)
    assert question.quote in " ".join(wording.split())
    assert all(form in question.detail for form in FORMS.values())


@pytest.mark.parametrize("later", [*wordings.UNREAD, *wordings.PHRASED_OTHERWISE])
def test_an_earlier_example_is_never_scored_in_place_of_the_question(later):
    for text in (f"{QUESTION} yes\n{later}", f"{QUESTION} {later} Answer in the tags."):
        assert isinstance(read_question(text), Unread)
    turns = [("user", QUESTION), ("assistant", "<answer>yes</answer>"), ("user", later)]
    assert isinstance(read_conversation(reversed(turns)), Unread)


@pytest.mark.parametrize(
    "behind",
    [
        "yes\nPredict: MYC knockout -> LDLR",
        "Q: MYC knockout in K562, effect on LDLR:",
        "yes\nPerturbation: MYC. Gene: LDLR. Cell line: K562. Answer:",
        "<answer>yes</answer>\nMYC, LDLR, K562:",
        "A: no.\nNow MYC and LDLR.",
        "yes\nThe same for p53 and bax?",
        "And what about p53?",
        "yes\n\nI would like to know the consequences of MYC loss for LDLR mRNA levels.",
    ],
)
def test_a_later_question_without_the_grammar_of_one_still_ends_the_search(behind):
    assert isinstance(read_question(f"{QUESTION} {behind}"), Unread)


@pytest.mark.parametrize(
    "behind",
    [
        "Answer yes if the expression of the gene changes, no otherwise.",
        "Yes or no? Reason about the gene's regulation first.",
        "No explanations beyond what is known of both genes, please.",
        "Do not mention gene names you are unsure of.",
        "Think about how the gene is regulated, then answer in <answer> tags.",
    ],
)
def test_instructions_about_genes_behind_a_question_hide_nothing(behind):
    assert read_question(f"{QUESTION} {behind}") == ASKED["differential_expression"]


@pytest.mark.parametrize(
    "written",
    [
        "> Is a knockdown of ~~AARS~~ in K562 cells likely to change the\n> expression of TRIB3?",
        "Is a knockdown of AARS in HepG2 (C3A) cells likely to change the expression of TRIB3?",
        "Is a knockdown of AARS in hTERT-immortalized RPE1 cells likely to change the expression of TRIB3?",
    ],
)
def test_quoted_lines_and_longer_names_of_lines_are_read(written):
    task = read_question(written)
    assert isinstance(task, DifferentialExpression)
    assert (task.genes, task.cell_line in {"k562", "hepg2", "rpe1"}) == (("AARS", "TRIB3"), True)


@pytest.mark.parametrize(
    "later", ["Answer now, in the tags.", "Are you sure?", "Yes or no?", "Think again.", "", "Why?"]
)
def test_turns_that_ask_nothing_are_passed_over(later):
    turns = [("system", "Is this a question?"), ("user", QUESTION), ("assistant", "Hm."), ("user", later)]
    assert read_conversation(reversed(turns)) == ASKED["differential_expression"]
    assert read_question(f"{QUESTION} {later}") == ASKED["differential_expression"]


def test_a_turn_that_asks_something_else_ends_the_search():
    turns = [("user", QUESTION), ("user", "What is the capital of France?")]
    question = read_conversation(reversed(turns))
    assert isinstance(question, Unread)
    assert question.reason is UnreadReason.OTHER_SUBJECT


def test_only_the_users_turns_ask():
    assert read_conversation([("tool", QUESTION), ("assistant", QUESTION), ("system", QUESTION)]) is None


@pytest.mark.parametrize(
    ("wording", "reason", "said"),
    [
        (
            "Is a knockout of MYC in K562 cells likely to change the expression of LDHA?",
            "knockout",
            "not in the screens",
        ),
        ("Does activation of MYC in K562 cells change the expression of LDHA?", "activation", "activation"),
        ("Does imatinib, a drug, change the expression of LDHA?", "drug", "drug"),
        ("Is a knockdown of MYC + MAX in K562 cells likely to change LDHA?", "combination", "several genes at once"),
        (
            "Is a knockdown of MYC in K562 cells unlikely to result in differential expression of LDHA?",
            "other_wording",
            '"unlikely" stands for "likely"',
        ),
    ],
)
def test_a_refusal_says_what_differs(wording, reason, said):
    question = read_question(wording)
    assert isinstance(question, Unread)
    assert question.reason == reason
    assert said in question.detail


def test_the_answer_to_an_example_is_no_part_of_the_quote():
    question = read_question(f"{QUESTION} yes\nIs a knockout of MYC in K562 cells likely to change LDHA?")
    assert isinstance(question, Unread)
    assert question.quote.startswith("Is a knockout of MYC")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("hTERT-RPE1", "rpe1"),
        ("hTERT RPE-1", "rpe1"),
        ("HepG2/C3A", "hepg2"),
        ("Hep G2", "hepg2"),
        ("K562 cells", "k562"),
        ("the K-562 cell line", "k562"),
        ("CVCL_0004", "k562"),
        ("K562 (CVCL_0004)", "k562"),
        ("CVCL_4388", "rpe1"),
        ("Jurkat, Clone E6-1", "jurkat"),
        ("Jurkat E6.1", "jurkat"),
        ("MCF-7", "mcf7"),
        ("-", "-"),
    ],
)
def test_a_cell_line_is_known_by_its_other_names(name, line):
    assert canonical_cell_line(name) == line


@given(st.text(max_size=64))
def test_the_canonical_name_of_a_cell_line_is_its_own_canonical_name(name):
    once = canonical_cell_line(name)
    assert canonical_cell_line(once) == once
    assert bool(once) == bool(name)


def test_a_misspelt_cell_line_has_a_nearest_one():
    lines = ["k562", "rpe1", "hepg2", "jurkat"]
    assert nearest_cell_line("K526", lines) == "k562"
    assert nearest_cell_line("Jurkatt2", lines) == "jurkat"
    assert nearest_cell_line("HeLa", lines) is None


@given(
    st.text() | st.lists(st.sampled_from([*wordings.UNREAD_LEADS, *wordings.DIFFERENTIAL, "? ", ". "])).map(" ".join)
)
def test_no_text_raises(text):
    question = read_question(text)
    if isinstance(question, Unread):
        assert question.detail
        assert len(question.quote) <= 200


def test_gene_symbols_in_capitals_may_be_words():
    asked = DifferentialExpression("AN", "HOW", "k562")
    assert parse_task(asked.question) == asked


@pytest.mark.parametrize(
    ("wording", "differences"),
    [
        (
            "Is a knockdown of MYC in K562 cells unlikely to result in differential expression of LDHA?",
            ['"unlikely" stands for "likely"'],
        ),
        (
            "Is a knockdown of MYC in K562 cells likely to result in expression of LDHA?",
            ['"" stands for "differential"'],
        ),
        (
            "Are gene MYC and gene MAX and so on likely to be co-expressed together?",
            ['"MAX and so on" stands for "{B}"'],
        ),
    ],
)
def test_names_are_no_difference_and_everything_else_is(wording, differences):
    question = read_question(wording)
    assert isinstance(question, Unread)
    assert question.reason is UnreadReason.OTHER_WORDING
    told = question.detail.split("It is nearest to ", 1)[1].split("Known forms", 1)[0]
    form, _, rest = told.partition('?", but ')
    assert "{A}" in form
    assert rest.strip() == ", ".join(differences) + "."


@pytest.mark.parametrize("around", ["({})", "[{}]", "'{}'", "{} )", "[({}) ]"])
def test_a_mark_of_a_question_counts_within_brackets_and_quotes(around):
    read = read_question(around.format("AARS knockdown in K562 changes TRIB3?"))
    assert isinstance(read, Unread)
    assert read.reason is UnreadReason.OTHER_WORDING
    assert read_question(around.format("AARS knockdown in K562 changes TRIB3.")) is None
