"""A reward that came over the wire is read when it is asked for, and nobody can tell."""

from __future__ import annotations

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from bioverify.adapters.alone import NoRewardError, reward_alone
from bioverify.client.json_form import reward_json
from bioverify.client.messages import item_reward
from bioverify.client.values import ItemReward, RewardDetails, RewardPart
from bioverify.core.outcomes import Failed, NotApplicable, Scored
from bioverify.core.recipes import Requirement, Term
from bioverify.core.tasks import DifferentialExpression
from bioverify.v1 import reward_pb2
from bioverify.wire.outcomes import outcome_to_wire
from bioverify.wire.rewards import term_to_wire
from bioverify.wire.tasks import answer_to_wire, task_to_wire

TASK = DifferentialExpression("A", "B", "k562")
TERMS = [
    Term(verifier="go_rouge", weight=2.0, requirement=Requirement.REQUIRED),
    Term(verifier="go_rouge", component="C", weight=1.0, requirement=Requirement.REQUIRED),
    Term(verifier="esm_mlp", weight=1.0, requirement=Requirement.OPTIONAL),
]
GO, FAILED = Scored(0.5, {"C": 0.25}), Failed("unavailable", "gone", retryable=True)
MADE = ItemReward(
    "a",
    1.25,
    "",
    RewardDetails(
        (
            RewardPart(TERMS[0], GO, 1.0, "", True),
            RewardPart(TERMS[1], GO, 0.25, "", True),
            RewardPart(TERMS[2], FAILED, None, "missing", False),
        ),
        TASK,
        True,
        Scored(0.75, belief=0.75),
    ),
)


def received() -> ItemReward:
    message = reward_pb2.Reward(
        item_id="a",
        reward=1.25,
        task=task_to_wire(TASK),
        answer=answer_to_wire(True),
        consensus=outcome_to_wire("a", Scored(0.75, belief=0.75)),
    )
    for part in MADE.parts:
        message.parts.add(
            term=term_to_wire(part.term),
            outcome=outcome_to_wire("a", part.outcome),
            contribution=part.contribution,
            dropped_because=part.dropped_because,
            from_cache=part.from_cache,
        )
    return item_reward(message)


def test_a_reward_says_out_of_how_much_it_is_and_what_the_screen_said():
    # The dropped term of weight 1 does not count.
    assert (received().reward, received().highest) == (1.25, 3.0)
    assert received().verdict == "No screen was asked; the answer says yes."
    term = TERMS[2].model_copy(update={"verifier": "experimental"})
    screen = RewardPart(term, Scored(0.0, belief=0.0), 0.0, "", False)
    said = reward_json(ItemReward("a", 0.0, "", RewardDetails((screen,), TASK, True)))
    assert (said["verdict"], said["highest"]) == ("The screen says no; the answer says yes.", 1.0)
    none = reward_json(ItemReward("a", None, "why", RewardDetails((screen,), TASK, True)))
    assert (none["reward"], none["highest"]) == (None, None)
    assert ItemReward("a", None, "the request was lost", is_lost=True).verdict == "No verifier was asked."


@pytest.mark.parametrize(
    "seen", [lambda one: one, lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy]
)
def test_a_received_reward_is_the_one_that_was_made(seen) -> None:
    assert seen(received()) == MADE
    assert repr(seen(received())) == repr(MADE)


def test_rewards_that_differ_in_one_field_are_not_equal() -> None:
    assert ItemReward("a", 1.25, "", MADE.details, is_lost=True) != MADE
    assert ItemReward("a", 1.25, "", MADE.details, is_refused=True) != MADE
    assert ItemReward("a", 1.25, "why", MADE.details) != MADE
    assert ItemReward("a", 1.25, "", MADE.details._replace(answer=False)) != MADE


@pytest.mark.parametrize("field", ["parts", "task", "answer", "consensus"])
def test_each_field_may_be_the_first_to_be_asked_for(field: str) -> None:
    assert getattr(received(), field) == getattr(MADE, field)


def test_a_received_reward_has_no_other_attributes_and_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="no attribute 'part'"):
        received().part  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError):
        received().parts = ()


def test_threads_may_read_a_reward_at_the_same_time() -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(200):
            one = received()
            assert set(pool.map(lambda _, one=one: len(one.parts), range(8))) == {3}


