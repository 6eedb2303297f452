"""The gateway over real sockets, before a real aggregator with small verifiers."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import socket
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

from bioverify.client import Client, Message, ScoreItem
from bioverify.client.json_form import reward_json
from bioverify.gateway.api_keys import Scope, new_key, read_keys, write_keys
from bioverify.gateway.schemas import VerifierReply, VerifiersReply
from tests.fixtures import servers
from tests.fixtures.gateway import RunningGateway, gateway
from tests.fixtures.servers import scratch_folder
from tests.fixtures.waiting import wait_until

QUESTION = (
    "Is a knockdown of {} in k562 cells likely to result in differential expression of {}? "
    "The answer is either yes or no."
)
WEIGHTS = {"lookup": 2.0, "text": 0.5}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """An aggregator with two verifiers and a cache."""
    with (
        servers.verifier("Lookup") as lookup,
        servers.verifier("Text") as text,
        servers.valkey() as redis_url,
        servers.aggregator({"lookup": lookup.target, "text": text.target}, redis_url=redis_url) as running,
    ):
        yield running.target


@pytest.fixture(scope="module")
def running(target: str) -> Iterator[RunningGateway]:
    with scratch_folder() as folder, gateway(folder, target, max_items=64, max_body_bytes=200_000) as running:
        yield running


def item(
    perturbation: str, completion: str = "<think>Well.</think> <answer>yes</answer>", **more: Any
) -> dict[str, Any]:
    return {"prompt": QUESTION.format(perturbation, "ASNS"), "completion": completion, **more}


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said["status"] == status
    assert said["request_id"] == answer.headers["x-request-id"]
    return said


def test_http_gives_the_rewards_of_grpc_bit_for_bit(running: RunningGateway, target: str) -> None:
    rng = random.Random(5)
    genes = [f"GENE{rng.randrange(1000)}" for _ in range(50)]
    texts = [f"<think>{rng.random()} {gene}</think> <answer>{rng.choice(['yes', 'no'])}</answer>" for gene in genes]
    by = {"name": "both", "terms": [
        {"verifier": "lookup", "weight": 1 / 3, "requirement": "required"},
        {"verifier": "text", "weight": 0.7, "requirement": "optional"},
    ]}  # fmt: skip

    answered = running.http.post(
        "/v1/score", json={"items": [item(gene, text) for gene, text in zip(genes, texts, strict=True)], "recipe": by}
    ).json()

    from bioverify.core.recipes import Recipe

    items = [
        ScoreItem(str(index), text, [Message("user", QUESTION.format(gene, "ASNS"))])
        for index, (gene, text) in enumerate(zip(genes, texts, strict=True))
    ]
    with Client(target) as client:
        direct = client.score(items, Recipe.model_validate(by))
    told = [reward_json(reward) for reward in direct.rewards]
    for reward in (*told, *answered["rewards"]):
        for part in reward["parts"]:
            del part["from_cache"]
    assert answered["rewards"] == json.loads(json.dumps(told))
    assert all(reward["reward"] is not None for reward in answered["rewards"])


def test_one_verifier_is_asked_by_its_name(running: RunningGateway) -> None:
    body = {"items": [item("AARS1"), item("UNKNOWN")]}
    known, unknown = running.http.post("/v1/verifiers/lookup:score", json=body).json()["rewards"]
    assert known["reward"] == known["parts"][0]["value"]
    assert unknown["reward"] is None
    assert unknown["parts"][0]["outcome"] == "not_applicable"
    assert "nobody" in problem(running.http.post("/v1/verifiers/nobody:score", json=body), 404)["detail"]


def test_verifiers_are_listed_as_the_description_says(running: RunningGateway) -> None:
    listed = VerifiersReply.model_validate_json(running.http.get("/v1/verifiers").content)
    assert [verifier.name for verifier in listed.verifiers] == ["lookup", "text"]
    alone = VerifierReply.model_validate_json(running.http.get("/v1/verifiers/lookup").content)
    assert alone == listed.verifiers[0]
    assert [artifact.name for artifact in alone.artifacts] == ["test-table"]


def test_weights_stand_for_a_recipe(running: RunningGateway) -> None:
    reward = running.http.post("/v1/score", json={"items": [item("AARS1")], "weights": WEIGHTS}).json()["rewards"][0]
    assert reward["reward"] == pytest.approx(sum(p["weight"] * p["value"] for p in reward["parts"]))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"items": []}, "items"),
        ({"items": [{"prompt": "a"}]}, "items[0].completion"),
        ({"items": [item("A"), item("B", groupid="g")]}, "items[1].groupid"),
        ({"items": [item("A", task={"co_expression": {"gene_a": "A"}})]}, "items[0].task.co_expression.gene_b"),
        ({"items": [item("A", task={})]}, "items[0].task"),
        ({"items": [item("A", id="x"), item("B", id="x")], "weights": WEIGHTS}, "items[1].id"),
        ({"items": [item("A")], "weights": {"nobody": 1}}, "recipe"),
        ({"items": [item("A")], "weights": {"lookup": 1}, "recipe": "all"}, "body"),
        ({"items": [item("A")], "recipe": "no-such"}, "recipe_name"),
        ({"items": [item("A")], "deadline_s": 1e9}, "deadline_s"),
        ({"items": [item("A")], "deadline_s": -1}, "deadline_s"),
        ({"itmes": []}, "items"),
    ],
)
def test_a_wrong_field_is_named(running: RunningGateway, body: dict[str, Any], field: str) -> None:
    said = problem(running.http.post("/v1/score", json=body), 422)
    assert field in [error["field"] for error in said["errors"]], said


def test_what_is_not_json_is_refused_with_its_place(running: RunningGateway) -> None:
    assert "line 1 column" in problem(running.http.post("/v1/score", content=b'{"items": [}'), 422)["detail"]
    deep = b'{"items": ' + b"[" * 50_000
    problem(running.http.post("/v1/score", content=deep), 422)


def test_too_much_is_refused_before_it_is_read(running: RunningGateway) -> None:
    assert problem(running.http.post("/v1/score", content=b" " * 300_000), 413)["code"] == "body_too_large"
    many = {"items": [item("A", "x") for _ in range(65)], "weights": WEIGHTS}
    assert problem(running.http.post("/v1/score", json=many), 413)["code"] == "too_many_items"
    bomb = gzip.compress(b" " * 50_000_000)
    packed = running.http.post("/v1/score", content=bomb, headers={"content-encoding": "gzip"})
    assert problem(packed, 413)["code"] == "body_too_large"


def test_packed_bodies_go_both_ways(running: RunningGateway) -> None:
    body = json.dumps({"items": [item(f"G{n}") for n in range(20)], "weights": WEIGHTS}).encode()
    answer = running.http.post("/v1/score", content=gzip.compress(body), headers={"content-encoding": "gzip"})
    assert len(answer.json()["rewards"]) == 20
    assert answer.headers["content-encoding"] == "gzip"
    assert problem(running.http.post("/v1/score", content=body, headers={"content-encoding": "br"}), 415)[
        "detail"
    ].startswith("content-encoding")
    torn = gzip.compress(body)[:-20]
    problem(running.http.post("/v1/score", content=torn, headers={"content-encoding": "gzip"}), 400)


def test_a_body_that_does_not_come_is_not_waited_for(target: str) -> None:
    with scratch_folder() as folder, gateway(folder, target, body_timeout_s=0.5) as running:
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"POST /v1/score HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{")
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")


def test_what_is_held_already_is_not_sent_again(running: RunningGateway) -> None:
    first = running.http.get("/v1/recipes")
    assert any(recipe["name"] == "all" for recipe in first.json()["recipes"])
    again = running.http.get("/v1/recipes", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_answer_has_safe_headers_and_a_clean_request_id(running: RunningGateway) -> None:
    for path in ("/", "/healthz", "/v1/verifiers", "/nothing-here"):
        answer = running.http.get(path, headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    forged = running.http.get("/healthz", headers={"x-request-id": "a b<script>"}).headers["x-request-id"]
    assert forged.isalnum()


def test_without_an_aggregator_it_lives_but_is_not_ready(tmp_path: Path) -> None:
    with gateway(tmp_path, "127.0.0.1:9") as running:
        assert running.http.get("/healthz").is_success
        assert problem(running.http.get("/readyz"), 503)["code"] == "aggregator_unavailable"
        answer = running.http.post("/v1/score", json={"items": [item("A")]})
        assert problem(answer, 503)["code"] == "aggregator_unavailable"
        assert answer.headers["retry-after"]


@pytest.fixture(scope="module")
def keys_file() -> Iterator[Path]:
    with scratch_folder() as folder:
        yield folder / "keys.yaml"


@pytest.fixture(scope="module")
def texts(keys_file: Path) -> dict[str, str]:
    made = {
        "scorer": new_key("scorer", (Scope.SCORE,), items_per_day=10),
        "slow": new_key("slow", (Scope.SCORE,), requests_per_minute=2),
        "trainer": new_key("trainer", (Scope.TRAIN,)),
        "both": new_key("both", (Scope.SCORE, Scope.TRAIN)),
        "boss": new_key("boss", (Scope.ADMIN,)),
        "old": new_key("old", (Scope.ADMIN,), expires="2020-01-01T00:00:00Z"),
    }
    write_keys(keys_file, tuple(key for _, key in made.values()))
    assert all(text not in keys_file.read_text() for text, _ in made.values())
    assert keys_file.stat().st_mode & 0o077 == 0
    return {name: text for name, (text, _) in made.items()}


@pytest.fixture(scope="module")
def guarded(target: str, keys_file: Path, texts: dict[str, str]) -> Iterator[RunningGateway]:
    with scratch_folder() as folder, gateway(folder, target, keys_file=keys_file) as running:
        yield running


class TestKeys:
    @staticmethod
    def by(text: str) -> dict[str, str]:
        return {"authorization": f"Bearer {text}"}

    def test_without_a_good_key_nothing_is_told(self, guarded: RunningGateway, texts: dict[str, str]) -> None:
        for headers in ({}, self.by("bv_wrong"), {"authorization": "Basic eDp5"}, self.by(texts["old"])):
            for path in (
                "/v1/verifiers",
                "/v1/recipes",
                "/v1/jobs",
                "/v1/jobs/0123456789abcdef",
                "/v1/runs",
                "/metrics",
            ):
                answer = guarded.http.get(path, headers=headers)
                assert problem(answer, 401)["code"] == "unauthorised"
                assert answer.headers["www-authenticate"] == "Bearer"
        assert guarded.http.get("/healthz").is_success
        assert guarded.http.get("/").is_success

    def test_a_key_does_what_its_scope_says(self, guarded: RunningGateway, texts: dict[str, str]) -> None:
        assert guarded.http.get("/v1/verifiers", headers=self.by(texts["scorer"])).is_success
        assert problem(guarded.http.get("/v1/runs", headers=self.by(texts["scorer"])), 403)["code"] == "scope_missing"
        assert guarded.http.get("/v1/runs", headers=self.by(texts["trainer"])).is_success
        problem(guarded.http.get("/v1/verifiers", headers=self.by(texts["trainer"])), 403)
        problem(guarded.http.get("/metrics", headers=self.by(texts["trainer"])), 403)
        assert "bioverify_http_requests" in guarded.http.get("/metrics", headers=self.by(texts["boss"])).text

    def test_rates_and_quotas_end_with_429(self, guarded: RunningGateway, texts: dict[str, str]) -> None:
        six = {"items": [item(f"G{n}") for n in range(6)], "weights": WEIGHTS}
        assert guarded.http.post("/v1/score", json=six, headers=self.by(texts["scorer"])).is_success
        answer = guarded.http.post("/v1/score", json=six, headers=self.by(texts["scorer"]))
        assert problem(answer, 429)["code"] == "quota_exceeded"
        assert int(answer.headers["retry-after"]) > 0
        statuses = [guarded.http.get("/v1/recipes", headers=self.by(texts["slow"])).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]

    def test_keys_change_without_a_restart(
        self, guarded: RunningGateway, keys_file: Path, texts: dict[str, str]
    ) -> None:
        text, key = new_key("late", (Scope.SCORE,))
        keys = read_keys(keys_file)
        problem(guarded.http.get("/v1/recipes", headers=self.by(text)), 401)
        write_keys(keys_file, (*keys, key))
        assert guarded.http.get("/v1/recipes", headers=self.by(text)).is_success
        keys_file.write_text("keys: [{")
        assert guarded.http.get("/v1/recipes", headers=self.by(text)).is_success
        assert "still using the previous keys" in guarded.log
        write_keys(keys_file, keys)
        problem(guarded.http.get("/v1/recipes", headers=self.by(text)), 401)

    def test_somebody_elses_job_is_no_job(self, guarded: RunningGateway, texts: dict[str, str]) -> None:
        sent = guarded.http.post("/v1/jobs", content=b"{}\n", headers=self.by(texts["boss"]))
        job_id = sent.json()["id"]
        problem(guarded.http.get(f"/v1/jobs/{job_id}", headers=self.by(texts["scorer"])), 404)
        assert guarded.http.get("/v1/jobs", headers=self.by(texts["scorer"])).json() == {"jobs": []}
        assert guarded.http.get(f"/v1/jobs/{job_id}", headers=self.by(texts["boss"])).is_success

    def test_the_scope_train_opens_nobodys_jobs(self, guarded: RunningGateway, texts: dict[str, str]) -> None:
        by = {name: self.by(texts[name]) for name in ("scorer", "both")}
        theirs = guarded.http.post("/v1/jobs", content=b"{}\n", headers=by["scorer"]).json()["id"]
        mine = guarded.http.post("/v1/jobs", content=b"{}\n", headers=by["both"]).json()["id"]
        seen = {job["id"] for job in guarded.http.get("/v1/jobs", headers=by["both"]).json()["jobs"]}
        assert (mine in seen, theirs in seen) == (True, False)
        for way, path in (("GET", ""), ("POST", ":cancel"), ("DELETE", ""), ("GET", "/results"), ("GET", "/bad-lines")):
            problem(guarded.http.request(way, f"/v1/jobs/{theirs}{path}", headers=by["both"]), 404)
        assert guarded.http.get(f"/v1/jobs/{mine}", headers=by["both"]).is_success

    def test_the_log_names_who_called_and_no_key(self, guarded: RunningGateway, texts: dict[str, str]) -> None:
        guarded.http.get("/v1/recipes", headers=self.by(texts["boss"]))
        deadline = time.monotonic() + 10
        while '"key": "boss"' not in guarded.log and time.monotonic() < deadline:
            time.sleep(0.05)
        assert '"key": "boss"' in guarded.log
        assert not any(text in guarded.log for text in texts.values())


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "0", "[::]"])
def test_it_does_not_stand_open_to_a_network(tmp_path: Path, everywhere: str) -> None:
    with (
        pytest.raises(AssertionError, match="others could call it without a key"),
        gateway(tmp_path, "127.0.0.1:9", listen=f"{everywhere}:{servers.free_port()}"),
    ):
        pass


@pytest.mark.parametrize("own", ["127.1", "LOCALHOST"])
def test_loopback_is_loopback_however_it_is_written(tmp_path: Path, own: str) -> None:
    port = servers.free_port()
    with gateway(tmp_path, "127.0.0.1:9", listen=f"{own}:{port}") as running:
        for host in (f"{own}:{port}", f"127.0.0.1:{port}"):
            assert running.http.get("/healthz", headers={"host": host}).json() == {"ready": True}
        problem(running.http.get("/healthz", headers={"host": "evil.example"}), 421)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"items": [item("A")], "weights": {"": 1}}, "weights"),
        ({"items": [item("A")], "weights": {".x": 1}}, "weights"),
        ({"items": [item("A")], "weights": {"text.": 1}}, "weights"),
        ({"items": [item("A")], "weights": {"text": 1.7e308}}, "weights"),
        ({"items": [item("A")], "weights": {f"v{n}": 1 for n in range(257)}}, "weights"),
        ({"items": [item("A")], "recipe": {"name": "r", "terms": [
            {"verifier": "text", "component": f"c{n}", "weight": 1, "requirement": "optional"} for n in range(257)
        ]}}, "recipe"),
        ({"items": [item("A", id="1"), item("B")], "weights": WEIGHTS}, "items[1].id"),
        ({"items": [item("A"), item("B", id=0)], "weights": WEIGHTS}, "items[1].id"),
    ],
)  # fmt: skip
def test_what_would_be_a_fault_of_the_gateway_is_a_wrong_field(
    running: RunningGateway, body: dict[str, Any], field: str
) -> None:
    said = problem(running.http.post("/v1/score", json=body), 422)
    assert any(error["field"].startswith(field) for error in said["errors"]), said


def test_an_id_that_is_given_twice_by_nobody_is_no_reason_to_refuse(running: RunningGateway) -> None:
    items = [item("A", id="2"), item("B", id="b"), item("C", id=7)]
    told = running.http.post("/v1/score", json={"items": items, "weights": WEIGHTS}).json()
    assert [reward["id"] for reward in told["rewards"]] == ["2", "b", "7"]
    unnamed = running.http.post("/v1/score", json={"items": [item("A"), item("B")], "weights": WEIGHTS}).json()
    assert [reward["id"] for reward in unnamed["rewards"]] == ["0", "1"]


def test_calls_that_wait_for_a_verifier_hold_up_neither_health_nor_lists_nor_their_own_clock() -> None:
    # Long enough that two busy cores have all of them under way before the first one ends.
    at_once, deadline_s = 60, 4.0
    with (
        scratch_folder() as folder,
        servers.verifier("Text", parameters={"delay_s": 2 * deadline_s}) as slow,
        servers.aggregator({"text": slow.target}) as aggregator,
        gateway(folder, aggregator.target) as running,
        futures.ThreadPoolExecutor(at_once) as pool,
    ):

        def call(number: int) -> tuple[int, float]:
            body = {"items": [item("A", f"{number}")], "weights": {"text": 1}, "deadline_s": deadline_s}
            started = time.monotonic()
            answer = running.http.post("/v1/score", json=body)
            return answer.status_code, time.monotonic() - started

        asked = [pool.submit(call, number) for number in range(at_once)]
        wait_until(lambda: in_flight(running) >= at_once, "all calls are under way", 20)
        for path in ("/healthz", "/readyz", "/v1/recipes", "/v1/verifiers"):
            started = time.monotonic()
            running.http.get(path).raise_for_status()
            assert time.monotonic() - started < 1.0, path
        answered = [one.result() for one in asked]
        # The slowest waited for the clients' connections and threads on two busy cores, not for forty others.
        assert max(seconds for _, seconds in answered) < deadline_s + 4, answered
        assert {status for status, _ in answered} <= {200, 504}


def in_flight(running: RunningGateway) -> float:
    lines = running.http.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("bioverify_http_in_flight ")))


def test_a_head_that_does_not_come_to_an_end_is_not_waited_for(target: str) -> None:
    with scratch_folder() as folder, gateway(folder, target, body_timeout_s=0.5) as running:
        host, port = running.url.removeprefix("http://").split(":")
        address = (host, int(port))
        whole = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
        for answered, begun in ((b"", b""), (b"", b"GET /healthz HTTP/1.1\r\nhost: 127"), (whole, b"GET /he")):
            with socket.create_connection(address, timeout=20) as connection:
                connection.sendall(answered)
                if answered:
                    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
                connection.sendall(begun)
                answer = b""
                while received := connection.recv(65536):
                    answer += received
                assert b"HTTP/1.1 408" in answer, (begun, answer)
                assert answer.endswith(b"the head did not come in time")
        # One that drips a header now and then has no more time than one that says nothing.
        with socket.create_connection(address, timeout=20) as connection, contextlib.suppress(ConnectionError):
            started = time.monotonic()
            connection.sendall(b"GET / HTTP/1.1\r\n")
            while time.monotonic() - started < 15:
                connection.sendall(b"x-more: a\r\n")
                connection.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    if connection.recv(1):
                        break
            assert time.monotonic() - started < 10
        assert running.http.get("/healthz").is_success
