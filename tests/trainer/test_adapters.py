"""Other people's trainers against the running stack: TRL's own, with our reward function, and OpenRLHF's HTTP form."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.async_grpo.async_rollout_worker import RolloutGroup, TrainingSequence, _AsyncRolloutLoop
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from bioverify.adapters import trl
from bioverify.artifacts.prompts import open_prompts
from bioverify.artifacts.store import ArtifactStore
from bioverify.client import Client, Message, ScoreItem
from bioverify.core.completions import PromptForm
from bioverify.core.tasks import TaskKind
from bioverify_trainer.evaluate.questions import Screens
from bioverify_trainer.prompts import make_prompt
from tests.fixtures import servers
from tests.trainer.toy import few_genes, make_toy_policy

RECIPE = "rbio1-exp"
STEPS, GROUP = 12, 4


@pytest.fixture(scope="module")
def questions(stack):
    """Training questions about a few genes, with their rows."""
    table = few_genes(open_prompts(ArtifactStore(stack.home / "artifacts"))[0])
    return Screens.read(table).rows(TaskKind.DIFFERENTIAL_EXPRESSION, "train")


class OpenRLHFClient:
    """Sends what OpenRLHF's single-turn executor sends for one rollout, and reads what it reads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(trust_env=False, timeout=180)

    def reward(self, query: str, prompt: str, label: str | None) -> float:
        response = self.http.post(self.url, json={"query": [query], "prompts": [prompt], "labels": [label]})
        response.raise_for_status()
        told = response.json()
        assert told.keys() >= {"rewards", "scores", "extra_logs"}
        [reward], [score] = told["rewards"], told["scores"]
        assert reward == score
        return reward


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trl_trainer_learns_from_the_stack_that_serves_an_openrlhf_client(stack, questions, tmp_path, capsys):
    make_toy_policy(tmp_path / "policy", questions, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    rows = np.random.default_rng(0).permutation(len(questions))[: STEPS * 128 // GROUP]
    prompts = [make_prompt(questions.task(int(row)), PromptForm.ANSWER) for row in rows]
    config = GRPOConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=STEPS,
        per_device_train_batch_size=128,
        num_generations=GROUP,
        max_completion_length=16,
        learning_rate=2e-3,
        temperature=0.7,
        lr_scheduler_type="constant",
        beta=0.0,
        logging_steps=1,
        log_completions=True,
        save_strategy="no",
        report_to="none",
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        seed=0,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32),
        processing_class=tokenizer,
        reward_funcs=trl.make_reward(stack.target, RECIPE),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
    )
    client = OpenRLHFClient(f"http://127.0.0.1:{stack.port_base + 9}/v1/openrlhf/{RECIPE}")
    done, rewarded = threading.Event(), []

    def keep_asking() -> None:
        while not done.is_set():
            for number, answer in enumerate(("yes", "no", "perhaps")):
                task = questions.task(int(rows[number]))
                prompt = f"<|im_start|>user\n{task.question}<|im_end|>\n<|im_start|>assistant\n"
                written = f"<think>I think about {task.measured_gene}.</think> <answer>{answer}</answer>"
                reward = client.reward(f"{prompt}{written}<|im_end|>", prompt, label="yes")
                rewarded.append((task, written, reward))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        trainer.train()
    finally:
        done.set()
        asking.join()

    steps = [record for record in trainer.state.log_history if "reward" in record]
    first, last = (fmean(step["reward"] for step in part) for part in (steps[:3], steps[-3:]))
    with capsys.disabled():
        print(f"\nTRL: mean reward {first:.3f} → {last:.3f} in {len(steps)} steps; OpenRLHF: {len(rewarded)} rewards")
    assert len(steps) == STEPS
    assert last > first
    assert all(step["bioverify/unscorable"] == 0 for step in steps)
    assert len({reward for _, _, reward in rewarded}) > 1
    with Client(stack.target) as direct:
        for task, written, reward in rewarded[:3]:
            item = ScoreItem("0", written, [Message("user", task.question)])
            assert direct.score([item], RECIPE).rewards[0].reward == reward


