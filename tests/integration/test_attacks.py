"""What was tried against the gateway, and what it said: the list of docs/security.md.

Each attack is one test, its first line is the attack's line in the table, and after each of them the gateway still
answers the one who has a right to ask. `python -m tests.integration.test_attacks` prints the table.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import sys
import time
from collections.abc import Iterator
from itertools import pairwise, repeat
from pathlib import Path

import httpx
import pytest

from bioverify.gateway.api_keys import Scope, new_key, write_keys
from tests.fixtures import servers
from tests.fixtures.gateway import RunningGateway, gateway
from tests.fixtures.servers import scratch_folder
from tests.fixtures.training import training_service
from tests.fixtures.waiting import wait_until
from tests.integration.test_gateway import item, problem

WEIGHTS = {"lookup": 1, "text": 1}
SLOW_S = 1.0
MEMORY_MB = 400
"""More than the gateway ever takes here, and far less than what the large bodies would take unpacked."""


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def running(texts: dict[str, str]) -> Iterator[RunningGateway]:
    with (
        scratch_folder() as folder,
        servers.verifier("Lookup") as lookup,
        servers.verifier("Text") as text,
        servers.verifier("Lookup", parameters={"name": "experimental"}) as experimental,
        servers.verifier("Text", parameters={"name": "format"}) as form,
        servers.aggregator(
            {
                "lookup": lookup.target,
                "text": text.target,
                "experimental": experimental.target,
                "format": form.target,
            }
        ) as aggregator,
    ):
        made = {
            "scorer": new_key("scorer", (Scope.SCORE,)),
            "other": new_key("other", (Scope.SCORE,)),
            "trainer": new_key("trainer", (Scope.TRAIN,)),
            "old": new_key("old", (Scope.ADMIN,), expires="2020-01-01T00:00:00Z"),
        }
        write_keys(folder / "keys.yaml", tuple(key for _, key in made.values()))
        texts.update({name: text for name, (text, _) in made.items()})
        (folder / "secret.json").write_text("the secret")
        with gateway(folder, aggregator.target, keys_file=folder / "keys.yaml", body_timeout_s=SLOW_S) as web:
            web.http.headers["authorization"] = f"Bearer {texts['scorer']}"
            yield web


@pytest.fixture(autouse=True)
def survives(running: RunningGateway) -> Iterator[None]:
    yield
    answer = running.http.post("/v1/score", json={"items": [item("A")], "weights": WEIGHTS})
    assert answer.status_code == 200, answer.text
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{running.process.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) / 1000 < MEMORY_MB
    assert "Traceback" not in running.log


def by(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_no_key_or_a_guessed_one(running: RunningGateway) -> None:
    """no key, an invented one, another scheme, the hash instead of the key → 401"""
    for headers in ({"authorization": ""}, by("bv_guess"), {"authorization": "Basic eDp5"}, by("0" * 64)):
        for path in ("/v1/recipes", "/v1/jobs", "/v1/runs", "/metrics"):
            problem(running.http.get(path, headers=headers), 401)


def test_a_key_of_another_scope(running: RunningGateway, texts: dict[str, str]) -> None:
    """a key for training scores; a key for scoring reads metrics and runs → 403"""
    problem(running.http.get("/v1/recipes", headers=by(texts["trainer"])), 403)
    problem(running.http.post("/v1/score", json={"items": [item("A")]}, headers=by(texts["trainer"])), 403)
    for path in ("/metrics", "/v1/runs"):
        problem(running.http.get(path, headers=by(texts["scorer"])), 403)


def test_an_expired_key(running: RunningGateway, texts: dict[str, str]) -> None:
    """a key of everything that has expired → 401"""
    problem(running.http.get("/v1/recipes", headers=by(texts["old"])), 401)


def test_a_hundred_megabytes(running: RunningGateway) -> None:
    """a body of 100 MB, its length declared or in chunks → 413, memory as before"""
    problem(running.http.post("/v1/score", content=b" " * 100_000_000), 413)

    def chunks() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 100_000

    with contextlib.suppress(httpx.WriteError):  # it may hang up before all of it is sent
        problem(running.http.post("/v1/score", content=chunks()), 413)


def test_a_body_that_drips(running: RunningGateway) -> None:
    """a body that stops after its first byte → 408, the connection closed"""
    assert b" 408 " in said_to(running, head(running, "content-length: 100") + b"{")


def test_deep_json(running: RunningGateway) -> None:
    """JSON of 100,000 nested lists, or objects, or inside a task → 422"""
    deep = 100_000
    for body in (b"[" * deep + b"]" * deep, b'{"items":' * deep + b"1" + b"}" * deep):
        problem(running.http.post("/v1/score", content=body), 422)
    task = b'{"items": [{"completion": "x", "task": ' + b"[" * deep + b"]" * deep + b"}]}"
    problem(running.http.post("/v1/score", content=task), 422)


def test_a_million_items(running: RunningGateway) -> None:
    """10^6 items in one call, plain and as gzip → 413"""
    body = b'{"items": [' + b",".join([b'{"completion": "x"}'] * 10**6) + b"]}"
    problem(running.http.post("/v1/score", content=body), 413)
    packed = gzip.compress(body, 1)
    problem(running.http.post("/v1/score", content=packed, headers={"content-encoding": "gzip"}), 413)


def test_a_gzip_bomb(running: RunningGateway) -> None:
    """100 KB of gzip that unpack to 100 MB, also packed twice or followed by another → 413 or 4xx, memory as before"""
    bomb = gzip.compress(b" " * 100_000_000)
    gzipped = {"content-encoding": "gzip"}
    problem(running.http.post("/v1/score", content=bomb, headers=gzipped), 413)
    for content in (gzip.compress(bomb), gzip.compress(b"{}") + bomb):
        assert 400 <= running.http.post("/v1/score", content=content, headers=gzipped).status_code < 500
    problem(running.http.post("/v1/score", content=bomb, headers={"content-encoding": "gzip, gzip"}), 415)


def test_paths_instead_of_job_ids(running: RunningGateway) -> None:
    """.., %2e%2e, %2f, NUL, backslashes, a full path, 5,000 letters as a job's id → 404 or 422, no byte of a file"""
    names = ("..", "%2e%2e", "..%2f..%2fsecret.json", "%2fetc%2fpasswd", "..%5c..", "%00", "0" * 5000, "%252e%252e")
    for name in names:
        for rest in ("", "/results", "/bad-lines", ":cancel"):
            answer = said_to(
                running, f"GET /v1/jobs/{name}{rest} HTTP/1.1\r\n".encode() + rest_of_head(running) + b"\r\n"
            )
            status = int(answer.split(b" ", 2)[1])
            # "/v1/jobs/.." is the list of one's own jobs to nobody: dots are not taken out of a path.
            assert status in {404, 405, 422}, (name, rest, answer[:200])
            assert b"the secret" not in answer
            assert b"root:" not in answer


