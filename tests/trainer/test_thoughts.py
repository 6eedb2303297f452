"""Thoughts on their way from the policy to the reward: templates that open them, tokenizers that hold their tags
special, policies that have none. All against the real format verifier."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from typer.testing import CliRunner

from bioverify.adapters import trl
from bioverify.core import alarms
from bioverify.core.recipes import Recipe, Requirement, Source, Term
from bioverify.core.tasks import TaskKind
from bioverify_trainer.cli import app
from bioverify_trainer.model.generation import complete
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.preset import Preset
from bioverify_trainer.runs.folder import read_records
from bioverify_trainer.runs.record import Run
from bioverify_trainer.train import train
from tests.fixtures import servers
from tests.trainer.conftest import format_verifier
from tests.trainer.parrot import QUESTION, SENTENCE, make_parrot

WRITTEN = SENTENCE.removesuffix(" <end>")
BEHIND_THE_TAG = SENTENCE.removeprefix("<think> ")
IN_BRACKETS = SENTENCE.replace("<think>", "[THINK]").replace("</think>", "[/THINK]")
MENTION = Recipe(
    name="form-and-mention",
    terms=(
        Term(verifier="format", weight=1, requirement=Requirement.REQUIRED),
        Term(verifier="format", component="mention", weight=1, requirement=Requirement.REQUIRED),
    ),
    sources=(Source(name="questions", share=1, task_kind=TaskKind.DIFFERENTIAL_EXPRESSION, terms=()),),
)
POLICIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "template opens the thought": {"sentence": BEHIND_THE_TAG, "opened": "<think>\n"},
    "tags are special": {"special_tags": True},
    "both": {"sentence": BEHIND_THE_TAG, "opened": "<think>", "special_tags": True},
    "special tags of another family": {"sentence": IN_BRACKETS, "special_tags": True},
}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with format_verifier() as form, servers.aggregator({"format": form.target}) as aggregator:
        yield aggregator.target


@pytest.fixture(params=list(POLICIES.values()), ids=list(POLICIES))
def parrot(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_parrot(tmp_path / "parrot", **request.param)


def preset_of(preset: Preset, policy: Path, **grpo: Any) -> Preset:
    settings = {"max_steps": 1, "max_completion_length": 24, "learning_rate": 1e-9, **grpo}
    return preset.model_copy(
        update={
            "policy": preset.policy.model_copy(update={"model": str(policy)}),
            "grpo": preset.grpo.model_copy(update=settings),
        }
    )


def words(text: str) -> list[str]:
    # This tokenizer knows no white space, so none stands behind a tag that is put back.
    return text.replace("[THINK]", "<think>").replace("[/THINK]", "</think>").replace("<think>", "<think> ").split()


def test_our_trainer_is_rewarded_for_the_whole_thought(parrot, tiny_preset, store, target, tmp_path):
    train(MENTION, preset_of(tiny_preset, parrot), target=target, output=tmp_path / "run", store=store)
    run = Run.open(tmp_path / "run")
    [sample] = read_records(run.folder.samples_file)
    assert words(sample["completion"]) == words(WRITTEN)
    [step] = run.metrics
    assert step["value/format"] == 1.0
    assert {name: share for name, share in step.items() if name.startswith("not_read/") and share} == {}
    assert alarms.raised(run.metrics) == []


def test_all_that_writes_completions_keeps_the_thought_and_ask_shows_it(parrot, capsys):
    policy = open_policy(str(parrot), dtype=torch.float32)
    turns = [{"role": "user", "content": QUESTION.replace("?", " ?")}]
    [text] = complete(policy, [turns], max_tokens=24, temperature=0)
    assert words(text) == words(WRITTEN)
    done = CliRunner().invoke(app, ["ask", QUESTION, "--model", str(parrot), "--max-tokens", "24"])
    assert done.exit_code == 0, done.output
    assert words(done.output) == words(WRITTEN)


class Rewarded:
    """A reward function of TRL's, which keeps what it said."""

    __name__ = "rewarded"

    def __init__(self, reward: trl.RewardFunction) -> None:
        self.reward = reward
        self.rewards: list[float | None] = []

    def __call__(self, **given: Any) -> list[float | None]:
        rewards = self.reward(**given)
        self.rewards += rewards
        return rewards


