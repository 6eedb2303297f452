"""What people send, through every door: one reward however it travelled, and never a number for what was not read."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bioverify.adapters import trl
from bioverify.adapters import verifiers as prime
from bioverify.adapters.alone import Alone, NoRewardError
from bioverify.adapters.reading import read_rollout
from bioverify.cli import app
from bioverify.client import AsyncClient, Client, ScoreItem
from bioverify.core.conversation import read_completion, read_prompt
from tests.fixtures import servers
from tests.fixtures.conversations import ANSWER, BESIDE, ITS_OWN_FORM, NONE, SAME, C, Case, Q, said
from tests.fixtures.gateway import RunningGateway, gateway
from tests.fixtures.servers import scratch_folder

RECIPE = "rbio1-exp"


class Doors(NamedTuple):
    target: str
    gateway: RunningGateway
    folder: Path


class Told(NamedTuple):
    """``reward`` None with the reason, whatever the door's way to say so."""

    reward: float | None
    why: str = ""


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    with (
        servers.verifier("Lookup", parameters={"name": "experimental"}) as lookup,
        servers.verifier("Format") as form,
        servers.aggregator({"experimental": lookup.target, "format": form.target}) as running,
        scratch_folder() as folder,
        gateway(folder, running.target) as http,
    ):
        yield Doors(running.target, http, folder)


@pytest.fixture(scope="module")
def expected(doors: Doors) -> float:
    """The reward of the question and the completion as one text."""
    with Client(doors.target) as client:
        reward = client.score([ScoreItem("0", C, Q)], RECIPE).rewards[0].reward
    assert reward is not None
    assert reward > 2
    return reward


# --- Doors ------------------------------------------------------------------------------------------------------------


def through_client(doors: Doors, case: Case) -> Told:
    given = {name: value for name, value in case.items() if name in ("reasoning", "prefix")}
    item = ScoreItem("0", case["completion"], prompt=case["prompt"], **given)
    with Client(doors.target) as client:
        [reward] = client.score([item], RECIPE).rewards
    return Told(reward.reward, reward.unscorable_because)


def through_async_client(doors: Doors, case: Case) -> Told:
    async def ask() -> Told:
        async with AsyncClient(doors.target) as client:
            scored = await client.score([ScoreItem("0", case["completion"], prompt=case["prompt"])], RECIPE)
            return Told(scored.rewards[0].reward, scored.rewards[0].unscorable_because)

    return asyncio.run(ask())


def through_frame(doors: Doors, case: Case) -> Told:
    # A good row beside it, which has its reward whatever the other is.
    good = {"prompt": case["prompt"], "completion": as_its_form(C, case["completion"])}
    with Client(doors.target) as client:
        scored = client.score_dataframe(pa.Table.from_pylist([case, good]), RECIPE).to_pylist()
    assert scored[1]["reward"] is not None or not isinstance(case["prompt"], str) or case["prompt"] != Q
    return Told(scored[0]["reward"], scored[0]["unscorable_because"])


def as_its_form(text: str, form: Any) -> Any:
    if not isinstance(form, list):
        return text
    # The rows of a table have one type.
    in_parts = any(isinstance(message["content"], list) for message in form)
    return said([{"type": "text", "text": text}] if in_parts else text)


def scored_file(doors: Doors, file: Path, command: str = "score") -> Told:
    out = file.with_suffix(".out.jsonl")
    done = CliRunner().invoke(
        app, [command, str(file), "--recipe", RECIPE, "--target", doors.target, "--output", str(out)]
    )
    assert done.exit_code in (0, 1), done.output
    assert isinstance(done.exception, SystemExit | None), done.output
    found = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return Told(found[-1]["reward"], found[-1]["unscorable_because"]) if found else Told(None, done.output)


def new_file(doors: Doors, name: str, content: bytes) -> Path:
    folder = doors.folder / str(time.monotonic_ns())
    folder.mkdir()
    (folder / name).write_bytes(content)
    return folder / name


def through_lines(doors: Doors, case: Case) -> Told:
    return scored_file(doors, new_file(doors, "rows.jsonl", json.dumps(case).encode()))


def through_rescore(doors: Doors, case: Case) -> Told:
    return scored_file(doors, new_file(doors, "rows.jsonl", json.dumps(case).encode()), "rescore")


def through_zipped_array(doors: Doors, case: Case) -> Told:
    return scored_file(doors, new_file(doors, "rows.json.gz", gzip.compress(json.dumps([case]).encode())))


def through_parquet(doors: Doors, case: Case) -> Told:
    file = new_file(doors, "ROWS.PARQUET", b"")
    pq.write_table(pa.Table.from_pylist([case]), file)
    return scored_file(doors, file)


def through_http(doors: Doors, case: Case) -> Told:
    answer = doors.gateway.http.post("/v1/score", content=json.dumps({"items": [case], "recipe": RECIPE}))
    if answer.status_code == 422:
        return Told(None, answer.json()["detail"])
    [reward] = answer.json()["rewards"]
    return Told(reward["reward"], reward["unscorable_because"])


