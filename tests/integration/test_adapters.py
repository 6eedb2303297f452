"""Other frameworks' HTTP forms at the gateway, and rewards of single rollouts: a fault is refused, never a number."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bioverify.adapters.alone import Alone, NoRewardError
from bioverify.adapters.openrlhf import read_items
from bioverify.adapters.reading import read_rollout
from bioverify.client import Client
from bioverify.core.tasks import CoExpression, DifferentialExpression
from bioverify.gateway.api_keys import Scope, new_key, write_keys
from tests.fixtures import servers
from tests.fixtures.gateway import RunningGateway, gateway
from tests.fixtures.servers import scratch_folder

QUESTION = (
    "Is a knockdown of {} in k562 cells likely to result in differential expression of B? "
    "The answer is either yes or no."
)
ANSWER = "<think>So it is.</think> <answer>yes</answer>"
# rbio1-exp asks these two.
FORMAT, EXPERIMENTAL = "format", "experimental"
FORMAT_LIKE = {"name": FORMAT, "component": "mention"}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with (
        servers.verifier("Lookup", parameters={"name": EXPERIMENTAL}) as lookup,
        servers.verifier("Text", parameters=FORMAT_LIKE) as text,
        servers.aggregator({EXPERIMENTAL: lookup.target, FORMAT: text.target}) as running,
    ):
        yield running.target


@pytest.fixture(scope="module")
def running(target: str) -> Iterator[RunningGateway]:
    with scratch_folder() as folder, gateway(folder, target, max_items=8) as running:
        yield running


def reward_of(target: str, gene: str, completion: str = ANSWER) -> float | None:
    with Client(target) as client:
        return client.score([read_rollout(completion, QUESTION.format(gene))], "rbio1-exp").rewards[0].reward


def rollout(gene: str, label: str | None = None) -> dict[str, list[Any]]:
    prompt = f"<|im_start|>user\n{QUESTION.format(gene)}<|im_end|>\n<|im_start|>assistant\n"
    return {"query": [f"{prompt}{ANSWER}<|im_end|>\n"], "prompts": [prompt], "labels": [label]}


def test_an_openrlhf_request_is_answered_in_its_form_with_the_rewards_of_grpc(running, target) -> None:
    sent = {name: values + rollout("C")[name] for name, values in rollout("A").items()}

    told = running.http.post("/v1/openrlhf/rbio1-exp", json=sent).json()

    expected = [reward_of(target, "A"), reward_of(target, "C")]
    assert told == {"rewards": expected, "scores": expected, "extra_logs": {}}
    assert expected[0] != expected[1]


def test_a_reward_that_is_missing_is_a_refusal_that_says_whether_it_may_pass(running) -> None:
    unknown = running.http.post("/v1/openrlhf/rbio1-exp", json=rollout("UNKNOWN"))
    raises = running.http.post("/v1/openrlhf/rbio1-exp", json=rollout("RAISES"))

    assert (unknown.status_code, unknown.json()["code"]) == (422, "no_reward")
    assert "query[0]: no reward: experimental is not applicable: unknown_gene" in unknown.json()["detail"]
    assert raises.json()["code"] in {"reward_failed", "no_reward"}
    assert "experimental failed" in raises.json()["detail"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"query": ["another text"]}, "query[0] does not begin with prompts[0]"),
        ({"labels": []}, "not equally long: 1, 1, 0"),
        ({"labels": ['{"tusk": {}}']}, "labels[0]: tusk: there is no such key; did you mean task?"),
        ({"labels": ['{"task"']}, "labels[0]: bioverify: not JSON"),
        ({"query": "text"}, "query: Input should be a valid "),
    ],
)
def test_a_request_that_is_not_of_the_form_says_where(running, change, says) -> None:
    answer = running.http.post("/v1/openrlhf/rbio1-exp", json=rollout("A") | change)

    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_a_key_may_be_the_password_of_an_address_because_openrlhf_sends_no_header(target, tmp_path: Path) -> None:
    text, key = new_key("trainer", (Scope.SCORE,))
    write_keys(tmp_path / "keys.yaml", (key,))
    with gateway(tmp_path, target, keys_file=tmp_path / "keys.yaml") as running:
        host = running.url.removeprefix("http://")
        for password, status in ((text, 200), ("bv_guessed", 401), ("", 401)):
            answer = running.http.post(f"http://openrlhf:{password}@{host}/v1/openrlhf/rbio1-exp", json=rollout("A"))
            assert answer.status_code == status
        assert running.http.post("/v1/openrlhf/all", json=rollout("A")).status_code == 401
        header = {"authorization": "Basic ###"}
        assert running.http.post("/v1/openrlhf/all", json=rollout("A"), headers=header).status_code == 401


def test_a_grader_is_run_in_openai_s_form(running, target) -> None:
    sent = {
        "grader": {"type": "bioverify", "name": "screen", "recipe": "rbio1-exp"},
        "item": {
            "messages": [{"role": "developer", "content": [{"type": "text", "text": "Think."}]}],
            "bioverify": {"task": {"differential_expression": {"perturbation": "A", "measured_gene": "B",
                                                               "cell_line": "k562"}}},
            "reference_answer": "yes",
        },
        "model_sample": ANSWER,
    }  # fmt: skip

    told = running.http.post("/v1/fine_tuning/alpha/graders/run", json=sent).json()

    assert told["reward"] == reward_of(target, "A") == sum(told["sub_rewards"].values())
    assert (
        told["metadata"]["scores"].keys() == told["sub_rewards"].keys() == {FORMAT, f"{FORMAT}.mention", EXPERIMENTAL}
    )
    assert told["metadata"]["name"] == "screen"
    assert not any(told["metadata"]["errors"].values())
    sent["item"] = {"prompt": QUESTION.format("UNKNOWN")}
    assert running.http.post("/v1/fine_tuning/alpha/graders/run", json=sent).json()["code"] == "no_reward"
    for wrong in ({"prompt": 5}, {"messages": [5]}, {"messages": [{"content": 5}]}, {"bioverify": "[]"}):
        answer = running.http.post("/v1/fine_tuning/alpha/graders/run", json=sent | {"item": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), wrong


def test_a_rollout_is_read_out_of_what_frameworks_keep() -> None:
    genes = {"differential_expression": {"perturbation": "A", "measured_gene": "B", "cell_line": "K-562"}}
    # Parquet fills the kinds that a row does not have with nulls.
    read = read_rollout("x", "", {"task": genes | {"co_expression": None}, "source": None})
    assert read.task == DifferentialExpression("A", "B", "k562")
    as_text = json.dumps({"task": {"co_expression": {"gene_a": "A", "gene_b": "B"}}, "group_id": 7})
    assert (read := read_rollout("x", "", as_text)).task == CoExpression("A", "B")
    assert read.group_id == "7"
    [item] = read_items(["Q: A</s>text</s>"], ["Q: A</s>"], ["yes"])
    assert (item.prompt[0].content, item.completion, item.task) == ("Q: A</s>", "text", None)
    [item] = read_items(["Q<answer>yes</answer><｜end▁of▁sentence｜>"], ["Q"], [None])
    assert item.completion == "<answer>yes</answer>"


def test_a_fault_that_passes_is_waited_for_and_one_that_stays_is_an_error() -> None:
    item = read_rollout(ANSWER, QUESTION.format("A"))
    port = servers.free_port()
    with servers.verifier("Text", parameters=FORMAT_LIKE) as text:
        targets = {EXPERIMENTAL: f"127.0.0.1:{port}", FORMAT: text.target}
        with servers.aggregator(targets) as aggregator:
            started = time.monotonic()
            with pytest.raises(NoRewardError, match="experimental failed") as caught:
                Alone(aggregator.target, "rbio1-exp", patience_s=2).reward(item)
            assert caught.value.may_pass
            assert time.monotonic() - started < 6

            rewards: list[float] = []
            waiting = threading.Thread(
                target=lambda: rewards.append(Alone(aggregator.target, "rbio1-exp", patience_s=60).reward(item))
            )
            waiting.start()
            with servers.verifier("Lookup", parameters={"name": EXPERIMENTAL}, listen=f"127.0.0.1:{port}"):
                waiting.join(60)
                assert rewards == [reward_of(aggregator.target, "A")]


def test_a_fact_and_a_wrong_question_are_not_waited_for(target) -> None:
    patient = Alone(target, "rbio1-exp", patience_s=60)
    started = time.monotonic()
    with pytest.raises(NoRewardError, match="not applicable: unknown_gene") as caught:
        patient.reward(read_rollout(ANSWER, QUESTION.format("UNKNOWN")))
    assert not caught.value.may_pass
    with pytest.raises(NoRewardError, match="there are: all"):
        Alone(target, "nonsense", patience_s=60).reward(read_rollout(ANSWER, QUESTION.format("A")))
    assert time.monotonic() - started < 10


def test_rollouts_that_come_together_are_asked_together_and_each_gets_its_own_reward(target) -> None:
    items = [read_rollout(ANSWER.replace("A", symbol), QUESTION.format(symbol)) for symbol in "AB" * 40]
    alone = Alone(target, "rbio1-exp", patience_s=5)
    singly = [Alone(target, "rbio1-exp", patience_s=5).reward(item) for item in items[:2]]
    calls = []
    score = alone._client.score
    alone._client.score = lambda asked, *rest, **kwargs: calls.append(len(asked)) or score(asked, *rest, **kwargs)
    assert alone.rewards(items) == singly * 40
    assert sum(calls) == len(items)
    assert len(calls) < len(items) / 2


def test_a_rollout_that_the_service_refuses_takes_no_other_along(target) -> None:
    good = read_rollout(ANSWER, QUESTION.format("A"))
    bad = dataclasses.replace(good, source="nonsense")
    alone = Alone(target, "rbio1-exp", patience_s=5)
    with ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(alone.reward, bad if number == 3 else good) for number in range(8)]
    assert isinstance(asked[3].exception(), NoRewardError)
    assert len({one.result() for number, one in enumerate(asked) if number != 3}) == 1


def test_patience_bounds_all_waiting_behind_a_call_that_hangs_included() -> None:
    slow = {"name": EXPERIMENTAL, "delay_s": 5.0}
    with (
        servers.verifier("Lookup", parameters=slow) as lookup,
        servers.verifier("Text", parameters=FORMAT_LIKE) as text,
        servers.aggregator({EXPERIMENTAL: lookup.target, FORMAT: text.target}) as aggregator,
    ):
        item = read_rollout(ANSWER, QUESTION.format("A"))
        started = time.monotonic()
        with pytest.raises(NoRewardError) as caught:
            Alone(aggregator.target, "rbio1-exp", patience_s=1).reward(item)
        assert caught.value.may_pass
        assert time.monotonic() - started < 4