def trained_by_trl(policy: Path, target: str, folder: Path, *, with_tokenizer: bool) -> list[float | None]:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    reward = trl.make_reward(target, MENTION, **({"tokenizer": tokenizer} if with_tokenizer else {}))
    rewarded = Rewarded(reward)
    prompt = [{"role": "user", "content": QUESTION}]
    GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy),
        processing_class=tokenizer,
        reward_funcs=[rewarded],
        train_dataset=Dataset.from_list([{"prompt": prompt}] * 8),
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=24,
            learning_rate=0.0,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
        ),
    ).train()
    return rewarded.rewards


def test_trl_s_own_trainer_with_our_reward_is_rewarded_for_the_whole_thought(parrot, target, tmp_path):
    assert trained_by_trl(parrot, target, tmp_path, with_tokenizer=True) == [2.0] * 8


def test_trl_without_the_tokenizer_loses_special_tags_and_is_told_once(target, tmp_path, caplog):
    parrot = make_parrot(tmp_path / "parrot", special_tags=True)
    with caplog.at_level(logging.WARNING):
        rewards = trained_by_trl(parrot, target, tmp_path, with_tokenizer=False)
    assert all(reward is not None and reward < 1 for reward in rewards)
    [said] = [record.getMessage() for record in caplog.records if "has a thought" in record.getMessage()]
    assert said.startswith("None of the 8 completions has a thought")
    assert "is a special token" in said
    assert "the tokenizer to the adapter's make_reward" in said


@pytest.mark.parametrize(
    ("sentence", "what", "reason", "remedy"),
    [
        ("well P1 <answer> yes </answer> <end>", "thought", "no_thought", "prompts.chain_of_thought"),
        ("<think> </think> <answer> yes </answer> <end>", "thought", "empty_thought", "grpo.chat_template_kwargs"),
        ("<think> without P1 there is <end>", "thought", "thought_not_closed", "grpo.max_completion_length"),
        (
            "<think> no P1 </think> <answer> perhaps </answer> <end>",
            "answer",
            "no_answer_word",
            "prompts.example_turns",
        ),
        ("<think> no P1 </think> yes <end>", "answer", "no_answer_block", "grpo.max_completion_length"),
    ],
)
def test_a_run_counts_what_it_could_not_read_and_its_alarm_names_it_and_what_to_do(
    sentence, what, reason, remedy, tiny_preset, store, target, tmp_path, capsys
):
    parrot = make_parrot(tmp_path / "parrot", sentence)
    run = tmp_path / "run"
    train(MENTION, preset_of(tiny_preset, parrot), target=target, output=run, store=store)
    [step] = Run.open(run).metrics
    assert step[f"not_read/{what}/{reason}"] == 1.0
    shares = {name: share for name, share in step.items() if name.startswith(f"not_read/{what}/") and share}
    assert shares == {f"not_read/{what}/{reason}": 1.0}
    shown = CliRunner().invoke(app, ["runs", "show", str(run)], env={"COLUMNS": "200"}).output
    assert f"not_read/{what}/{reason}" in shown
    named = [line for line in shown.splitlines() if line.startswith("Look closer.") and f"({reason} 100%)" in line]
    assert len(named) == 1
    assert "Of 100% of the completions of the last 1 steps" in named[0]
    assert remedy in named[0]
    if what == "thought":
        # Square brackets are the console's markup.
        assert "[THINK]…" in named[0]
    done = CliRunner().invoke(app, ["report", str(run), "--output", str(tmp_path / "report.html")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report.html").read_text()
    assert f"({reason} 100%)" in page
    assert f'"not_read/{what}/{reason}":1.0' in page


def test_a_training_says_at_its_end_what_it_could_not_read(tiny_preset, store, target, tmp_path):
    parrot = make_parrot(tmp_path / "parrot", "well P1 <answer> yes </answer> <end>")
    recipe, preset = tmp_path / "recipe.yaml", tmp_path / "preset.yaml"
    recipe.write_text(yaml.safe_dump(MENTION.model_dump(mode="json")))
    preset.write_text(
        yaml.safe_dump(preset_of(tiny_preset, parrot, max_steps=2).model_dump(mode="json", exclude_unset=True))
    )
    command = ["train", str(recipe), "--preset", str(preset), "--target", target, "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(app, command, env={"BIOVERIFY_HOME": str(store.root.parent)})
    assert done.exit_code == 0, done.output
    assert done.stderr.count("Look closer.") == 1
    assert "no thought could be read (no_thought 100%)" in done.stderr
    assert "step 1: reward" in done.output
    assert ", no thought 100%" in done.output
