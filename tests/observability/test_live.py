"""The whole stack under load before a real Prometheus: every query has an answer, every fault its alert, and an end.

Time runs twenty times faster in the rules (`tests.fixtures.prometheus.faster`), which otherwise are the shipped ones.
The answers to the dashboards' queries are kept in reports/observability/*.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from bioverify.artifacts import genes
from bioverify.artifacts.store import ArtifactStore
from bioverify.client import Client, ClientError, ScoreItem
from bioverify.core.recipes import Recipe, Requirement, Term
from bioverify.core.tasks import DifferentialExpression
from bioverify.v1 import types_pb2, verifier_pb2, verifier_pb2_grpc
from bioverify.verifiers.esm_mlp import build as esm_mlp
from tests.fault.system import AGGREGATOR, VALKEY, Program, System
from tests.fixtures import servers, traces
from tests.fixtures.artifacts import FEW, bundled_sources, silent
from tests.fixtures.gateway import RunningGateway, gateway
from tests.fixtures.prometheus import Prometheus, prometheus
from tests.fixtures.servers import ROOT, Service, free_port
from tests.fixtures.traces import Receiver
from tests.observability.test_rules import RULES, alerts

pytestmark = [pytest.mark.observability, pytest.mark.timeout(900)]

REPORTS = ROOT / "reports/observability"
GENES = ("AARS", "TRIB3", "ASNS", "DDIT3", "GATA1", "HBG1")
RAISES = types_pb2.DifferentialExpression(perturbation="RAISES", measured_gene="B", cell_line="k562")
TWICE = "esm_mlp"
"""Has two replicas."""
NEEDS_ROUGE = Recipe(
    name="needs-rouge",
    terms=(
        Term(verifier="format", weight=1, requirement=Requirement.REQUIRED),
        Term(verifier="go_rouge", weight=1, requirement=Requirement.REQUIRED),
    ),
)


@dataclass
class Watched:
    """The stack, and who watches it. ``raising``: a verifier with a fault in its code, asked by its own test alone."""

    system: System
    raising: Service
    gateway: RunningGateway
    prometheus: Prometheus
    traces: Receiver


def items(turn: int) -> list[ScoreItem]:
    """Half of them new in each turn, half known to the cache."""
    return [
        ScoreItem(
            f"{turn}-{index}",
            f"<think>{GENES[index % 6]} and item {index if index % 2 else turn}.</think><answer>yes</answer>",
            task=DifferentialExpression(GENES[index % 6], GENES[(index + 1) % 6], "k562"),
            group_id=f"{turn}-{index // 4}",
        )
        for index in range(16)
    ]


def load(target: str, gate: RunningGateway, ended: threading.Event) -> None:
    """Calls by gRPC and HTTP, four a second, whatever becomes of them."""
    turn = 0
    with Client(target) as client:
        while not ended.wait(0.5):
            turn += 1
            for recipe in ("all", NEEDS_ROUGE):
                with contextlib.suppress(ClientError):
                    client.score(items(turn), recipe, deadline_s=5)
            body = {"items": [{"completion": f"<think>{turn}</think><answer>no</answer>"}], "deadline_s": 5}
            gate.http.post("/v1/score", json=body)


@contextlib.contextmanager
def training(folder: Path, preset: dict[str, Any], store: ArtifactStore, target: str, listen: str) -> Iterator[None]:
    """A real run of a tiny policy, with the recipe that asks the experiment."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(preset))
    command = [sys.executable, "-m", "bioverify_trainer", "train", "rbio1-exp", "--preset", str(folder / "tiny.yaml")]
    command += ["--target", target, "--output", str(folder / "run"), "--metrics-listen", listen]
    environment = os.environ | {"BIOVERIFY_HOME": str(store.root.parent), "OMP_NUM_THREADS": "1"}
    with (folder / "training.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
    try:
        yield
        assert process.poll() is None, (folder / "training.log").read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def watched(store: ArtifactStore, tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    ended = threading.Event()
    trainer = f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        receiver = stack.enter_context(traces.receiver())
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        system = stack.enter_context(System(store, twice=TWICE))
        raising = stack.enter_context(servers.verifier("Lookup", metrics_port=free_port()))
        verifiers: list[Program | Service] = [*system.verifiers, raising]
        gate = stack.enter_context(gateway(folder, system.aggregator.target))
        jobs = {
            "bioverify-aggregator": [f"127.0.0.1:{system.aggregator.metrics_port}"],
            "bioverify-verifier": [f"127.0.0.1:{one.metrics_port}" for one in verifiers],
            "bioverify-gateway": [gate.url.removeprefix("http://")],
            "bioverify-trainer": [trainer],
        }
        watching = stack.enter_context(prometheus(jobs))
        stack.enter_context(training(folder, _tiny(tiny_policy), store, system.aggregator.target, trainer))
        loading = threading.Thread(target=load, args=(system.aggregator.target, gate, ended))
        loading.start()
        stack.callback(loading.join)
        stack.callback(ended.set)
        # A training that finds a verifier away when it begins does not begin.
        stepped = "bioverify_training_last_step_timestamp_seconds"
        until(lambda: bool(watching.query(stepped)), lambda: "no step of the training")
        yield Watched(system, raising, gate, watching, receiver)


def _tiny(policy: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "policy": {"model": str(policy), "dtype": "float32"},
        "grpo": {
            "max_steps": 1_000_000,
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 8,
            "learning_rate": 1e-5,
            "lr_scheduler_type": "constant",
            "save_steps": 1_000_000,
            "bf16": False,
            "activation_checkpointing": False,
            "use_cpu": True,
        },
        "rewards": {"deadline_s": 5},
    }


def until(holds: Callable[[], bool], what: Callable[[], str], timeout_s: float = 240) -> float:
    """The seconds that it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < timeout_s, f"not within {timeout_s:g} s: {what()}"
        time.sleep(0.5)
    return time.monotonic() - started


def queries(dashboard: Path) -> Iterator[tuple[str, str, str]]:
    """Panel, legend and PromQL of each query, with Grafana's variables filled in as Grafana would."""
    for panel in json.loads(dashboard.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "20s").replace("$verifier", ".*")
            yield panel["title"], target["legendFormat"], expression


@pytest.mark.parametrize("name", ["service", "cache", "training"])
def test_every_query_of_a_dashboard_has_an_answer_from_the_running_stack(watched: Watched, name: str) -> None:
    answers: dict[str, Any] = {}
    asked = list(queries(ROOT / f"k8s/dashboards/{name}.json"))
    assert asked

    def all_answered() -> bool:
        for panel, legend, expression in asked:
            if not answers.get(f"{panel}: {legend}"):
                answers[f"{panel}: {legend}"] = watched.prometheus.query(expression)
        return all(answers.values())

    until(all_answered, lambda: f"without an answer: {[key for key, found in answers.items() if not found]}")
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / f"{name}.json").write_text(json.dumps(answers, indent=1) + "\n")


def test_a_point_of_the_latency_panel_leads_to_a_trace_through_the_stack(watched: Watched) -> None:
    found = watched.prometheus.exemplars("bioverify_http_seconds_bucket")
    spans = watched.traces.spans
    services = {trace_id: {span.service for span in spans if span.trace_id == trace_id} for trace_id in found}
    assert any(
        {"bioverify-gateway", "bioverify-aggregator", "bioverify-format"} <= seen for seen in services.values()
    ), services


def fires_and_ends(watched: Watched, expected: set[str], begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Others may fire beside them: on a busy machine calls are slow indeed."""
    until(lambda: not expected & watched.prometheus.firing(), lambda: f"before: {watched.prometheus.firing()}")
    begin()
    seen: set[str] = set()

    def all_fired() -> bool:
        seen.update(watched.prometheus.firing())
        return expected <= seen

    fired_s = until(all_fired, lambda: f"{expected - seen} of {expected}; firing: {watched.prometheus.firing()}")
    end()
    ended_s = until(
        lambda: not expected & watched.prometheus.firing(),
        lambda: f"still firing: {watched.prometheus.firing()}",
    )
    REPORTS.mkdir(parents=True, exist_ok=True)
    with (REPORTS / "alerts.jsonl").open("a") as file:
        record = {"alerts": sorted(expected), "fired_after_s": round(fired_s, 1), "ended_after_s": round(ended_s, 1)}
        file.write(json.dumps(record) + "\n")


def fires_while(watched: Watched, expected: set[str], fault: Callable[[threading.Event], None]) -> None:
    """``fault`` goes on until its event is set; what it raises fails the test."""
    ended = threading.Event()
    going_on: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:
        try:
            fires_and_ends(watched, expected, lambda: going_on.append(pool.submit(fault, ended)), ended.set)
        finally:
            ended.set()
        for one in going_on:
            one.result()


def test_a_verifier_that_stalls_for_seconds_burns_the_budget_of_latency(watched: Watched) -> None:
    """Calls wait longer than is promised, but most of them not as long as their deadline, and so they do not fail.

    It comes first: the calls that were fast before count against it for an hour of the rules.
    """
    verifier = watched.system.programs["format"]  # every recipe asks it

    def stall(ended: threading.Event) -> None:
        while not ended.wait(0.3):
            verifier.send(signal.SIGSTOP)
            ended.wait(3.5)
            verifier.send(signal.SIGCONT)

    fires_while(watched, {"BioverifyLatencyBudgetBurn"}, stall)


def test_a_verifier_that_is_killed_pages_and_its_return_ends_that(watched: Watched) -> None:
    verifier = watched.system.programs["go_rouge"]
    expected = {
        "BioverifyVerifierDown go_rouge",
        "BioverifyBreakerOpen go_rouge",
        "BioverifyUnscorableRows",
    }
    fires_and_ends(watched, expected, lambda: verifier.end(signal.SIGKILL), watched.system.start_all)
    # Its long windows outlast the fault by far.
    until(lambda: "BioverifyRewardBudgetBurn" in watched.prometheus.firing(), lambda: "no budget burnt")


def test_a_cache_that_is_gone_makes_a_ticket_and_no_page(watched: Watched) -> None:
    cache = watched.system.programs[VALKEY]
    fires_and_ends(watched, {"BioverifyCacheDown"}, lambda: cache.end(signal.SIGKILL), watched.system.start_all)


def test_without_an_aggregator_gateway_and_training_speak_up_too(watched: Watched) -> None:
    aggregator = watched.system.programs[AGGREGATOR]
    expected = {"BioverifyAggregatorDown", "BioverifyGatewayErrors", "BioverifyTrainingStalled"}
    fires_and_ends(watched, expected, lambda: aggregator.end(signal.SIGKILL), watched.system.start_all)


def test_replicas_with_different_artifacts_page_until_they_are_of_one_again(watched: Watched, tmp_path: Path) -> None:
    other = ArtifactStore(tmp_path / "artifacts")
    genes.build(other, bundled_sources(tmp_path), progress=silent)
    esm_mlp.build(other, bundled_sources(tmp_path), progress=silent, settings=FEW.model_copy(update={"steps": 1}))
    replica = watched.system.programs[f"{TWICE}-2"]

    def restart(environment: dict[str, str]) -> None:
        replica.end(signal.SIGTERM)
        replica.extra_env = environment
        watched.system.start_all()

    fires_and_ends(
        watched,
        {f"BioverifyArtifactMismatch {TWICE}"},
        lambda: restart({"BIOVERIFY_HOME": str(tmp_path)}),
        lambda: restart({}),
    )


def test_a_verifier_that_raises_makes_a_ticket(watched: Watched) -> None:
    item = types_pb2.Item(id="1", task=types_pb2.Task(differential_expression=RAISES), completion="")
    request = verifier_pb2.VerifierServiceScoreBatchRequest(items=[item])

    def ask(ended: threading.Event) -> None:
        with grpc.insecure_channel(watched.raising.target) as channel:
            stub = verifier_pb2_grpc.VerifierServiceStub(channel)
            while not ended.wait(0.5):
                [outcome] = stub.ScoreBatch(request, timeout=5).outcomes
                assert outcome.failure.reason == "internal"

    fires_while(watched, {"BioverifyVerifierRaises lookup"}, ask)


def test_every_series_that_an_alert_looks_at_has_been_there(watched: Watched) -> None:
    """The faults of before made them."""
    looked_at = {
        found[0] for path in RULES for found in re.finditer(r"\b(?:bioverify_\w+|up)(?:\{[^}]*\})?", path.read_text())
    }
    assert len(looked_at) > 15
    missing = [one for one in sorted(looked_at) if not watched.prometheus.query(f"last_over_time({one}[30m])")]
    # A call that ends with an error of ours needs an aggregator that is overloaded or broken: promtool's tests have it.
    assert [one for one in missing if "rpc_calls" not in one] == []
    assert len(alerts()) == 15