def test_rows_of_one_prompt_are_a_group_and_what_is_not_scored_is_none_and_masked(recipe):
    question = "Is a knockdown of {} in k562 cells likely to result in differential expression of G1? "
    question += "The answer is either yes or no."
    prompts = [[{"role": "user", "content": question.format(gene)}] for gene in ("P1", "P1", "UNKNOWN", "P2")]
    completions = [[{"role": "assistant", "content": "<answer>yes</answer>"}]] * 4
    beside = [json.dumps({"source": "questions"})] * 4
    metrics: dict[str, float] = {}
    strict = recipe.model_copy(
        update={"terms": (recipe.terms[0].model_copy(update={"verifier": "lookup"}),), "sources": ()}
    )
    with servers.verifier("Lookup") as lookup, servers.aggregator({"lookup": lookup.target}) as aggregator:
        reward = trl.make_reward(aggregator.target, strict)
        scored = reward(prompts, completions, log_metric=metrics.__setitem__, trainer_state=None)
        assert [value is None for value in scored] == [False, False, True, False]
        assert scored[0] == scored[1]
        assert metrics == {"bioverify/unscorable": 0.25}
        with pytest.raises(ValueError, match=r"task.co_expression: Input should"):
            reward(prompts, completions, bioverify=[{"task": {"co_expression": 1}}] * 4, log_metric=print)
        with pytest.raises(ValueError, match="bioverify: not JSON"):
            reward(prompts, completions, bioverify=["task"] * 4, log_metric=print)
        with pytest.raises(ValueError, match="there are: all"):
            trl.make_reward(aggregator.target, "nonsense")(prompts, completions, log_metric=print)
    gone = reward(prompts, completions, bioverify=beside, log_metric=metrics.__setitem__)
    assert gone == [None] * 4
    assert metrics == {"bioverify/unscorable": 1.0}


def test_asynchronous_training_scores_a_group_in_a_process_of_its_own(recipe, lasting_target, monkeypatch):
    """As TRL's worker does it: the function by pickle, a group at a time, without the trainer's process group."""
    # A child has its parent's environment: a function that looked for the other processes would wait for them.
    for name, value in {"WORLD_SIZE": "8", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    reward = trl.GroupReward(lasting_target, recipe)
    question = "Is a knockdown of P1 in k562 cells likely to result in differential expression of G1? "
    prompt = [{"role": "user", "content": question + "The answer is either yes or no."}]
    texts = ["<think> P1 G1 </think> <answer> yes </answer>", "<answer> no </answer>", "aeiou aeiou"]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    beside = [json.dumps({"source": "questions"})] * 3
    row = TrainingSequence([1, 2], [0, 1], [0.0, -1.0], rollout_id="one")
    group = RolloutGroup(
        group_id=0,
        prompts=[prompt] * 3,
        completions=completions,
        completions_ids=[[1]] * 3,
        completions_sequences=[[row]] * 3,
        tool_call_counts=[0] * 3,
        tool_failure_counts=[0] * 3,
        reward_kwargs={"bioverify": beside},
        env_rewards=[None] * 3,
        rollout_rewards=[None] * 3,
        model_version=0,
    )
    sent = pickle.loads(pickle.dumps(reward))
    loop = SimpleNamespace(
        reward_funcs=[sent], reward_func_names=["reward"], _env_reward_types=[], _provides_rollout_reward=False
    )
    samples = asyncio.run(_AsyncRolloutLoop._score_group(loop, group))
    with Client(lasting_target) as direct:
        items = [ScoreItem(str(n), text, [Message("user", prompt[0]["content"])]) for n, text in enumerate(texts)]
        items = [replace(item, group_id="g", source="questions") for item in items]
        expected = [found.reward for found in direct.score(items, recipe).rewards]
    assert [sample.metrics["reward"] for sample in samples] == pytest.approx(expected)
    assert len(set(expected)) > 1
    # It is sent on after its first call as well, and a second call uses the same connection.
    assert pickle.loads(pickle.dumps(sent))(group.prompts, completions, bioverify=beside) == pytest.approx(expected)
    with pytest.raises(ValueError, match="there are: all"):
        trl.GroupReward(lasting_target, "nonsense")(group.prompts, completions)
