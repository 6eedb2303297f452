"""The reward function as TRL calls it: one call per batch, None where there is no score, never an exception."""

import contextlib
import json
import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from trl.trainer.utils import is_async_callable

from bioverify.adapters.trl import ask
from bioverify.client import Client
from bioverify.core.tasks import TaskKind
from bioverify_trainer.dataset import PromptSource, make_dataset, rows_of
from bioverify_trainer.reward import make_reward
from tests.fixtures import servers
from tests.trainer.conftest import question_table

COMPLETION = "<think> P1 and G1 </think> <answer> yes </answer>"


class Call:
    """What TRL hands to a reward function for two groups of two, and what is logged in return."""

    def __init__(self, recipe, *, tasks=None):
        dataset = make_dataset(rows_of(PromptSource(question_table(), recipe, seed=0)), 2)
        rows = [dataset[0], dataset[0], dataset[1], dataset[1]]
        self.metrics = defaultdict(list)
        self.arguments: dict[str, Any] = {
            "prompts": [row["prompt"] for row in rows],
            "completions": [[{"role": "assistant", "content": COMPLETION + "!" * index}] for index in range(4)],
            "completion_ids": [[1], [1], [1], [1]],
            **{name: [row[name] for row in rows] for name in rows[0] if name != "prompt"},
            "trainer_state": SimpleNamespace(global_step=4),
            "log_metric": lambda name, value: self.metrics[name].append(value),
            "log_extra": lambda name, values: None,
        }
        if tasks is not None:
            self.arguments["task"] = [json.dumps(task) for task in tasks]


def test_trl_runs_the_reward_on_the_thread_that_trains(recipe):
    assert not is_async_callable(make_reward("127.0.0.1:1", recipe, deadline_s=1))


def test_a_batch_is_scored_and_what_the_verifiers_said_is_logged(lasting_target, recipe):
    call, samples = Call(recipe), []
    reward = make_reward(lasting_target, recipe, deadline_s=10, samples_per_step=2, record_sample=samples.append)
    rewards = reward(**call.arguments)
    # A longer text is worth more to the text verifier, and all else is alike within a group.
    assert rewards[0] < rewards[1]
    assert rewards[2] < rewards[3]
    metrics = {name: value for name, (value,) in call.metrics.items()}
    assert metrics["reward_call/failed"] == metrics["reward_call/unscorable"] == 0
    assert metrics["reward_call/seconds"] > 0
    assert metrics["verifier/lookup/not_applicable"] == metrics["verifier/lookup/failed"] == 0
    assert metrics["verifier/lookup/cache_hits"] == 0
    parts = [metrics[f"contribution/{label}"] for label in ("text", "text.vowels", "lookup")]
    assert math.isclose(sum(parts), sum(rewards) / 4, rel_tol=1e-6)
    assert math.isclose(metrics["contribution/lookup"], 2 * metrics["value/lookup"], rel_tol=1e-6)
    # One sample of each group, with evidence.
    assert len({sample["group_id"] for sample in samples}) == 2
    assert samples[0]["step"] == 5
    assert samples[0]["parts"][-1]["evidence"][0]["simulated"]
    json.dumps(samples)


def test_the_members_of_a_group_share_the_fate_of_an_optional_term(lasting_target, recipe):
    known = {"perturbation": "P1", "measured_gene": "G1", "cell_line": "k562"}
    unknown = known | {"perturbation": "UNKNOWN"}
    call = Call(recipe, tasks=[known, unknown, known, known])
    rewards = make_reward(lasting_target, recipe, deadline_s=10)(**call.arguments)
    text = [1 * len(c[0]["content"]) / 100 for c in call.arguments["completions"]]
    vowels = [sum(x in "aeiou" for x in c[0]["content"]) / len(c[0]["content"]) for c in call.arguments["completions"]]
    # The first group is without the lookup, both members of it; the second group is not.
    assert rewards[:2] == pytest.approx([t + v for t, v in zip(text[:2], vowels[:2], strict=True)], rel=1e-6)
    assert rewards[2] - text[2] - vowels[2] == pytest.approx(rewards[3] - text[3] - vowels[3], rel=1e-6)
    assert call.metrics["verifier/lookup/not_applicable"] == [0.25]


