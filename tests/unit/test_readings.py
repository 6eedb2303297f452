"""What could not be read: one name per reason from core to the label of a metric, and counts that add up."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from bioverify.aggregator import metrics
from bioverify.client.json_form import reward_json
from bioverify.client.messages import item_reward
from bioverify.client.values import ItemReward, RewardDetails, readings_of
from bioverify.core.answers import AnswerProblem
from bioverify.core.completions import TaggedText, ThoughtProblem, thought_problem
from bioverify.core.conversation import THOUGHT_MARKS, whole_completion
from bioverify.core.questions import UnreadReason
from bioverify.core.readings import ALL_REASONS, REASONS, Readable, Readings
from bioverify.v1 import reward_pb2, types_pb2
from bioverify.wire.tasks import thought_problem_from_wire, unread_reason_from_wire


@pytest.mark.parametrize(
    ("completion", "problem"),
    [
        ("<think>So.</think> <answer>yes</answer>", None),
        ("<THINK>So.</THINK> <answer>yes</answer>", None),
        ("<think class='a'>So.</think>", None),
        ("So.</think> <answer>yes</answer>", None),
        ("<think></think><think>So.</think>", None),
        ("<think>a < b</think>", None),
        ("<think></think> <answer>yes</answer>", ThoughtProblem.EMPTY_THOUGHT),
        ("<think>\n\n</think>\n\n<answer>yes</answer>", ThoughtProblem.EMPTY_THOUGHT),
        ("</think> <answer>yes</answer>", ThoughtProblem.EMPTY_THOUGHT),
        ("<think></THINK>So.</think>", ThoughtProblem.EMPTY_THOUGHT),
        ("<think>So, and so on and", ThoughtProblem.THOUGHT_NOT_CLOSED),
        ("Sure! <think>So <answer>yes</answer>", ThoughtProblem.THOUGHT_NOT_CLOSED),
        ("<answer>yes</answer>", ThoughtProblem.NO_THOUGHT),
        ("Thinking: so. <answer>yes</answer>", ThoughtProblem.NO_THOUGHT),
        ("<scratchpad>So.</scratchpad> <answer>yes</answer>", ThoughtProblem.NO_THOUGHT),
        ("", ThoughtProblem.NO_THOUGHT),
    ],
)
def test_why_a_completion_has_no_thought(completion: str, problem: ThoughtProblem | None) -> None:
    assert thought_problem(completion) == problem


PIECES = [
    "<think>",
    "</think>",
    "<THINK>",
    "</Think >",
    "<think a>",
    "<answer>",
    "</answer>",
    " ",
    "\n",
    "a",
    "<",
    "So.",
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_the_usual_form_is_judged_at_once_as_the_whole_reading_judges_it(completion: str) -> None:
    assert thought_problem(completion) == TaggedText(completion).thought_problem
    has_thoughts = bool(TaggedText(completion).thoughts.strip())
    assert (thought_problem(completion) is None) == has_thoughts


@pytest.mark.parametrize("marks", THOUGHT_MARKS)
def test_every_spelling_of_the_table_is_a_thought_that_is_read(marks: tuple[str, str]) -> None:
    opening, closing = marks
    assert thought_problem(whole_completion(f"{opening}So.{closing}<answer>yes</answer>")) is None


def test_a_thought_that_the_template_opened_and_nobody_closed_was_cut_off() -> None:
    cut = whole_completion("So, and so on and", prefix="<think>\n")
    assert thought_problem(cut) is ThoughtProblem.THOUGHT_NOT_CLOSED


def test_a_reason_has_one_name_from_core_to_the_label_of_a_metric() -> None:
    for kind, prefix in (
        (types_pb2.UnreadReason, "UNREAD_REASON_"),
        (types_pb2.ThoughtProblem, "THOUGHT_PROBLEM_"),
        (types_pb2.AnswerProblem, "ANSWER_PROBLEM_"),
    ):
        in_contract = {name.removeprefix(prefix).lower() for name in kind.keys()} - {"unspecified"}  # noqa: SIM118
        assert in_contract in [set(reasons) for reasons in REASONS.values()]
    metrics.show_zeros([])
    shown = generate_latest(metrics.NOT_READ).decode()
    for what, reason in ALL_REASONS:
        assert f'bioverify_items_not_read_total{{reason="{reason}",what="{what}"}}' in shown
    assert shown.count("bioverify_items_not_read_total{") == len(ALL_REASONS)


def test_what_a_reward_says_of_its_reading_reaches_the_json_of_every_door() -> None:
    message = reward_pb2.Reward(
        item_id="a",
        unscorable_because="why",
        unread_question=types_pb2.UNREAD_REASON_KNOCKOUT,
        thought_problem=types_pb2.THOUGHT_PROBLEM_EMPTY_THOUGHT,
    )
    reward = item_reward(message)
    assert (reward.unread_question, reward.thought_problem) == (UnreadReason.KNOCKOUT, ThoughtProblem.EMPTY_THOUGHT)
    told = json.loads(json.dumps(reward_json(reward)))
    assert (told["unread_question"], told["thought_problem"]) == ("knockout", "empty_thought")
    # An aggregator that is older than the fields says nothing of them.
    silent = reward_json(item_reward(reward_pb2.Reward(item_id="a", reward=1)))
    assert (silent["unread_question"], silent["thought_problem"]) == (None, None)


def test_a_reason_that_only_a_newer_aggregator_knows_still_counts_as_not_read() -> None:
    later: int = 99
    assert unread_reason_from_wire(later) is UnreadReason.OTHER_WORDING
    assert thought_problem_from_wire(later) is ThoughtProblem.NO_THOUGHT


def reward(
    question: UnreadReason | None, thought: ThoughtProblem | None, answer: bool | AnswerProblem | None
) -> ItemReward:
    return ItemReward("a", 1.0, "", RewardDetails((), None, answer, None, question, thought))


ONE_OF_EACH = st.tuples(
    st.none() | st.sampled_from(UnreadReason),
    st.none() | st.sampled_from(ThoughtProblem),
    st.none() | st.booleans() | st.sampled_from(AnswerProblem),
)


@given(st.lists(ONE_OF_EACH), st.integers(0, 20))
def test_counts_are_the_same_however_the_items_come(read: list[tuple[None, None, None]], cut: int) -> None:
    rewards = [reward(*one) for one in read]
    whole = readings_of(rewards)
    parts = readings_of(rewards[:cut])
    parts.update(readings_of(rewards[cut:]))
    assert parts == whole == readings_of(reversed(rewards))
    assert whole.items == len(read)
    for what, place in ((Readable.QUESTION, 0), (Readable.THOUGHT, 1)):
        assert whole.not_read[what].total() == sum(one[place] is not None for one in read)
    assert whole.not_read[Readable.ANSWER].total() == sum(isinstance(one[2], AnswerProblem) for one in read)


def test_an_item_whose_request_was_lost_was_not_looked_at() -> None:
    lost = ItemReward("a", None, "the request was lost", is_lost=True)
    assert readings_of([lost, lost]) == Readings()
    assert readings_of([lost]).lines() == []
    assert readings_of([lost]).warning == ""


def test_the_loud_warning_needs_that_no_completion_has_a_thought_and_says_what_is_read() -> None:
    none = readings_of([reward(None, ThoughtProblem.NO_THOUGHT, True)] * 3)
    assert none.warning.startswith("None of the 3 completions has a thought")
    for named in ("<think>…</think>", "[THINK]", "reasoning_content", "prefix", "special token", "docs/reading.md"):
        assert named in none.warning
    none.update(readings_of([reward(None, None, True)]))
    assert none.warning == ""
    assert none.lines() == ["3 of 4 completions have no thought that could be read: no_thought 3"]
