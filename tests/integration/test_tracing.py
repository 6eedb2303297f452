"""Traces of real processes at a real OTLP receiver, and what they tie together: spans, logs, measurements."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bioverify.client import Client
from tests.fixtures import rewards, servers, traces
from tests.fixtures.gateway import gateway
from tests.fixtures.servers import scratch_folder
from tests.fixtures.traces import ReceivedSpan, Receiver

SERVER, CLIENT = 2, 3
QUESTION = "Is a knockdown of {} in k562 cells likely to result in differential expression of ASNS?"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """The processes that are started from here on send their spans to it."""
    with traces.receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield received


def openmetrics(port: int) -> str:
    wanted = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    text: str = urllib.request.urlopen(wanted).read().decode()
    return text


def children(of: ReceivedSpan, spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
    return [span for span in spans if span.parent_id == of.span_id]


def test_one_http_request_is_one_trace_through_gateway_aggregator_and_verifiers(receiver: Receiver) -> None:
    ports = [servers.free_port() for _ in range(2)]
    with (
        servers.verifier("Lookup", metrics_port=ports[0]) as lookup,
        servers.verifier("Text") as text,
        servers.valkey() as redis_url,
        servers.aggregator(
            {"lookup": lookup.target, "text": text.target}, redis_url=redis_url, metrics_port=ports[1]
        ) as aggregator,
        scratch_folder() as folder,
        gateway(folder, aggregator.target) as gate,
    ):
        items = [{"prompt": QUESTION.format(gene), "completion": "<answer>yes</answer>"} for gene in ("A", "RAISES")]
        answer = gate.http.post("/v1/score", json={"items": items, "weights": {"lookup": 1, "text": 1}})
        assert answer.status_code == 200
        request_id = answer.headers["x-request-id"]
        spans = receiver.wait_for(lambda spans: len(spans) >= 9)
        [verifier_log] = lookup.log_lines("scoring an item raised")
        exemplars = {
            name: [
                sample.exemplar.labels["trace_id"]
                for family in text_string_to_metric_families(openmetrics(port))
                for sample in family.samples
                if sample.name == f"{name}_bucket" and sample.exemplar
            ]
            for name, port in (("bioverify_verifier_work_seconds", ports[0]), ("bioverify_rpc_seconds", ports[1]))
        }
        gateway_log = [json.loads(line) for line in gate.log.splitlines() if line.startswith("{")]

    assert len({span.trace_id for span in spans}) == 1, "\n".join(map(str, spans))
    trace_id = spans[0].trace_id
    [root] = [span for span in spans if not span.parent_id]
    assert (root.service, root.kind) == ("bioverify-gateway", SERVER)
    assert (root.name, root.told) == ("POST /v1/score", {"request_id": request_id, "status": 200})
    [asking] = children(root, spans)
    assert (asking.service, asking.name, asking.kind) == ("bioverify-gateway", "score", CLIENT)
    [rewarding] = children(asking, spans)
    assert (rewarding.service, rewarding.name) == ("bioverify-aggregator", "ScoreBatch")
    assert rewarding.told["recipe"] == "weights"
    assert (rewarding.told["items"], rewarding.told["unscorable"]) == (2, 0)
    by_verifier = {span.told["verifier"]: span for span in children(rewarding, spans)}
    assert by_verifier.keys() == {"lookup", "text"}
    for name, asked in by_verifier.items():
        [call] = children(asked, spans)
        assert (call.service, call.kind) == ("bioverify-aggregator", CLIENT)
        [scoring] = children(call, spans)
        assert (scoring.service, scoring.kind) == ("bioverify-verifier", SERVER)
        assert scoring.told["verifier"] == name
        assert scoring.told["work_seconds"] > 0

    # The same trace is in the logs, and beside the measurements.
    assert verifier_log["trace_id"] == trace_id
    assert [line["trace_id"] for line in gateway_log if line["event"] == "request" and line["path"] == "/v1/score"] == [
        trace_id
    ]
    assert set(exemplars["bioverify_verifier_work_seconds"]) == {trace_id}
    assert set(exemplars["bioverify_rpc_seconds"]) == {trace_id}


def test_cache_hits_and_a_verifier_that_is_gone_are_told_of_the_span(receiver: Receiver) -> None:
    recipe = rewards.recipe(rewards.optional("lookup"), rewards.optional("text"))
    with (
        servers.verifier("Lookup") as lookup,
        servers.verifier("Text") as text,
        servers.valkey() as redis_url,
        servers.aggregator({"lookup": lookup.target, "text": text.target}, redis_url=redis_url) as aggregator,
        Client(aggregator.target) as client,
    ):
        client.score([rewards.item("1")], recipe)
        text.kill()
        client.score([rewards.item("1"), rewards.item("2", "C")], recipe)
        spans = receiver.wait_for(lambda spans: sum(span.name == "ask text" for span in spans) == 2)

    hits = [span.told["cache_hits"] for span in spans if span.name == "ask lookup"]
    assert hits == [0, 1]
    [gone] = [span for span in spans if span.name == "ask text" and span.failed]
    assert gone.told["reason"] in {"unavailable", "breaker_open"}


def test_a_refused_call_says_why_in_its_span(receiver: Receiver) -> None:
    with servers.verifier("Lookup") as lookup, servers.aggregator({"lookup": lookup.target}) as aggregator:
        with Client(aggregator.target) as client, pytest.raises(Exception, match="is not known"):
            client.score([rewards.item("1")], "no-such-recipe")
        [span] = receiver.wait_for(lambda spans: bool(spans))
    assert span.failed
    assert span.told["reason"] == "invalid_request"


def test_a_collector_that_is_gone_costs_neither_rewards_nor_an_orderly_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{servers.free_port()}")
    with servers.verifier("Lookup") as lookup, servers.aggregator({"lookup": lookup.target}) as aggregator:
        with Client(aggregator.target) as client:
            batch = client.score([rewards.item("1")], rewards.recipe(rewards.required("lookup")))
            assert batch.rewards[0].reward is not None
        started = time.monotonic()
        for service in (aggregator, lookup):
            service.process.send_signal(signal.SIGTERM)
        assert [service.process.wait(10) for service in (aggregator, lookup)] == [0, 0]
        assert time.monotonic() - started < 5


def test_without_the_variables_nothing_is_sent_and_no_line_names_a_trace() -> None:
    with servers.verifier("Lookup") as lookup, servers.aggregator({"lookup": lookup.target}) as aggregator:
        with Client(aggregator.target) as client:
            client.score([rewards.item("1", "RAISES")], rewards.recipe(rewards.required("lookup")))
        [line] = lookup.log_lines("scoring an item raised")
    assert "trace_id" not in line
