import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioverify.core.completions import PromptForm, TaggedText, format_score, mentions
from tests.fixtures import plain_completions

GOOD = "<think>AARS1 charges tRNA, so ASNS follows.</think><answer>yes</answer>"
FRAGMENTS = st.lists(
    st.one_of(
        st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<gene_info>", "</gene_info>", "<THINK>"]),
        st.sampled_from(
            [*"<>/ _-\n.,", "<Think>", "</aNSWER>", "<thin\u212a>", "</think >", "word ", "β-catenin é", "yes"]
        ),
        st.text(max_size=20),
    ),
    max_size=16,
).map("".join)


def test_a_well_formed_completion_passes_every_check():
    assert format_score(TaggedText(GOOD).form_checks()) == 1.0
    assert len(TaggedText(GOOD).form_checks()) == 11


@pytest.mark.parametrize(
    ("completion", "failed"),
    [
        (GOOD + " And so on.", {"ends_with_answer", "tagged_word_share"}),
        ("Well: " + GOOD, {"starts_with_think", "tagged_word_share"}),
        (
            "<answer>yes</answer><think>a long afterthought</think>",
            {"answer_after_think", "ends_with_answer", "starts_with_think"},
        ),
        ("<think>short</think> <answer>yes</answer>", {"think_has_text"}),
        ("<think>" + "word " * 300 + "</think> <answer>yes</answer>", {"at_most_200_words"}),
    ],
)
def test_each_fault_of_form_fails_its_own_check(completion, failed):
    assert {name for name, passed in TaggedText(completion).form_checks().items() if passed < 1.0} == failed


def test_the_published_quirks_are_kept_apart():
    assert TaggedText(GOOD).form_checks()["answer_after_think"] == 1.0
    assert TaggedText(GOOD).form_checks(as_published=True)["answer_after_think"] == 0.0
    nested = "<think><think><think> word</think>"
    assert TaggedText(nested).form_checks()["tagged_word_share"] == 1.0
    assert TaggedText(nested).form_checks(as_published=True)["tagged_word_share"] == 3.0


def test_gene_info_prompts_are_checked_for_their_block():
    completion = "<gene_info>AARS1: ligase</gene_info> <think>so it is likely then</think> <answer>yes</answer>"
    checks = TaggedText(completion).form_checks(PromptForm.GENE_INFO)
    assert len(checks) == 15
    assert format_score(checks) == 1.0
    without_block = TaggedText(GOOD).form_checks(PromptForm.GENE_INFO)
    assert {name for name, passed in without_block.items() if not passed} == {
        "has_gene_info",
        "think_after_gene_info",
        "answer_after_gene_info",
        "gene_info_has_text",
        "starts_with_gene_info",
    }
    assert TaggedText(completion).gene_info_blocks == ["AARS1: ligase"]


@given(FRAGMENTS, st.sampled_from(PromptForm))
def test_every_check_of_any_text_is_a_share(text, form):
    checks = TaggedText(text).form_checks(form)
    assert all(0.0 <= passed <= 1.0 for passed in checks.values())
    assert 0.0 <= format_score(checks) <= 1.0


@settings(max_examples=1000, deadline=None)
@given(FRAGMENTS, st.sampled_from(PromptForm), st.booleans())
def test_one_pass_over_the_tags_gives_what_one_expression_per_check_gives(text, form, as_published):
    read = TaggedText(text)
    assert read.form_checks(form, as_published=as_published) == plain_completions.form_checks(
        text, form, as_published=as_published
    )
    assert read.closed_thoughts == plain_completions.think_text(text)
    assert read.gene_info_blocks == plain_completions.gene_info_blocks(text)


@settings(max_examples=1000, deadline=None)
@given(st.text(alphabet="ABab1-. éA", max_size=14), st.text(alphabet="ABa1-.", min_size=1, max_size=3))
def test_a_symbol_is_found_where_the_expression_finds_it(text, symbol):
    assert mentions(text, symbol) == plain_completions.mentions(text, symbol)


def test_thousands_of_tags_that_never_close_are_read_in_linear_time():
    checks = TaggedText("<think>word " * 20_000).form_checks()
    assert checks["tags_closed"] == 0.0


@pytest.mark.parametrize(
    ("text", "symbol", "named"),
    [
        ("AARS1 is a ligase", "AARS1", True),
        ("AARS is outdated", "AR", False),
        ("AARS1-mediated charging", "AARS1", True),
        ("anti-CD3 antibodies", "CD3", True),
        ("MT-ATP6 is mitochondrial", "ATP6", False),
        ("HLA-A presents", "HLA", False),
        ("(ASNS)", "ASNS", True),
        ("they met before", "MET", False),
        ("C1orf112.", "C1orf112", True),
    ],
)
def test_a_gene_is_mentioned_as_a_whole_symbol(text, symbol, named):
    assert mentions(text, symbol) is named


def test_only_the_thoughts_count_as_mention():
    assert TaggedText("AARS1 <think>ASNS</think>").mention_share(["AARS1", "ASNS"]) == 0.5
    assert TaggedText("AARS1").mention_share(["AARS1"]) == 0.0
    assert TaggedText("").mention_share([]) == 1.0
