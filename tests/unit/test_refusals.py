"""What may pass and what never will: one rule, from the innermost service to the person."""

from __future__ import annotations

import grpc
import pytest
from prometheus_client import Gauge

from bioverify.adapters.alone import NoRewardError, reward_alone
from bioverify.aggregator.faults import of_refusal
from bioverify.aggregator.policy.limits import ItemLimit
from bioverify.client import ClientError, ScoreItem
from bioverify.client.errors import client_error
from bioverify.client.messages import check_ids
from bioverify.client.retries import pause_before_retry
from bioverify.client.values import ItemReward, RewardDetails, RewardPart
from bioverify.core.recipes import Requirement, Term
from bioverify.gateway.problems import of_client_error
from bioverify.runtime.errors import Refused, not_ready, over_limit
from bioverify.runtime.work import Admission
from bioverify.transport.refusals import Refusal

Code = grpc.StatusCode
CASES = [
    (not_ready("loading").refusal, True, 503),
    (Refusal(Code.UNAVAILABLE, "connection refused"), True, 503),
    (Refusal(Code.DEADLINE_EXCEEDED, "late"), True, 504),
    (over_limit("busy", retry_after_s=2.5).refusal, True, 429),
    (over_limit("5000 items in one call").refusal, False, 413),
    # gRPC's own refusal of a message beyond the limit of the receiver.
    (Refusal(Code.RESOURCE_EXHAUSTED, "Received message larger than max (70000000 vs. 67108864)"), False, 413),
    (Refusal(Code.INVALID_ARGUMENT, "recipe_name: no"), False, 422),
    (Refusal(Code.INTERNAL, "a fault"), False, 502),
]


@pytest.mark.parametrize(("refusal", "may_pass", "status"), CASES)
def test_every_door_says_the_same_of_one_refusal(refusal: Refusal, may_pass: bool, status: int) -> None:
    error = client_error(refusal, "here", 30)
    assert error.may_pass is refusal.may_pass is may_pass
    problem = of_client_error(error)
    assert problem.status == status
    assert ("retry-after" in problem.headers) == (may_pass and status != 504)
    upstream = of_refusal(refusal, "format at here").outcome
    assert upstream.retryable is may_pass
    part = RewardPart(
        Term(verifier="format", weight=1, requirement=Requirement.REQUIRED), upstream, None, "missing", False
    )
    with pytest.raises(NoRewardError) as alone:
        reward_alone(ItemReward("a", None, "format failed", RewardDetails((part,))))
    assert alone.value.may_pass is may_pass
    if not may_pass:
        assert pause_before_retry(refusal, 0, 30) is None


def test_the_time_to_wait_and_the_stable_word_reach_the_person() -> None:
    error = client_error(over_limit("busy", retry_after_s=2.5).refusal, "here", 30)
    assert (error.refusal.reason, of_client_error(error).headers) == ("overloaded", {"retry-after": "3"})
    too_large = client_error(over_limit("5000 items in one call, at most 4096 are taken").refusal, "here", 30)
    assert (too_large.refusal.reason, of_client_error(too_large).code) == ("too_large", "too_large")
    assert "5000 items" in of_client_error(too_large).detail


def test_a_call_larger_than_what_a_service_takes_at_all_is_told_no_time_to_come_back() -> None:
    admission = Admission(10, Gauge("test_admission", "Items.", registry=None))
    admission.enter(8)
    with pytest.raises(Refused) as busy:
        admission.enter(3)
    assert busy.value.refusal.may_pass
    with pytest.raises(Refused) as too_large:
        admission.enter(11)
    assert not too_large.value.refusal.may_pass


def test_a_call_larger_than_the_queue_before_a_verifier_may_wait_alone() -> None:
    assert ItemLimit(highest=4, max_waiting=8).has_room(9)


def test_a_field_that_is_refused_before_the_call_is_like_one_that_the_service_refuses() -> None:
    with pytest.raises(ClientError) as caught:
        check_ids([ScoreItem("", "x")])
    assert (caught.value.code, caught.value.refusal.reason) == (Code.INVALID_ARGUMENT, "invalid_request")
    assert caught.value.refusal.is_callers_mistake
