import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify import recipes
from bioverify.client.json_form import outcome_from_json, outcome_json, reward_json
from bioverify.client.values import ItemReward, RewardDetails
from bioverify.core.answers import AnswerProblem, ParseMode
from bioverify.core.completions import PromptForm
from bioverify.core.outcomes import Evidence, Failed, NotApplicable, Quote, Scored, Verdict
from bioverify.core.tasks import DifferentialExpression, GeneAnnotation
from bioverify.core.verifier import ArtifactIdentity, Description, Reads, WatchedArtifact
from bioverify.v1 import reward_pb2, types_pb2
from bioverify.wire.outcomes import outcome_from_wire, outcome_to_wire
from bioverify.wire.rewards import recipe_from_wire, recipe_to_wire
from bioverify.wire.tasks import (
    answer_from_wire,
    answer_to_wire,
    read_item,
    reads_from_wire,
    reads_to_wire,
    task_from_wire,
    task_to_wire,
)
from tests.unit.test_tasks_and_answers import TASKS

SHARES = st.floats(0, 1)
OUTCOMES = st.one_of(
    st.builds(
        Scored,
        SHARES,
        st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
        st.lists(st.builds(Evidence, st.text(), st.text(), st.booleans()), max_size=2).map(tuple),
        st.none() | SHARES,
    ),
    st.builds(NotApplicable, st.text(), st.text()),
    st.builds(Failed, st.text(), st.text(), st.booleans()),
)


@given(TASKS)
def test_a_task_survives_the_wire(task):
    assert task_from_wire(types_pb2.Task.FromString(task_to_wire(task).SerializeToString())) == task


@given(OUTCOMES)
def test_an_outcome_survives_the_wire(outcome):
    message = types_pb2.Outcome.FromString(outcome_to_wire("i", outcome).SerializeToString())
    assert message.item_id == "i"
    assert outcome_from_wire(message) == outcome


@pytest.mark.parametrize("answer", [True, False, *AnswerProblem])
def test_an_answer_survives_the_wire(answer):
    assert answer_from_wire(answer_to_wire(answer)) == answer


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_survives_the_wire(name):
    recipe = recipes.load(name)
    message = reward_pb2.Recipe.FromString(recipe_to_wire(recipe).SerializeToString())
    assert recipe_from_wire(message) == recipe


def test_reads_survive_the_wire():
    for reads in (Reads.TASK, Reads.TASK | Reads.ANSWER, Reads.TASK | Reads.COMPLETION):
        assert reads_from_wire(reads_to_wire(reads)) == reads


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1])
def test_a_value_outside_zero_to_one_is_refused_not_clipped(value):
    with pytest.raises(ValueError, match="lies in"):
        outcome_from_wire(types_pb2.Outcome(scored=types_pb2.Scored(value=value)))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.sampled_from(list(Verdict)))
def test_a_quote_survives_the_wire_and_the_json(start, end, verdict):
    told = Scored(0.5, evidence=(Evidence("seen", "here", quote=Quote(start, end, verdict)), Evidence("whole")))
    assert outcome_from_wire(types_pb2.Outcome.FromString(outcome_to_wire("i", told).SerializeToString())) == told
    part = json.loads(json.dumps({"component": "", "value": 0.5, **outcome_json(told)}))
    assert outcome_from_json(part) == told
    for each in part["evidence"]:  # as results were stored when evidence had no quotes
        del each["quote"]
    assert [one.quote for one in outcome_from_json(part).evidence] == [None, None]


def test_a_verdict_that_is_newer_than_this_code_is_no_quote():
    message = types_pb2.Outcome(scored=types_pb2.Scored(value=0.5))
    message.scored.evidence.add(text="seen").quote.verdict = 9
    assert outcome_from_wire(message) == Scored(0.5, evidence=(Evidence("seen"),))


def test_an_outcome_that_says_nothing_is_refused():
    with pytest.raises(ValueError, match="no result"):
        outcome_from_wire(types_pb2.Outcome(item_id="i"))


def bare_item(system: str = "Answer the question.") -> types_pb2.Item:
    question = DifferentialExpression("AARS1", "ASNS", "k562").question
    return types_pb2.Item(
        id="i",
        prompt=[types_pb2.Message(role="system", content=system), types_pb2.Message(role="user", content=question)],
        completion="<think>AARS1</think> <answer>yes</answer>",
    )


def test_a_bare_item_is_read_off_its_texts():
    item = read_item(bare_item(), ParseMode.WHOLE_WORDS, Reads.TASK | Reads.ANSWER)
    assert item.task == DifferentialExpression("AARS1", "ASNS", "k562")
    assert item.answer is True
    assert item.prompt_form is PromptForm.ANSWER
    assert (
        read_item(bare_item("Write <gene_info>"), ParseMode.WHOLE_WORDS, Reads.TASK).prompt_form is PromptForm.GENE_INFO
    )


def test_what_is_given_wins_over_what_could_be_read():
    message = bare_item()
    message.task.CopyFrom(task_to_wire(GeneAnnotation(("TP53",))))
    item = read_item(message, ParseMode.WHOLE_WORDS, Reads.TASK | Reads.ANSWER)
    assert item.task == GeneAnnotation(("TP53",))
    assert item.answer is None
    message = bare_item()
    message.answer.problem = types_pb2.ANSWER_PROBLEM_NO_ANSWER_BLOCK
    assert read_item(message, ParseMode.WHOLE_WORDS, Reads.ANSWER).answer is AnswerProblem.NO_ANSWER_BLOCK


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_component_that_is_no_number_is_no_outcome(number):
    message = types_pb2.Outcome(scored=types_pb2.Scored(value=0.5, components={"mention": number}))
    with pytest.raises(ValueError, match="finite"):
        outcome_from_wire(message)


def test_an_artifact_of_which_nothing_was_counted_has_no_figures_and_no_problem():
    artifact = ArtifactIdentity("genes", "sha256:" + "0" * 64, "CC0", ("HGNC",))
    assert artifact.figures == {}
    assert Description("v", "1", "", (), Reads.TASK, False, {}, (artifact,)).problem() == ""
    damaged = WatchedArtifact("rows", artifact.digest, "CC0", ("HGNC",), problem=lambda: "rows.bin was changed")
    assert Description("v", "1", "", (), Reads.TASK, False, {}, (artifact, damaged)).problem() == "rows.bin was changed"


@given(TASKS)
def test_a_task_and_evidence_have_all_their_fields_in_json(task):
    pieces = (Evidence("seen", "a screen", simulated=True), Evidence("told", quote=Quote(2, 5, Verdict.SUPPORTED)))
    reward = ItemReward("a", None, "why", RewardDetails(task=task, consensus=Scored(0.5, {}, pieces)))
    written = reward_json(reward)
    assert written["task"] == {task.kind.value: asdict(task)}
    assert written["consensus"]["evidence"] == [asdict(piece) for piece in pieces]