def through_job(doors: Doors, case: Case) -> Told:
    http = doors.gateway.http
    job = http.post("/v1/jobs", params={"recipe": RECIPE}, content=json.dumps(case).encode()).json()
    while (job := http.get(f"/v1/jobs/{job['id']}").json())["state"] not in {"done", "failed"}:
        pass
    assert job["state"] == "done", job
    results = [json.loads(line) for line in http.get(f"/v1/jobs/{job['id']}/results").text.splitlines()]
    bad = http.get(f"/v1/jobs/{job['id']}/bad-lines").text
    return Told(results[0]["reward"], results[0]["unscorable_because"]) if results else Told(None, bad)


def through_grader(doors: Doors, case: Case) -> Told:
    sent = {
        "grader": {"type": "bioverify", "recipe": RECIPE},
        "item": {"messages" if isinstance(case["prompt"], list) else "prompt": case["prompt"]},
        "model_sample": case["completion"],
    }
    answer = doors.gateway.http.post("/v1/fine_tuning/alpha/graders/run", content=json.dumps(sent))
    if answer.status_code == 422:
        return Told(None, answer.json()["detail"])
    return Told(answer.json()["reward"])


def through_openrlhf(doors: Doors, case: Case) -> Told:
    """It joins prompt and completion to one text, and knows no messages."""
    prompt = "".join(f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>\n" for turn in read_prompt(case["prompt"]))
    prompt = case["prompt"] if isinstance(case["prompt"], str) else f"{prompt}<|im_start|>assistant\n"
    completion = read_completion(case["completion"]).text
    sent = {"query": [prompt + completion], "prompts": [prompt], "labels": [None]}
    answer = doors.gateway.http.post(f"/v1/openrlhf/{RECIPE}", content=json.dumps(sent))
    if answer.status_code == 422:
        return Told(None, answer.json()["detail"])
    return Told(answer.json()["rewards"][0])


def through_trl(doors: Doors, case: Case) -> Told:
    reward = trl.make_reward(doors.target, RECIPE)
    [scored, good] = reward([case["prompt"], Q], [case["completion"], C], log_metric=lambda *_: None)
    assert good is not None
    return Told(scored)


def through_verifiers(doors: Doors, case: Case) -> Told:
    """The attributes that the adapter reads of a task's data and its trace."""
    given = case["completion"]
    replies = [message for message in given if message["role"] == "assistant"] if isinstance(given, list) else None
    if replies is None:
        replies = [{"content": given}]
    trace = SimpleNamespace(
        assistant_messages=[
            SimpleNamespace(content=one["content"], reasoning_content=one.get("reasoning_content")) for one in replies
        ]
    )
    task = SimpleNamespace(model_dump=lambda **_: {"prompt": case["prompt"]})
    reward = prime.make_reward(doors.target, RECIPE, patience_s=1)
    try:
        return Told(asyncio.run(reward(task, trace)))
    except (NoRewardError, ValueError) as error:
        return Told(None, str(error))


def through_single_rollouts(doors: Doors, case: Case) -> Told:
    """What verl's and NeMo Gym's adapters do with a rollout once their frameworks have handed it over."""
    try:
        item = read_rollout(case["completion"], case["prompt"])
        return Told(Alone(doors.target, RECIPE, patience_s=1).reward(item))
    except (NoRewardError, ValueError) as error:
        return Told(None, str(error))


Door = Callable[[Doors, Case], Told]
EVERY: list[Door] = [
    through_client,
    through_async_client,
    through_frame,
    through_lines,
    through_rescore,
    through_zipped_array,
    through_parquet,
    through_http,
    through_job,
    through_grader,
    through_openrlhf,
    through_trl,
    through_verifiers,
    through_single_rollouts,
]
READS_KEYS_BESIDE = [
    through_frame,
    through_lines,
    through_rescore,
    through_zipped_array,
    through_parquet,
    through_http,
    through_job,
]


def name_of(door: Any) -> str:
    return door.__name__.removeprefix("through_") if callable(door) else ""


# --- Laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", EVERY, ids=name_of)
@pytest.mark.parametrize("name", SAME)
def test_how_a_completion_travelled_changes_no_reward(doors: Doors, expected: float, door: Door, name: str) -> None:
    told = door(doors, {"prompt": Q, "completion": C} | SAME[name])
    if name in ITS_OWN_FORM:
        with Client(doors.target) as client:
            [reward] = client.score([ScoreItem("0", SAME[name]["completion"], Q)], RECIPE).rewards
        assert reward.answer is True
        assert reward.reward
        assert 2 < reward.reward < expected
        expected = reward.reward
    assert told.reward == expected, told.why


@pytest.mark.parametrize("door", READS_KEYS_BESIDE, ids=name_of)
@pytest.mark.parametrize("name", BESIDE)
def test_the_keys_of_other_tools_beside_a_completion_are_read(
    doors: Doors, expected: float, door: Door, name: str
) -> None:
    case = BESIDE[name]
    if door is through_frame and "messages" in case:
        with Client(doors.target) as client:
            [row] = client.score_dataframe(pa.Table.from_pylist([case]), RECIPE).to_pylist()
        told = Told(row["reward"], row["unscorable_because"])
    else:
        told = door(doors, case)
    assert told.reward == expected, told.why


# A text is all that they can be sent, or (Parquet) half a character cannot be written.
CANNOT_SEND = {
    through_openrlhf: {
        "no completion",
        "a message without content",
        "an image alone",
        "a tool's text alone",
        "a number",
        "no message",
        "the user's text alone",
        "a call of a tool alone",
    },
    through_verifiers: {"no completion", "a number", "a tool's text alone", "the user's text alone"},
    through_parquet: {"half a character", "an image alone"},
    through_frame: {"half a character", "an image alone", "a number"},
}


@pytest.mark.parametrize(
    ("door", "name"),
    [
        pytest.param(door, name, id=f"{name_of(door)}-{name}")
        for door in EVERY
        for name in NONE
        if name not in CANNOT_SEND.get(door, ())
    ],
)
def test_what_was_not_read_has_no_reward_at_any_door_and_the_reason_names_it(
    doors: Doors, door: Door, name: str
) -> None:
    case, why = NONE[name]
    told = door(doors, {"prompt": Q, "completion": C} | case)
    assert told.reward is None
    if door is not through_trl:
        assert why in told.why
        assert told.why


def test_one_that_cannot_be_sent_costs_no_other_its_reward(doors: Doors, expected: float) -> None:
    given: list[Any] = [C, None, f"\ud83d{C}", said(None), C]
    with Client(doors.target) as client:
        rewards = client.score([ScoreItem(str(n), one, Q) for n, one in enumerate(given)], RECIPE).rewards
    assert [reward.reward for reward in rewards] == [expected, None, None, None, expected]
    assert "half of a surrogate pair (U+D83D)" in rewards[2].unscorable_because
    assert not any(reward.may_come_back for reward in rewards)


def test_members_of_a_group_may_stand_apart_and_every_door_gives_the_same(doors: Doors) -> None:
    unknown = Q.replace("AARS", "UNKNOWN")
    rows = [
        {"prompt": prompt, "completion": C, "group_id": group}
        for group, prompt in (("a", Q), ("b", Q), ("a", unknown), ("b", Q))
    ]
    with Client(doors.target) as client:
        frame = client.score_dataframe(pa.Table.from_pylist(rows), RECIPE)["reward"].to_pylist()
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    file = new_file(doors, "rows.jsonl", content)
    scored_file(doors, file)
    by_file = [json.loads(line)["reward"] for line in file.with_suffix(".out.jsonl").read_text().splitlines()]
    sent = {"items": rows, "recipe": RECIPE}
    by_http = [one["reward"] for one in doors.gateway.http.post("/v1/score", json=sent).json()["rewards"]]
    assert frame == by_file == by_http


THOUGHTS = st.text(st.characters(codec="utf-8", exclude_characters="<>[]|"), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(thoughts=st.lists(THOUGHTS, min_size=2, max_size=5))
def test_order_batching_and_reasoning_apart_change_no_reward(doors: Doors, thoughts: list[str]) -> None:
    joined = [ScoreItem(str(n), f"<think>{one}</think> {ANSWER}", Q) for n, one in enumerate(thoughts)]
    apart = [ScoreItem(str(n), said(ANSWER, reasoning=one), Q) for n, one in enumerate(thoughts)]
    with Client(doors.target) as client:
        together = [one.reward for one in client.score(joined, RECIPE).rewards]
        backwards = [one.reward for one in client.score(joined[::-1], RECIPE).rewards]
        alone = [client.score([item], RECIPE).rewards[0].reward for item in joined]
        split = [one.reward for one in client.score(apart, RECIPE).rewards]
    assert None not in together
    assert together == backwards[::-1] == alone
    assert split == together


@settings(max_examples=25, deadline=None, derandomize=True)
@given(prompt=st.text(max_size=80), completion=st.text(max_size=80))
def test_no_text_raises(doors: Doors, prompt: str, completion: str) -> None:
    with Client(doors.target) as client:
        [reward] = client.score([ScoreItem("0", completion, prompt)], RECIPE).rewards
    assert (reward.reward is None) == bool(reward.unscorable_because)


def test_a_job_names_the_keys_that_nobody_read(doors: Doors) -> None:
    http = doors.gateway.http
    line = json.dumps({"prompt": Q, "completion": C, "gold": 1, "modle": "m"}).encode()
    job = http.post("/v1/jobs", params={"recipe": RECIPE}, content=line).json()
    while (job := http.get(f"/v1/jobs/{job['id']}").json())["state"] not in {"done", "failed"}:
        pass
    assert job["unread_keys"] == ["gold", "modle"]