def test_headers_through_the_back_door(running: RunningGateway) -> None:
    """line breaks in the request id, in query parameters and in the recipe's name → never a header of the answer"""
    injected = b"mine\r\nset-cookie: a=b"
    answer = said_to(running, head(running, "x-request-id: a\x00b") + b"\r\n")
    assert b"a\x00b" not in answer
    for path in ("/v1/jobs?recipe=%0d%0aset-cookie:%20a=b", "/%0d%0aset-cookie:%20a=b"):
        got = running.http.post(path, content=b"{}")
        assert got.status_code >= 400
        assert "set-cookie" not in got.headers
    with pytest.raises((httpx.LocalProtocolError, UnicodeEncodeError, ValueError)):
        running.http.get("/healthz", headers={"x-request-id": injected.decode()})
    smuggled = said_to(running, head(running, "x-request-id: a\r\n set-cookie: a=b") + b"\r\n")
    assert b"set-cookie" not in smuggled.lower()


def test_two_lengths_in_one_head(running: RunningGateway) -> None:
    """request smuggling: two content-lengths, or one beside chunks → 400, or the body is read by one rule"""
    second = b"GET /v1/recipes HTTP/1.1\r\nhost: x\r\n\r\n"
    doubled = head(running, f"content-length: 5\r\ncontent-length: {len(second)}") + second
    assert said_to(running, doubled).count(b"HTTP/1.1 2") == 0
    both = head(running, "transfer-encoding: chunked\r\ncontent-length: 4") + b"0\r\n\r\n" + second
    assert said_to(running, both).count(b"HTTP/1.1 2") == 0


