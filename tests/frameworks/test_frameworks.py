"""Our adapters inside the real frameworks, in an environment of their own: docs/adapters.md says how to make it.

Each script of this folder is run by that environment's Python against one running stack, and tells what the framework
made of two rollouts with a reward and one without.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bioverify.adapters.reading import read_rollout
from bioverify.client import Client, ScoreItem
from tests.fixtures import servers
from tests.fixtures.conversations import NONE, SAME, C, Q
from tests.fixtures.gateway import gateway
from tests.fixtures.servers import ROOT, scratch_folder

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]
RECIPE = "rbio1-exp"
QUESTION = (
    "Is a knockdown of A in k562 cells likely to result in differential expression of B? "
    "The answer is either yes or no."
)
Run = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def python() -> Path:
    """Of the frameworks' environment; skips the tests without it."""
    named = Path(os.environ.get("BIOVERIFY_FRAMEWORKS_PYTHON", "(not set)"))
    if not named.exists():
        pytest.skip(f"needs the frameworks: BIOVERIFY_FRAMEWORKS_PYTHON is {named}; see docs/adapters.md")
    return named


@pytest.fixture(scope="module")
def stack() -> Iterator[tuple[str, str]]:
    """gRPC target and URL of the gateway."""
    with (
        servers.verifier("Lookup", parameters={"name": "experimental"}) as lookup,
        servers.verifier("Format") as text,
        servers.aggregator({"experimental": lookup.target, "format": text.target}) as aggregator,
        scratch_folder() as folder,
        gateway(folder, aggregator.target) as http,
    ):
        yield aggregator.target, http.url


@pytest.fixture(scope="module")
def run(python: Path, stack: tuple[str, str]) -> Run:
    @cache
    def run(script: str) -> dict[str, Any]:
        done = subprocess.run(
            [python, "-W", "ignore", "-m", f"tests.frameworks.{script}", *stack, RECIPE],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'services'}", "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told

    return run


@pytest.fixture(scope="module")
def expected(stack: tuple[str, str]) -> list[float | None]:
    """The rewards of yes and no over gRPC."""
    texts = [f"<think>So.</think> <answer>{answer}</answer>" for answer in ("yes", "no")]
    items = [read_rollout(text, QUESTION, item_id=text) for text in texts]
    with Client(stack[0]) as client:
        rewards = [reward.reward for reward in client.score(items, RECIPE).rewards]
    assert len({*rewards, None}) == 3
    return rewards


@pytest.mark.parametrize("script", ["verl_rollouts", "nemo_gym_rollouts"])
def test_what_people_send_has_the_reward_of_every_other_door(run: Run, stack: tuple[str, str], script: str) -> None:
    told = run(script)["doors"]

    with Client(stack[0]) as client:
        for name in told:
            case = {"prompt": Q, "completion": C} | (SAME[name] if name in SAME else NONE[name][0])
            [reward] = client.score([ScoreItem("0", case["completion"], case["prompt"])], RECIPE).rewards
            assert told[name] == reward.reward, name
            assert (reward.reward is None) == (name in NONE)
    assert {name for name, case in SAME.items() if isinstance(case.get("completion", C), str)} <= told.keys()
    assert {name for name, (case, _) in NONE.items() if "prompt" in case} <= told.keys()


def test_openrlhf_reads_the_rewards_and_has_none_where_there_is_none(run: Run, expected: list[float]) -> None:
    told = run("openrlhf_rollouts")

    assert told["http"] == [[pytest.approx(reward)] for reward in expected]
    assert told["file"] == told["http"]
    assert told["unscorable"] == [None, None]


def test_verl_loads_manager_and_function_and_reckons_advantages(run: Run, expected: list[float]) -> None:
    told = run("verl_rollouts")

    assert told["manager"] == told["function"] == expected
    assert [advantage > 0 for advantage in told["advantages"]] == [reward == max(expected) for reward in expected]
    assert told["unscorable"] == ["NoRewardError", "NoRewardError"]


def test_verifiers_scores_its_traces_and_records_a_task_error(run: Run, expected: list[float]) -> None:
    told = run("verifiers_rollouts")

    assert told["rewards"] == expected
    assert told["weighted"] == [pytest.approx(0.5 * reward) for reward in expected]
    assert told["by_field"] == expected[0]
    assert told["unscorable"] == "TaskError"
    assert told["left_unset"]


def test_nemo_gym_verifies_and_masks_what_has_no_reward(run: Run, expected: list[float]) -> None:
    told = run("nemo_gym_rollouts")

    assert told["rewards"] == expected
    assert told["masked"] == [False, False]
    assert told["by_field"] == expected[0]
    reason = told["unscorable"]["failure_reason"]
    assert told["unscorable"] == {
        "failure_reason": reason,
        "reward": 0.0,
        "mask_sample": True,
        "failure_kind": "verifier_error",
    }
    assert "not applicable" in reason


def test_openai_s_client_runs_the_grader(run: Run, expected: list[float]) -> None:
    told = run("openai_graders")

    assert told["rewards"] == expected
    assert not any(told["errors"])
    assert told["by_field"] == expected[0]
    assert told["unscorable"] == "UnprocessableEntityError"
