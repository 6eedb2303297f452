"""What the runtime adds to the contract, over a real socket: items that raise, queues, logs, metrics.

What any implementation owes its callers is in test_conformance.
"""

from __future__ import annotations

import time
import urllib.request
import uuid
from collections.abc import Iterator

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioverify.transport.channels import CHANNEL_OPTIONS
from bioverify.transport.refusals import refusal_from_error
from bioverify.v1 import types_pb2, verifier_pb2, verifier_pb2_grpc
from tests.fixtures import servers
from tests.fixtures.verifiers import belief_of

GENES = ("A", "B", "AARS1", "ASNS", "UNKNOWN")


def item(item_id: str, perturbation: str = "A", measured: str = "B", completion: str = "<answer>yes</answer>"):
    task = types_pb2.Task(
        differential_expression=types_pb2.DifferentialExpression(
            perturbation=perturbation, measured_gene=measured, cell_line="K-562"
        )
    )
    return types_pb2.Item(id=item_id, task=task, completion=completion)


def batch(*items: types_pb2.Item, **fields) -> verifier_pb2.VerifierServiceScoreBatchRequest:
    return verifier_pb2.VerifierServiceScoreBatchRequest(items=items, **fields)


@pytest.fixture(scope="module")
def service() -> Iterator[servers.Service]:
    config = {"max_items": 64, "max_bytes": 2**20, "max_items_in_flight": 96, "metrics_port": servers.free_port()}
    with servers.verifier("Lookup", **config) as running:
        yield running


@pytest.fixture(scope="module")
def stub(service: servers.Service) -> Iterator[verifier_pb2_grpc.VerifierServiceStub]:
    with grpc.insecure_channel(service.target, options=CHANNEL_OPTIONS) as channel:
        yield verifier_pb2_grpc.VerifierServiceStub(channel)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(GENES), st.sampled_from(GENES)), max_size=64))
def test_outcomes_come_back_in_order_under_their_ids(stub, pairs) -> None:
    items = [item(uuid.uuid4().hex, *pair) for pair in pairs]
    reply = stub.ScoreBatch(batch(*items))
    assert [outcome.item_id for outcome in reply.outcomes] == [message.id for message in items]
    for outcome, (perturbation, measured) in zip(reply.outcomes, pairs, strict=True):
        if perturbation == "UNKNOWN":
            assert outcome.not_applicable.reason == "unknown_gene"
        else:
            assert outcome.scored.value == pytest.approx(belief_of(perturbation, measured, "1"))


def test_one_item_that_raises_fails_alone(stub) -> None:
    reply = stub.ScoreBatch(batch(item("a"), item("b", "RAISES"), item("c", "UNKNOWN"), item("d")))
    assert [outcome.WhichOneof("result") for outcome in reply.outcomes] == [
        "scored",
        "failure",
        "not_applicable",
        "scored",
    ]
    assert reply.outcomes[1].failure.reason == "internal"
    assert not reply.outcomes[1].failure.retryable


def test_a_question_without_a_known_form_and_an_answerless_completion_are_outcomes(stub) -> None:
    no_task = types_pb2.Item(id="a", completion="hello", prompt=[types_pb2.Message(role="user", content="Why?")])
    reply = stub.ScoreBatch(batch(no_task, item("b", completion="")))
    assert reply.outcomes[0].not_applicable.reason == "unrecognised_question"
    assert reply.outcomes[1].scored.value == 0
    assert reply.outcomes[1].scored.components["no_answer.empty_completion"] == 1


def test_evidence_is_left_out_where_it_is_not_wanted(stub) -> None:
    with_evidence = stub.ScoreBatch(batch(item("a"))).outcomes[0].scored
    without = stub.ScoreBatch(batch(item("a"), omit_evidence=True)).outcomes[0].scored
    assert with_evidence.evidence[0].simulated
    assert not without.evidence
    assert without.value == with_evidence.value


def _empty_task() -> types_pb2.Item:
    return types_pb2.Item(id="b", task=types_pb2.Task())


@pytest.mark.parametrize(
    ("items", "field", "problem"),
    [
        ([item("a"), item("b"), item("a")], "items[2].id", 'duplicate of items[0].id ("a")'),
        ([item("a"), item("")], "items[1].id", "at least 1 character"),
        ([item("a"), _empty_task()], "items[1].task.kind", "exactly one field is required"),
        ([item("a", measured="")], "items[0].task.differential_expression.measured_gene", "at least 1 character"),
        (
            [types_pb2.Item(id="a", prompt=[types_pb2.Message(role="robot")])],
            "items[0].prompt[0].role",
            "must be in list",
        ),
    ],
)
def test_an_invalid_request_is_refused_with_the_name_of_the_field(stub, items, field, problem) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ScoreBatch(batch(*items))
    refusal = refusal_from_error(caught.value)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in refusal.message
    assert [(f, problem in p) for f, p in refusal.violations] == [(field, True)]


def test_work_beyond_what_may_be_in_flight_is_refused_at_once_with_a_time_to_wait(stub) -> None:
    slow = stub.ScoreBatch.future(batch(item("slow", "SLEEPS"), *(item(str(index)) for index in range(59))))
    time.sleep(0.2)
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        stub.ScoreBatch(batch(*(item(str(index)) for index in range(60))))
    assert time.monotonic() - started < 0.5
    refusal = refusal_from_error(caught.value)
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.retry_after_s
    assert len(slow.result().outcomes) == 60


def test_a_call_that_expires_in_the_queue_is_not_worked_on(stub) -> None:
    slow = stub.ScoreBatch.future(batch(item("slow", "SLEEPS")))
    late = [stub.ScoreBatch.future(batch(item("late", "SLEEPS")), timeout=0.3) for _ in range(5)]
    assert {call.code() for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    slow.result()
    # Six sleeps one after the other would take six seconds.
    stub.ScoreBatch(batch(item("next")), timeout=1.5)


def test_a_verifier_describes_itself(stub) -> None:
    said = stub.Describe(verifier_pb2.DescribeRequest())
    assert (said.name, said.deterministic, said.idempotent) == ("lookup", True, True)
    assert (said.limits.max_items, said.limits.max_bytes, said.limits.max_items_in_flight) == (64, 2**20, 96)
    assert said.artifacts[0].simulated
    assert stub.ScoreBatch(batch(item("a"))).fingerprint == said.fingerprint


def test_the_callers_request_id_comes_back(stub) -> None:
    _, call = stub.ScoreBatch.with_call(batch(item("a")), metadata=[("x-request-id", "step-12")])
    assert ("x-request-id", "step-12") in call.trailing_metadata()


def test_metrics_count_outcomes_and_name_no_gene(service: servers.Service, stub) -> None:
    stub.ScoreBatch(batch(item("a", "AARS1", "ASNS"), item("b", "UNKNOWN")))
    text = urllib.request.urlopen(f"http://127.0.0.1:{service.metrics_port}/metrics").read().decode()
    assert 'bioverify_verifier_outcomes_total{outcome="scored",reason="",verifier="lookup"}' in text
    assert 'outcome="not_applicable",reason="unknown_gene"' in text
    assert "bioverify_verifier_work_seconds_bucket" in text
    assert 'artifact="test-table"' in text
    assert "bioverify_ready 1.0" in text
    assert "AARS1" not in text
    assert "ASNS" not in text
