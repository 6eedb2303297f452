"""The trainer's doors: its reward, `ask --verify` and `eval` read what people send as every other door does.

The cases and the other doors: tests/integration/test_every_door.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from bioverify import recipes
from bioverify.client import Client, ScoreItem
from bioverify.core.conversation import opened_thought, read_prompt
from bioverify.core.questions import parse_task
from bioverify.core.tasks import TaskKind
from bioverify_trainer import asking
from bioverify_trainer.evaluate import completions
from bioverify_trainer.evaluate.questions import EvaluationError, Screens
from bioverify_trainer.reward import make_reward
from tests.fixtures import servers
from tests.fixtures.conversations import BESIDE, NONE, SAME, C, Case, Q
from tests.fixtures.stack import LocalStack
from tests.trainer.conftest import question_table
from tests.trainer.test_evaluation import chat_server, endpoint

RECIPE = "rbio1-exp"
TASK = parse_task(Q)


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with (
        servers.verifier("Lookup", parameters={"name": "experimental"}) as lookup,
        servers.verifier("Format") as form,
        servers.aggregator({"experimental": lookup.target, "format": form.target}) as running,
    ):
        yield running.target


@pytest.fixture(scope="module")
def screens() -> Screens:
    return Screens.read(question_table())


def over_grpc(target: str, case: Case, recipe: str = RECIPE) -> float | None:
    with Client(target) as client:
        return client.score([ScoreItem("0", case["completion"], case["prompt"])], recipe).rewards[0].reward


def in_training(target: str, case: Case) -> list[float | None]:
    """The reward of the case, and of a good completion in its group."""
    turns = [asdict(turn) for turn in read_prompt(case["prompt"])]
    turns = [{"role": turn["role"], "content": turn["text"]} for turn in turns]
    prefix = opened_thought(turns[-1]["content"])
    good = C.removeprefix("<think>") if prefix else C
    reward = make_reward(target, recipes.load(RECIPE), deadline_s=10, prefix_of=lambda _: prefix)
    assert TASK is not None
    columns = {
        "completion_ids": [1],
        "prompt_id": "one",
        "source": recipes.load(RECIPE).sources[0].name,
        "prompt_form": "answer",
        "task_kind": str(TASK.kind),
        "task": json.dumps(asdict(TASK)),
    }
    told: Any = reward(
        prompts=[turns, turns],
        completions=[case["completion"], [{"role": "assistant", "content": good}]],
        **{name: [value, value] for name, value in columns.items()},
        trainer_state=SimpleNamespace(global_step=0),
        log_metric=lambda *_: None,
    )
    rewards: list[float | None] = told
    return rewards


@pytest.mark.parametrize("name", SAME)
def test_the_trainer_pays_what_the_client_pays(target: str, name: str) -> None:
    case = {"prompt": Q, "completion": C} | SAME[name]
    expected = over_grpc(target, case)
    assert expected is not None
    assert in_training(target, case) == [expected, over_grpc(target, {"prompt": Q, "completion": C})]


@pytest.mark.parametrize("name", [name for name, (case, _) in NONE.items() if "completion" in case])
def test_a_completion_that_is_none_has_no_reward_in_training_and_costs_no_other_its_own(target: str, name: str) -> None:
    told = in_training(target, {"prompt": Q} | NONE[name][0])
    assert told == [None, over_grpc(target, {"prompt": Q, "completion": C})]


@pytest.mark.parametrize("name", [name for name, case in SAME.items() if isinstance(case.get("completion", C), str)])
def test_ask_says_the_reward_that_the_client_gets(stack: LocalStack, name: str) -> None:
    case = {"prompt": Q, "completion": C} | SAME[name]
    assert f"reward: {over_grpc(stack.target, case, asking.VERIFYING_RECIPE):.2f} of " in asked(stack.target, case)


@pytest.mark.parametrize("name", [name for name, (case, _) in NONE.items() if "prompt" in case])
def test_ask_says_why_a_question_that_was_not_read_has_no_reward(stack: LocalStack, name: str) -> None:
    case, why = NONE[name]
    told = asked(stack.target, {"completion": C} | case)
    assert "no reward: " in told
    assert why in told


def asked(target: str, case: Case) -> str:
    told: list[str] = []
    turns: Any = [{"role": turn.role, "content": turn.text} for turn in read_prompt(case["prompt"])]
    asking.verify(target, turns, parse_task(turns[-1]["content"]), case["completion"], told.append)
    return "\n".join(told)


@pytest.mark.parametrize("name", [*SAME, *BESIDE])
def test_eval_reads_of_a_file_what_the_verifiers_read(target: str, screens: Screens, tmp_path: Any, name: str) -> None:
    case = {"prompt": Q, "completion": C} | SAME[name] if name in SAME else BESIDE[name]
    rows = screens.rows(TaskKind.DIFFERENTIAL_EXPRESSION, "test")
    path = tmp_path / "rows.jsonl"
    path.write_text(of_the_screens(case, rows.task(0)))
    _, answers, others = completions.read(path, rows)
    assert (answers.answer.tolist(), others) == ([1], 0)
    assert answers.format_score[0] == pytest.approx(form_term(target, case))


@pytest.mark.parametrize("name", NONE)
def test_eval_takes_no_line_that_was_not_read(screens: Screens, tmp_path: Any, name: str) -> None:
    rows = screens.rows(TaskKind.DIFFERENTIAL_EXPRESSION, "test")
    path = tmp_path / "rows.jsonl"
    path.write_text(of_the_screens({"prompt": Q, "completion": C} | NONE[name][0], rows.task(0)))
    with pytest.raises(EvaluationError):
        completions.read(path, rows)


ONE_MESSAGE = {
    name: case["completion"][0]
    for name, case in SAME.items()
    if isinstance(case.get("completion"), list) and len(case["completion"]) == 1
}


@pytest.mark.parametrize("name", ONE_MESSAGE)
def test_eval_reads_of_an_endpoint_what_the_verifiers_read(target: str, screens: Screens, name: str) -> None:
    reply = {"choices": [{"message": ONE_MESSAGE[name]}]}
    with chat_server(answers=lambda _: (200, reply)) as (address, _):
        [samples] = endpoint(address)([screens.rows(TaskKind.DIFFERENTIAL_EXPRESSION, "test").task(0)])
    case = {"prompt": Q, "completion": samples[0].completion}
    assert over_grpc(target, case) == over_grpc(target, {"prompt": Q, "completion": C})


def of_the_screens(case: Case, task: Any) -> str:
    """The case as a line, about a pair that is held out."""
    text = json.dumps(case)
    for old, new in (("AARS", task.perturbation), ("TRIB3", task.measured_gene), ("k562", task.cell_line)):
        text = text.replace(old, new)
    return text


def form_term(target: str, case: Case) -> float:
    """What the format verifier gives the same case."""
    sent = {name: value for name, value in case.items() if name == "prefix"}
    completion, prompt = case.get("completion"), case.get("prompt", Q)
    beside = next((case[key] for key in ("reasoning", "reasoning_content", "thinking") if key in case), "")
    if completion is None:
        completion = [turn for turn in case["messages"] if turn["role"] == "assistant"]
    item = ScoreItem("0", completion, prompt=prompt, reasoning=beside, **sent)
    with Client(target) as client:
        [reward] = client.score([item], RECIPE).rewards
    [value] = [part.value for part in reward.parts if part.term.label == "format"]
    assert value is not None
    return value
