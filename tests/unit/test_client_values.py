"""A reward that came over the wire is read when it is asked for, and nobody can tell."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from bioverify.client.messages import item_reward
from bioverify.client.values import ItemReward, RewardDetails, RewardPart
from bioverify.core.outcomes import Failed, Scored
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


@pytest.mark.parametrize(
    "seen", [lambda one: one, lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy]
)
def test_a_received_reward_is_the_one_that_was_made(seen) -> None:
    assert seen(received()) == MADE
    assert repr(seen(received())) == repr(MADE)


def test_rewards_that_differ_in_one_field_are_not_equal() -> None:
    assert ItemReward("a", 1.25, "", MADE.details, is_lost=True) != MADE
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