def test_huge_headers(running: RunningGateway) -> None:
    """a header of 1 MB, and 10,000 headers → refused, the connection closed"""
    for lines in ("x-much: " + "a" * 1_000_000, "\r\n".join(f"x-{n}: a" for n in range(10_000))):
        answer = said_to(running, head(running, lines) + b"\r\n")
        assert not answer.startswith(b"HTTP/1.1 2"), answer[:100]


def test_other_peoples_jobs(running: RunningGateway, texts: dict[str, str]) -> None:
    """another's job: look, download, cancel, remove, list → 404, as if there were none"""
    sent = running.http.post("/v1/jobs?recipe=all", content=b"{}\n")
    assert sent.status_code == 202, sent.text
    job_id = sent.json()["id"]
    other = by(texts["other"])
    for method, rest in (("GET", ""), ("GET", "/results"), ("GET", "/bad-lines"), ("POST", ":cancel"), ("DELETE", "")):
        said = problem(running.http.request(method, f"/v1/jobs/{job_id}{rest}", headers=other), 404)
        unknown = problem(running.http.request(method, f"/v1/jobs/{'f' * 16}{rest}", headers=other), 404)
        assert said["detail"].replace(job_id, "") == unknown["detail"].replace("f" * 16, "")
    assert running.http.get("/v1/jobs", headers=other).json() == {"jobs": []}


def test_html_and_script_in_what_a_model_wrote(running: RunningGateway) -> None:
    """HTML and script in completion, question and ids → JSON that no browser takes for a page; inert in the pages"""
    script = "<script>alert(1)</script>"
    answer = running.http.post("/v1/score", json={"items": [item("A", script, id=script)], "weights": WEIGHTS})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    refused = running.http.get(f"/{script}")
    assert refused.headers["content-type"].startswith("application/problem+json")


def test_no_stack_trace_leaves_the_house(running: RunningGateway) -> None:
    """odd methods, odd bytes, odd numbers → a problem with a code, never a stack trace"""
    numbers = ("NaN", "1e999", "-0", "9" * 400, '"\\ud800"')
    bodies = [f'{{"items": [{{"completion": "x"}}], "weights": {{"text": {number}}}}}'.encode() for number in numbers]
    for body in (*bodies, b"\xff\xfe", b"", b"null", b'{"items": [{"completion": "\\u0000"}]}'):
        answer = running.http.post("/v1/score", content=body)
        assert answer.status_code < 500, (body, answer.text)
        assert "Traceback" not in answer.text
    for method in ("TRACE", "CONNECT", "PROPFIND"):
        assert running.http.request(method, "/v1/score").status_code in {400, 404, 405}


@pytest.fixture(scope="module")
def open_one() -> Iterator[RunningGateway]:
    """A gateway without keys, as `bioverify up` starts it, that also starts and stops runs."""
    with (
        scratch_folder() as folder,
        servers.verifier("Lookup") as lookup,
        servers.verifier("Text") as text,
        servers.aggregator({"lookup": lookup.target, "text": text.target}) as aggregator,
        training_service(folder / "runs", folder, aggregator.target) as trainer,
        gateway(folder, aggregator.target, trainer=trainer.target, runs_folder=folder / "runs") as web,
    ):
        yield web
        assert list((folder / "runs").iterdir()) == []
        assert web.http.get("/v1/jobs").json() == {"jobs": []}
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{trainer.process.pid}/status").read_text())
        assert peak is not None
        assert int(peak[1]) / 1000 < MEMORY_MB
        assert "Traceback" not in trainer.log