def test_where_nothing_listens_every_row_is_none_and_counted(recipe, caplog):
    call = Call(recipe)
    target = f"127.0.0.1:{servers.free_port()}"
    rewards = make_reward(target, recipe, deadline_s=2)(**call.arguments)
    assert rewards == [None] * 4
    assert call.metrics == {
        "reward_call/failed": [1.0],
        "reward_call/unscorable": [1.0],
        "reward_call/waited_seconds": [0.0],
    }
    assert "4 completions have no reward" in caplog.text


def test_a_service_that_never_answers_costs_one_deadline_and_gives_none(recipe):
    with servers.black_hole() as target:
        rewards = make_reward(target, recipe, deadline_s=0.5)(**Call(recipe).arguments)
    assert rewards == [None] * 4


def test_a_required_verifier_that_is_gone_gives_none_and_is_reported_failed(verifier_targets, recipe):
    targets = {**verifier_targets, "text": f"127.0.0.1:{servers.free_port()}"}
    with servers.started("aggregator", "", {"config": {"verifiers": targets}}) as aggregator:
        call = Call(recipe)
        rewards = make_reward(aggregator.target, recipe, deadline_s=5)(**call.arguments)
    assert rewards == [None] * 4
    assert call.metrics["reward_call/failed"] == [0.0]
    assert call.metrics["reward_call/unscorable"] == [1.0]
    assert call.metrics["verifier/text/failed"] == [1.0]
    assert call.metrics["verifier/text/unscorable"] == [1.0]
    assert call.metrics["verifier/lookup/unscorable"] == [0.0]
    assert "value/text" not in call.metrics


def test_above_the_set_share_training_waits_and_asks_for_the_same_rows_again(verifier_targets, recipe, caplog):
    listen = f"127.0.0.1:{servers.free_port()}"
    call, kept, running = Call(recipe), [], contextlib.ExitStack()
    undisturbed = Call(recipe)

    def bring_the_service_back():
        kept.append("a checkpoint")
        running.enter_context(servers.aggregator(verifier_targets, listen=listen))

    reward = make_reward(listen, recipe, deadline_s=5, max_unscorable_share=0.5, before_pause=bring_the_service_back)
    with running:
        rewards = reward(**call.arguments)
        assert rewards == reward(**undisturbed.arguments)
    assert None not in rewards
    assert kept == ["a checkpoint"]
    assert call.metrics["reward_call/waited_seconds"][0] >= 1
    assert undisturbed.metrics["reward_call/waited_seconds"] == [0]
    # What is logged is the reply that was used, not the tries before it.
    assert call.metrics["reward_call/unscorable"] == [0]
    assert "100 % of 4 completions cannot be scored now" in caplog.text


def test_a_row_that_no_wait_would_bring_back_does_not_stop_training(recipe):
    known = {"perturbation": "P1", "measured_gene": "G1", "cell_line": "k562"}
    raises = known | {"perturbation": "RAISES"}
    required = recipe.terms[0].model_copy(update={"verifier": "lookup"})
    strict = recipe.model_copy(
        update={"terms": (required,), "sources": (recipe.sources[0].model_copy(update={"terms": ()}),)}
    )
    with servers.verifier("Lookup") as lookup, servers.aggregator({"lookup": lookup.target}) as aggregator:
        call = Call(strict, tasks=[known, raises, raises, raises])
        rewards = make_reward(aggregator.target, strict, deadline_s=5, max_unscorable_share=0)(**call.arguments)
    assert rewards[0] is not None
    assert rewards[1:] == [None] * 3
    assert call.metrics["reward_call/waited_seconds"] == [0]
    assert call.metrics["verifier/lookup/unscorable"] == [0.75]


def test_questions_that_no_source_asks_are_a_fact_that_training_does_not_wait_for(lasting_target, recipe):
    source = recipe.sources[0].model_copy(update={"task_kind": TaskKind.DIRECTION_OF_CHANGE})
    call = Call(recipe)
    call.arguments["source"] = [""] * 4

    def wait():
        raise AssertionError("waits for a fact")

    asks_otherwise = recipe.model_copy(update={"sources": (source,)})
    reward = make_reward(lasting_target, asks_otherwise, deadline_s=5, max_unscorable_share=0, before_pause=wait)
    assert reward(**call.arguments) == [None] * 4
    assert call.metrics["reward_call/waited_seconds"] == [0]


def test_a_fault_of_our_own_code_is_no_lost_call(lasting_target, recipe):
    no_items: Any = [None]
    with Client(lasting_target) as client, pytest.raises(AttributeError):
        ask(client, no_items, recipe, deadline_s=5)
