"""One id from HTTP, or from a client, to every verifier's log: what a person is told is what an operator finds."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from typing import Any

import httpx
import pytest

from bioverify import recipes
from bioverify.client import AsyncClient, Client, ClientError, Message, ScoreItem
from bioverify.transport.headers import MOST_TOGETHER
from tests.fixtures import servers
from tests.fixtures.rewards import item, recipe, required
from tests.fixtures.stack import LocalStack
from tests.fixtures.waiting import wait_until

SERVICES = ("aggregator", *recipes.load("all").verifiers)


def fresh_question() -> str:
    """One that no cache knows, so that every verifier is asked."""
    gene = f"G{uuid.uuid4().hex[:12]}"
    return f"Is a knockdown of {gene} in k562 cells likely to result in differential expression of ASNS?"


def fresh_item() -> ScoreItem:
    return ScoreItem("1", f"<think>{uuid.uuid4()}</think><answer>yes</answer>", [Message("user", fresh_question())])


def lines_under(stack: LocalStack, service: str, request_id: str) -> list[dict[str, Any]]:
    logged = (stack.state / "logs" / f"{service}.log").read_text(errors="replace").splitlines()
    lines = [json.loads(line) for line in logged if line.startswith("{")]
    return [line for line in lines if line.get("request_id") == request_id]


def is_in_every_log(stack: LocalStack, request_id: str, services: tuple[str, ...] = SERVICES) -> None:
    for service in services:
        wait_until(lambda name=service: lines_under(stack, name, request_id), f"{request_id} in the log of {service}")


@pytest.fixture
def http(stack: LocalStack):
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.port_base + 9}", trust_env=False, timeout=60) as client:
        yield client


@pytest.mark.parametrize("given", ["", "from-the-caller.1"])
def test_the_id_that_http_tells_is_in_the_log_of_every_service(stack: LocalStack, http, given: str) -> None:
    given = given and f"{given}-{uuid.uuid4().hex[:8]}"
    body = {"items": [{"prompt": fresh_question(), "completion": f"<answer>yes</answer> {uuid.uuid4()}"}]}
    answer = http.post("/v1/score", json=body, headers={"x-request-id": given} if given else {})
    assert answer.status_code == 200, answer.text
    told = answer.headers["x-request-id"]
    assert told == given or not given
    is_in_every_log(stack, told, ("gateway", *SERVICES))
    [answered] = [line for line in lines_under(stack, "aggregator", told) if line["event"] == "call answered"]
    assert (answered["code"], answered["method"]) == ("OK", "/bioverify.v1.RewardService/ScoreBatch")


def test_a_refused_call_is_found_by_the_id_of_its_problem(stack: LocalStack, http) -> None:
    body = {"items": [{"prompt": "x", "completion": "x"}], "recipe": "no-such"}
    told = http.post("/v1/score", json=body).json()["request_id"]
    wait_until(lambda: bool(lines_under(stack, "aggregator", told)), "the refusal in the log")
    assert lines_under(stack, "aggregator", told)[0]["event"] == "call refused"


def test_every_call_for_a_job_is_logged_under_the_id_that_its_sender_was_told(stack: LocalStack, http) -> None:
    line = json.dumps({"prompt": fresh_question(), "completion": f"<answer>no</answer> {uuid.uuid4()}"})
    answer = http.post("/v1/jobs", params={"recipe": "all"}, content=line.encode())
    told = answer.headers["x-request-id"]
    assert answer.json()["request_id"] == told
    is_in_every_log(stack, told, ("gateway", *SERVICES))


async def test_a_client_makes_an_id_or_takes_the_callers_own(stack: LocalStack) -> None:
    with Client(stack.target) as client:
        made = client.score([fresh_item()], "all").request_id
        assert re.fullmatch(r"[0-9a-f]{32}", made)
        is_in_every_log(stack, made)
        with pytest.raises(ClientError, match="request_id: 'a b' is not") as unfit:
            client.score([fresh_item()], "all", request_id="a b")
        assert unfit.value.refusal.is_callers_mistake
        with pytest.raises(ClientError, match="mine-2") as refused:
            client.score([fresh_item()], "no-such", request_id="mine-2")
        assert refused.value.request_id == "mine-2"
    async with AsyncClient(stack.target) as client:
        own = f"mine-{uuid.uuid4().hex[:8]}"
        assert (await client.score([fresh_item()], "all", request_id=own)).request_id == own
        is_in_every_log(stack, own)


@pytest.mark.parametrize("callers", [MOST_TOGETHER // 2, 3 * MOST_TOGETHER])
async def test_calls_that_are_made_together_are_found_under_the_id_of_each(callers: int) -> None:
    ids = [f"caller-{n}-{uuid.uuid4().hex}" for n in range(callers)]
    with (
        servers.verifier("Text", parameters={"delay_s": 0.3}) as text,
        servers.aggregator({"text": text.target}) as running,
    ):
        async with AsyncClient(running.target) as client:
            by = recipe(required("text"))
            await asyncio.gather(*(client.score([item(one)], by, request_id=one) for one in ids))
        asked = text.log_lines("call answered")
        logged = {one for line in asked for one in line["request_id"].split(",")}
        assert len(asked) < callers
        for line in running.log_lines("several requests ask as one"):
            if line["as_request"] in logged:
                logged.update(line["request_ids"])
        assert logged >= set(ids)
