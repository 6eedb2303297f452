"""A gateway without keys, and who is local to it: programs and its own pages, not the pages of other sites."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bioverify import ports
from bioverify.gateway.config import GatewayConfig
from bioverify.transport.addresses import is_loopback
from tests.fixtures import servers
from tests.fixtures.gateway import RunningGateway, gateway
from tests.fixtures.servers import scratch_folder
from tests.integration.test_gateway import item, problem

ROOT = Path(__file__).parents[2]
BODY = {"items": [item("A")], "recipe": "rbio1-exp"}
FRIEND = "https://lab.example.org"


@pytest.fixture(scope="module")
def running() -> Iterator[RunningGateway]:
    with (
        scratch_folder() as folder,
        servers.verifier("Lookup", parameters={"name": "experimental"}) as lookup,
        servers.verifier("Text", parameters={"name": "format"}) as text,
        servers.aggregator({"experimental": lookup.target, "format": text.target}) as aggregator,
        gateway(folder, aggregator.target, allowed_hosts=["rewards.lab"], cors_origins=[FRIEND]) as web,
    ):
        yield web


def own(running: RunningGateway) -> str:
    return running.url.removeprefix("http://")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "10.0.0.7", "x"]
)
def test_a_name_that_somebody_turned_to_this_machine_is_refused(running: RunningGateway, host: str) -> None:
    for path in ("/v1/jobs", "/v1/recipes", "/", "/healthz"):
        assert problem(running.http.get(path, headers={"host": host}), 421)["code"] == "other_host"
    problem(running.http.post("/v1/score", json=BODY, headers={"host": host}), 421)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:50059", "127.0.0.1:1", "[::1]:50059", "rewards.lab", "Rewards.Lab.:80"]
)
def test_its_own_address_localhost_and_the_names_it_is_told_of_are_its_own(running: RunningGateway, host: str) -> None:
    assert running.http.get("/v1/recipes", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:8888"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"origin": "http://evil.example", "sec-fetch-site": "none"},
    ],
)
@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded", ""])
def test_another_sites_page_is_refused_whatever_it_sends(
    running: RunningGateway, headers: dict[str, str], kind: str
) -> None:
    sent = headers | ({"content-type": kind} if kind else {})
    body = running.http.build_request("POST", "/", json=BODY).content
    for path in ("/v1/score", "/v1/jobs?recipe=all", "/v1/runs", "/v1/runs/first:stop", "/v1/verifiers/format:score"):
        assert problem(running.http.post(path, content=body, headers=sent), 403)["code"] == "other_site"
    problem(running.http.get("/v1/jobs", headers=headers), 403)
    problem(running.http.delete("/v1/jobs/0123456789abcdef", headers=headers), 403)


def test_its_own_pages_and_those_it_is_told_of_may_ask_and_in_json(running: RunningGateway) -> None:
    for origin, site in ((running.url, "same-origin"), (FRIEND, "cross-site")):
        headers = {"origin": origin, "sec-fetch-site": site, "sec-fetch-mode": "cors"}
        assert running.http.post("/v1/score", json=BODY, headers=headers).status_code == 200
        assert running.http.get("/v1/jobs", headers=headers).status_code == 200
        plain = running.http.post("/v1/score", content=b"{}", headers=headers | {"content-type": "text/plain"})
        assert problem(plain, 415)["code"] == "not_json"
        # Without a body there is nothing to be of a kind.
        problem(running.http.post("/v1/jobs/0123456789abcdef:cancel", headers=headers), 404)
    preflight = {"origin": FRIEND, "access-control-request-method": "POST"}
    assert running.http.options("/v1/score", headers=preflight).status_code == 200


def test_a_link_from_anywhere_leads_to_a_page_and_to_no_data(running: RunningGateway) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert running.http.get("/", headers=link).status_code == 200
    assert running.http.get("/runs.html", headers=link).status_code == 200
    problem(running.http.get("/v1/recipes", headers=link), 403)
    problem(running.http.post("/", headers=link), 403)


def test_the_documented_curl_lines_work(running: RunningGateway) -> None:
    documented = (ROOT / "docs/http.md").read_text()
    block = documented.split("```console\n", 1)[1].split("```", 1)[0]
    lines = [line for line in block.replace(ports.GATEWAY, own(running)).split("$ ") if line.strip()]
    told = []
    for line in lines:
        command = shlex.split(line)
        assert command[0] == "curl"
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
        told.append(json.loads(said))
    scored, job = told
    assert scored["rewards"][0]["task"]["differential_expression"]["perturbation"] == "AARS"
    assert (job["recipe"], len(job["id"])) == ("rbio1-exp", 16)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1", True), ("LOCALHOST", True), ("localhost", True), ("[::1]", True),
     ("127.0.0.2", True), ("0", False), ("0.0.0.0", False), ("[::]", False), ("10.0.0.1", False),
     ("no.such.name.invalid", False)],
)  # fmt: skip
def test_what_a_listener_is_reached_by_does_not_hang_on_how_it_is_written(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    assert GatewayConfig(listen=f"{host}:50059").is_loopback is loopback
