"""What reaches the policy: rows without reward nowhere, and a group's terms alike wherever its members are."""

import json
import subprocess
import sys
from collections import defaultdict

import pytest
import torch

from bioverify.core.recipes import Recipe, Requirement, Term
from bioverify_trainer.dataset import open_prompts
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.runs.folder import RunFolder, read_records
from bioverify_trainer.train import VerifiedTrainer, make_trainer
from tests.fixtures import servers
from tests.fixtures.verifiers import is_touched


def test_rows_without_a_reward_are_masked_from_loss_and_group_baseline(recipe, tiny_preset, store, tmp_path):
    preset = tiny_preset.model_copy(
        update={"grpo": tiny_preset.grpo.model_copy(update={"per_device_train_batch_size": 8, "beta": 0.1})}
    )
    prompts = open_prompts(store, recipe, seed=0)
    policy = open_policy(preset.policy.model, dtype=torch.float32)
    trainer = make_trainer(recipe, preset, policy, prompts, target="127.0.0.1:1", folder=RunFolder(tmp_path / "run"))
    assert isinstance(trainer, VerifiedTrainer)
    given = [1.0, None, 0.25, 0.5, None, None, None, 2.0]
    trainer.reward_funcs[0] = lambda **_: given
    dataset = trainer.train_dataset
    inputs = [dataset[0]] * 4 + [dataset[1]] * 4
    batch = trainer._generate_and_score_completions(inputs)
    left = torch.tensor([1.0, 0.25, 0.5])
    expected = torch.zeros(8)
    expected[[0, 2, 3]] = (left - left.mean()) / (left.std() + 1e-4)
    # The last one is alone in its group: nothing to be compared with.
    torch.testing.assert_close(batch["advantages"], expected)
    tokens = batch["completion_mask"].sum(dim=1)
    assert (tokens > 0).tolist() == [reward is not None for reward in given]
    assert batch["num_items_in_batch"] == tokens.sum()

    # Neither policy gradient nor the pull towards the reference: what masked rows say makes no difference.
    loss = trainer.compute_loss(trainer.model, dict(batch))
    other = dict(batch)
    other["completion_ids"] = torch.where(tokens[:, None] > 0, batch["completion_ids"], 5)
    torch.testing.assert_close(trainer.compute_loss(trainer.model, other), loss)


@pytest.mark.slow
def test_a_verifier_that_fails_on_one_process_is_dropped_for_the_whole_group_on_both(tiny_preset, store, tmp_path):
    recipe = Recipe(
        name="text-and-touchy",
        terms=(
            Term(verifier="text", weight=1, requirement=Requirement.REQUIRED),
            Term(verifier="touchy", component="vowels", weight=1, requirement=Requirement.OPTIONAL),
        ),
    )
    # Two completions in each process, four in a group.
    preset = tiny_preset.model_dump(mode="json")
    preset["grpo"] |= {"per_device_train_batch_size": 2, "max_steps": 8, "save_steps": 100}
    preset["launcher"] |= {"processes": 2}
    with (
        servers.verifier("Text") as text,
        servers.verifier("Touchy") as touchy,
        servers.aggregator({"text": text.target, "touchy": touchy.target}) as aggregator,
    ):
        settings = {
            "preset": preset,
            "recipe": recipe.model_dump(mode="json"),
            "store": str(store.root),
            "target": aggregator.target,
            "output": str(tmp_path / "run"),
        }
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        launch += [f"--master-port={servers.free_port()}", "-m", "tests.trainer.two_ranks", json.dumps(settings)]
        done = subprocess.run(launch, cwd=servers.ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    groups = defaultdict(list)
    for rank in (0, 1):
        for line in read_records(tmp_path / "run" / f"rank-{rank}.jsonl"):
            for group, completion, reward in zip(line["groups"], line["completions"], line["rewards"], strict=True):
                groups[group].append((rank, completion, reward))
    assert len(groups) == 8
    torn, kept = 0, 0
    for members in groups.values():
        assert sorted(rank for rank, _, _ in members) == [0, 0, 1, 1]
        failing_ranks = {rank for rank, completion, _ in members if is_touched(completion)}
        torn += len(failing_ranks) == 1
        kept += not failing_ranks
        for _, completion, reward in members:
            vowels = sum(letter in "aeiou" for letter in completion) / max(1, len(completion))
            expected = min(1.0, len(completion) / 100) + (0 if failing_ranks else vowels)
            assert reward == pytest.approx(expected, abs=1e-6)
    assert torn, "no group had its failing members on one process only: nothing was shown"
    assert kept
    metrics = list(read_records(tmp_path / "run" / "metrics.jsonl"))
    assert len(metrics) == 8
    assert all(record["reward_call/unscorable"] == 0 for record in metrics)
