"""Format applies to everything, and says what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioverify import recipes
from bioverify.core import rbio_demo
from bioverify.core.answers import ParseMode
from bioverify.core.completions import PromptForm, TaggedText, format_score
from bioverify.core.outcomes import Scored
from bioverify.core.rewards import FORMAT, Row, compose
from bioverify.core.tasks import DifferentialExpression
from bioverify.core.verifier import Item
from bioverify.verifiers.format.verifier import open_verifier

TASK = DifferentialExpression("AARS1", "ASNS", "k562")
PIECES = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<answer>", "</answer>", "<gene_info>", "</gene_info>", "AARS1", " ", "yes"]
    )
).map("".join)


def score(item: Item) -> Scored:
    outcome = open_verifier().score([item])[0]
    assert isinstance(outcome, Scored)
    return outcome


def test_evidence_lists_failed_checks_and_unnamed_genes() -> None:
    outcome = score(Item(TASK, completion="<think>AARS1 is needed for translation.</think> yes"))
    assert outcome.components["mention"] == 0.5
    assert [evidence.text for evidence in outcome.evidence] == [
        "form: 7 of 11 checks passed; not: tagged_word_share 0.83, one_answer, answer_after_think, ends_with_answer",
        "names AARS1; does not name ASNS",
    ]


def test_without_a_task_there_is_nothing_to_mention() -> None:
    outcome = score(Item(None, completion="<think>Some thought here.</think><answer>yes</answer>"))
    assert (outcome.value, outcome.components["mention"]) == (1.0, 1.0)


def test_an_empty_completion_scores_zero_and_says_so() -> None:
    outcome = score(Item(TASK, completion=" \n"))
    assert outcome.value == 0.0
    assert outcome.components["empty_completion"] == 1.0
    assert outcome.evidence[0].text == "form: the completion is empty"


@settings(deadline=None)
@given(PIECES)
def test_the_value_is_the_cores_format_score(completion: str) -> None:
    for form in PromptForm:
        outcome = score(Item(TASK, completion=completion, prompt_form=form))
        expected = format_score(TaggedText(completion).form_checks(form)) if completion.strip() else 0.0
        assert outcome.value == expected


@settings(deadline=None)
@given(PIECES, st.booleans())
def test_the_published_mode_is_the_published_demo(completion: str, go: bool) -> None:
    form = PromptForm.GENE_INFO if go else PromptForm.ANSWER
    outcome = score(Item(TASK, completion=completion, parse_mode=ParseMode.RBIO_DEMO, prompt_form=form))
    published = rbio_demo.reward(completion, TASK.genes, 1.0, go=go)
    assert outcome.value == min(1.0, published["format"])
    assert outcome.components["published_format"] == published["format"]
    assert outcome.components["mention"] == published["mention"]


def test_the_demo_recipe_gives_the_demos_total_even_where_nested_tags_lift_it_above_one():
    completion = "<think><think><think><think><think> AARS1</think> <answer>yes</answer>"
    item = Item(TASK, answer=True, completion=completion, parse_mode=ParseMode.RBIO_DEMO)
    outcomes = {"format": score(item), "esm_mlp": Scored(0.83)}
    (reward,) = compose(recipes.load("rbio-demo"), [Row("", "", TASK.kind, outcomes)])
    assert reward.reward == pytest.approx(rbio_demo.reward(completion, TASK.genes, 0.83)["total"])


def test_the_verifier_of_the_form_has_the_name_by_which_recipes_and_rewards_know_it():
    assert open_verifier().description.name == FORMAT == "format"