CALLS = (
    ("POST", "/v1/score"), ("POST", "/v1/jobs?recipe=all"), ("GET", "/v1/jobs"), ("POST", "/v1/runs"),
    ("POST", "/v1/runs/first:stop"), ("DELETE", "/v1/jobs/0123456789abcdef"),
)  # fmt: skip


def test_a_name_turned_to_this_machine(open_one: RunningGateway) -> None:
    """without keys: a foreign name in Host (DNS rebinding), two of them, none → 421"""
    for host in ("evil.example", "evil.example:50059", "127.0.0.1.evil.example", "[::1].evil", "0x7f.1"):
        for method, path in CALLS:
            answer = open_one.http.request(method, path, headers={"host": host}, content=b"{}")
            assert problem(answer, 421)["code"] == "other_host"
    for hosts in (b"", b"host: 127.0.0.1\r\nhost: evil.example\r\n"):
        raw = said_to(open_one, b"GET /v1/jobs HTTP/1.1\r\nconnection: close\r\n" + hosts + b"\r\n")
        assert int(raw.split(b" ", 2)[1]) in {400, 421}


def test_a_page_of_another_site(open_one: RunningGateway) -> None:
    """without keys: another site's page scores, sends jobs, starts and stops runs, as text, form or JSON → 403"""
    body = open_one.http.build_request("POST", "/", json={"items": [item("A")], "weights": WEIGHTS}).content
    pages = (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": open_one.url.replace("127.0.0.1", "localhost")},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    )
    for page in pages:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json"):
            for method, path in CALLS:
                answer = open_one.http.request(method, path, headers=page | {"content-type": kind}, content=body)
                assert problem(answer, 403)["code"] == "other_site"


def test_changes_of_a_run_that_grow(open_one: RunningGateway) -> None:
    """changes of a run: YAML aliases (376 letters were 254 MB), tags, JSON 200 deep, 64 long ones → 422 at once"""
    names = "abcdefghi"
    aliases = "policy.lora={a: &a [1,1,1,1,1,1,1,1,1]" + "".join(
        f", {name}: &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in pairwise(names)
    )
    grown = (
        [aliases + "}"], ["prompts=!!python/object/apply:os.system [id]"], ["prompts.lines=" + "[" * 200 + "]" * 200],
        ["prompts=" + '{"a":' * 90 + "1" + "}" * 90], ["heldout=" + "9" * 500] * 64, ["grpo.learning_rate=1e999"],
    )  # fmt: skip
    for changes in grown:
        started = time.monotonic()
        answer = open_one.http.post("/v1/runs", json={"name": "first", "recipe": "rbio1-exp", "changes": changes})
        assert len(problem(answer, 422)["detail"]) < 20_000
        assert time.monotonic() - started < 5


def test_changes_of_a_run_that_reach_out(open_one: RunningGateway) -> None:
    """changes of a run: a path or anybody's model, output and resume paths, URLs, hub keys, DeepSpeed, FSDP → 422"""
    wanted = (
        "policy.model=/etc", "policy.model=evil/model", "policy.model=../../secret", "policy={}",
        "grpo.vllm_server_base_url=http://169.254.169.254", "grpo.output_dir=/tmp/x", "grpo.resume_from_checkpoint=/x",
        "grpo.hub_token=x", "grpo.push_to_hub=true", "launcher.deepspeed={}", "launcher={}", "launcher.processes=9999",
        "grpo.fsdp=full_shard", "tracking=[]", "grpo.trust_remote_code=true", "policy.trust_remote_code=true",
    )  # fmt: skip
    for change in wanted:
        body = {"name": "first", "recipe": "rbio1-exp", "changes": [change]}
        said = problem(open_one.http.post("/v1/runs", json=body), 422)
        assert said["errors"][0]["field"].startswith("changes"), said


def test_a_head_that_drips(running: RunningGateway) -> None:
    """a head that stops, or goes on for ever with a header now and then → 408, the connection closed"""
    assert b" 408 " in said_to(running, b"GET /healthz HTTP/1.1\r\nhost: x")
    host, _, port = running.url.removeprefix("http://").rpartition(":")
    started = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=20) as connection, contextlib.suppress(ConnectionError):
        connection.settimeout(0.1)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while time.monotonic() - started < 15:
            connection.sendall(b"x: a\r\n")
            with contextlib.suppress(TimeoutError):
                if not connection.recv(65536):
                    break
    assert time.monotonic() - started < 10 * SLOW_S


