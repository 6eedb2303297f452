import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.core.completions import PromptForm, form_checks, format_score, gene_info_blocks, mention_share, mentions

GOOD = "<think>AARS1 charges tRNA, so ASNS follows.</think><answer>yes</answer>"
FRAGMENTS = st.lists(
    st.one_of(
        st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<gene_info>", "</gene_info>", "<THINK>"]),
        st.text(max_size=20),
    ),
    max_size=12,
).map("".join)


def test_a_well_formed_completion_passes_every_check():
    assert format_score(form_checks(GOOD)) == 1.0
    assert len(form_checks(GOOD)) == 11


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
    assert {name for name, passed in form_checks(completion).items() if passed < 1.0} == failed


def test_the_published_quirks_are_kept_apart():
    assert form_checks(GOOD)["answer_after_think"] == 1.0
    assert form_checks(GOOD, as_published=True)["answer_after_think"] == 0.0
    nested = "<think><think><think> word</think>"
    assert form_checks(nested)["tagged_word_share"] == 1.0
    assert form_checks(nested, as_published=True)["tagged_word_share"] == 3.0


def test_gene_info_prompts_are_checked_for_their_block():
    completion = "<gene_info>AARS1: ligase</gene_info> <think>so it is likely then</think> <answer>yes</answer>"
    checks = form_checks(completion, PromptForm.GENE_INFO)
    assert len(checks) == 15
    assert format_score(checks) == 1.0
    without_block = form_checks(GOOD, PromptForm.GENE_INFO)
    assert {name for name, passed in without_block.items() if not passed} == {
        "has_gene_info",
        "think_after_gene_info",
        "answer_after_gene_info",
        "gene_info_has_text",
        "starts_with_gene_info",
    }
    assert gene_info_blocks(completion) == ["AARS1: ligase"]


@given(FRAGMENTS, st.sampled_from(PromptForm))
def test_every_check_of_any_text_is_a_share(text, form):
    checks = form_checks(text, form)
    assert all(0.0 <= passed <= 1.0 for passed in checks.values())
    assert 0.0 <= format_score(checks) <= 1.0


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
    assert mention_share("AARS1 <think>ASNS</think>", ["AARS1", "ASNS"]) == 0.5
    assert mention_share("AARS1", ["AARS1"]) == 0.0
    assert mention_share("", []) == 1.0