REQUIRED, OPTIONAL = Requirement.REQUIRED, Requirement.OPTIONAL
GONE, RAISES = Failed("unavailable", "gone", retryable=True), Failed("internal", "raises", retryable=False)
UNKNOWN = NotApplicable("unknown_gene", "XYZ")


def unscorable(*parts, **lost) -> ItemReward:
    """A reward of None, of parts (requirement, outcome) of the verifiers a, b, …"""
    made = [
        RewardPart(Term(verifier=name, weight=1, requirement=requirement), outcome, None, "missing", False)
        for name, (requirement, outcome) in zip("abc", parts, strict=False)
    ]
    return ItemReward("1", None, "why", RewardDetails(tuple(made), TASK), **lost)


@pytest.mark.parametrize(
    ("reward", "may_come_back", "lacking"),
    [
        # A question of a kind that no source asks has no parts: a fact, and not a lost request.
        (unscorable(), False, ""),
        (unscorable(is_lost=True), True, ""),
        (unscorable(is_lost=True, is_refused=True), False, ""),
        (unscorable((REQUIRED, GONE)), True, "a"),
        (unscorable((REQUIRED, RAISES)), False, "a"),
        (unscorable((REQUIRED, UNKNOWN)), False, "a"),
        (unscorable((REQUIRED, GONE), (REQUIRED, GONE)), True, "ab"),
        (unscorable((REQUIRED, GONE), (REQUIRED, UNKNOWN)), False, "ab"),
        (unscorable((REQUIRED, GONE), (OPTIONAL, UNKNOWN)), True, "a"),
        (unscorable((REQUIRED, UNKNOWN), (OPTIONAL, GONE)), False, "a"),
        # One optional term that comes back is enough.
        (unscorable((OPTIONAL, GONE), (OPTIONAL, UNKNOWN)), True, "ab"),
        (unscorable((OPTIONAL, UNKNOWN), (OPTIONAL, RAISES)), False, "ab"),
        # Dropped for what another member of the group lacks; this row lacks nothing.
        (unscorable((OPTIONAL, GO)), False, ""),
    ],
)
def test_a_reward_says_whether_asking_again_may_bring_it_and_what_it_lacks(reward, may_come_back, lacking) -> None:
    assert reward.may_come_back is may_come_back
    assert reward.lacking == set(lacking)


def test_a_reward_that_is_there_lacks_nothing() -> None:
    assert not MADE.may_come_back
    assert MADE.lacking == set()


@pytest.mark.parametrize(
    ("reward", "may_pass"),
    [
        (MADE, True),
        (unscorable(), False),
        (unscorable(is_lost=True), True),
        (unscorable((REQUIRED, GONE)), True),
        # The fault passes, the fact does not.
        (unscorable((REQUIRED, UNKNOWN), (OPTIONAL, GONE)), False),
        (unscorable((REQUIRED, GONE), (OPTIONAL, RAISES)), False),
    ],
)
def test_a_rollout_alone_is_waited_for_only_if_its_reward_may_come(reward, may_pass) -> None:
    with pytest.raises(NoRewardError) as caught:
        reward_alone(reward)
    assert caught.value.may_pass is may_pass


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"reward": float("inf")}, "the reward is not a finite number (inf)"),
        ({"reward": float("-inf")}, "the reward is not a finite number (-inf)"),
        ({"reward": float("nan")}, "the reward is not a finite number (nan)"),
        ({}, "the aggregator gave neither a reward nor a reason"),
        ({"unscorable_because": "format failed: internal"}, "format failed: internal"),
    ],
)
def test_a_reward_that_is_no_number_of_json_is_null_with_a_reason(given: dict[str, Any], why: str) -> None:
    message = reward_pb2.Reward(item_id="a", **given)
    message.parts.add(
        term=term_to_wire(TERMS[2]), outcome=outcome_to_wire("a", Scored(0.5)), contribution=given.get("reward", 0.5)
    )
    said = json.loads(orjson.dumps(reward_json(item_reward(message))))
    assert (said["reward"], said["unscorable_because"]) == (None, why)
    [part] = said["parts"]
    assert (part["contribution"] is None) == (part["dropped_because"] == "not_finite") == ("reward" in given)