def test_weights_that_are_none(running: RunningGateway) -> None:
    """weights without a name, of 1.7e308, 1,000 of them, a recipe of 1,000 terms → 422"""
    many = {f"text.c{n}": 1 for n in range(1000)}
    terms = [{"verifier": "text", "component": c, "weight": 1, "requirement": "optional"} for c in many]
    for by in ({"": 1}, {".": 1}, {"text.": 1}, {"text": 1.7e308}, {"text": -1e300}, many):
        problem(running.http.post("/v1/score", json={"items": [item("A")], "weights": by}), 422)
    problem(running.http.post("/v1/score", json={"items": [item("A")], "recipe": {"name": "r", "terms": terms}}), 422)


def test_a_line_of_200_megabytes(running: RunningGateway) -> None:
    """a job's file with one line of 200 MB, and one with a group of 5,000 lines → bad lines, memory as before"""

    def long_line() -> Iterator[bytes]:
        yield from repeat(b'{"completion": "' + b"x" * 1_000_000, 200)
        yield b'"}\n{"completion": "x"}\n'

    group = b'{"completion": "x", "group_id": "g"}\n' * 5000 + b'{"completion": "x"}\n'
    for content, bad in ((long_line(), 1), (group, 5000)):
        sent = running.http.post("/v1/jobs?recipe=rbio1-exp", content=content)
        assert sent.status_code == 202, sent.text
        job_id = sent.json()["id"]

        def ended(job_id: str = job_id) -> bool:
            return running.http.get(f"/v1/jobs/{job_id}").json()["state"] in {"done", "failed"}

        wait_until(ended, "the job has ended", 60)
        lines = running.http.get(f"/v1/jobs/{job_id}/bad-lines").text.splitlines()
        job = running.http.get(f"/v1/jobs/{job_id}").json()
        assert (job["state"], job["bad_lines"], len(lines), job["scored"] + job["unscorable"]) == ("done", bad, bad, 1)
        running.http.delete(f"/v1/jobs/{job_id}")


def head(running: RunningGateway, lines: str) -> bytes:
    return b"POST /v1/score HTTP/1.1\r\n" + rest_of_head(running) + lines.encode() + b"\r\n\r\n"


def rest_of_head(running: RunningGateway) -> bytes:
    authorization = running.http.headers["authorization"]
    return f"host: x\r\nconnection: close\r\nauthorization: {authorization}\r\n".encode()


def said_to(running: RunningGateway, sent: bytes, timeout_s: float = 20) -> bytes:
    """What comes back on a raw connection until it is closed."""
    host, _, port = running.url.removeprefix("http://").rpartition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while received := connection.recv(65536):
                answer += received
    return answer


def table() -> str:
    """The attacks as rows of a Markdown table."""
    tests = [each for name, each in globals().items() if name.startswith("test_")]
    tried = [str(test.__doc__).split(" → ") for test in tests]
    return "\n".join(["| tried | answered |", "|---|---|", *(f"| {what} | {answer} |" for what, answer in tried)])


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
