"""Training while every service dies once, and while the disk of its checkpoints is full."""

from __future__ import annotations

import contextlib
import itertools
import resource

import pytest
import torch
from transformers import TrainerCallback

from bioverify import recipes
from bioverify.client import Message, ScoreItem
from bioverify.core.rewards import term_value
from bioverify_trainer.dataset import open_prompts
from bioverify_trainer.policy import open_policy
from bioverify_trainer.run import RunFolder, read_lines
from bioverify_trainer.train import make_trainer, train
from tests.fault.judge import RECIPE, fault_free
from tests.fault.system import System
from tests.trainer.conftest import lasting_target, recipe, store, tiny_policy, tiny_preset, verifier_targets

__all__ = ["lasting_target", "recipe", "store", "tiny_policy", "tiny_preset", "verifier_targets"]

STEPS, ROWS = 60, 8
NO_STEP = 1e-30
"""A learning rate that changes no weight: whatever is masked, later completions stay the same."""


class At(TrainerCallback):
    """Does things when steps are over."""

    def __init__(self, acts):
        self.acts = dict(acts)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.acts:
            self.acts.pop(state.global_step)()


def run(preset, store, target, folder, acts=()):
    folder.path.mkdir()
    policy = open_policy(preset.policy.model, dtype=torch.float32)
    shipped = recipes.load(RECIPE)
    trainer = make_trainer(shipped, preset, policy, open_prompts(store, shipped, seed=0), target=target, folder=folder)
    trainer.add_callback(At(acts))
    trainer.train()
    assert trainer.state.global_step == preset.grpo.max_steps
    return {(s["step"], s["id"]): s for s in read_lines(folder.samples_file)}, list(read_lines(folder.metrics_file))


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_run_in_which_every_service_is_killed_once_finishes_with_the_undisturbed_rewards(
    tiny_preset, bundled_store, tmp_path, capsys
):
    preset = tiny_preset.model_copy(
        update={
            "grpo": tiny_preset.grpo.model_copy(
                update={
                    "max_steps": STEPS,
                    "per_device_train_batch_size": ROWS,
                    "save_steps": 1000,
                    "learning_rate": NO_STEP,
                }
            ),
            "rewards": tiny_preset.rewards.model_copy(update={"samples_per_step": ROWS, "deadline_s": 3}),
        }
    )
    with System(bundled_store) as system:
        undisturbed, calm = run(preset, bundled_store, system.target, RunFolder(tmp_path / "calm"))
        system.redis().flushall()
        acts = {}
        victims = [*system.programs]
        for step, name in zip(itertools.count(4, 8), victims, strict=False):
            program = system.programs[name]
            acts[step] = program.end
            acts[step + 3] = lambda program=program: (program.start(), program.wait_until_ready())
        killed = {name: len(system.programs[name].exit_codes) for name in victims}
        disturbed, shaken = run(preset, bundled_store, system.target, RunFolder(tmp_path / "shaken"), acts.items())
        assert all(len(system.programs[name].exit_codes) == killed[name] + 1 for name in victims)

    assert len(shaken) == STEPS
    unscorable = sum(record["reward_call/unscorable"] for record in shaken) * ROWS
    lost_calls = sum(record["reward_call/failed"] for record in shaken)
    # Each row of the undisturbed run is there, with the same reward, without one, or without the parts that failed.
    same = fewer = none = 0
    items = {
        key: ScoreItem(f"{key}", s["completion"], (Message("user", s["question"]),), group_id=s["group_id"])
        for key, s in disturbed.items()
    }
    direct = fault_free(list(items.values()), bundled_store)
    for key, sample in disturbed.items():
        reference = undisturbed[key]
        assert sample["completion"] == reference["completion"]
        for part, expected_part in zip(sample["parts"], reference["parts"], strict=True):
            term = next(t for t in recipes.load(RECIPE).terms if t.label == part["term"])
            value = term_value(term, direct[f"{key}"][term.verifier])
            assert part["value"] in (value, None)
            assert part["contribution"] in (expected_part["contribution"], None)
        if sample["reward"] is None:
            none += 1
        elif sample["reward"] == reference["reward"]:
            same += 1
        else:
            missing = [part for part in sample["parts"] if part["contribution"] is None]
            assert any("unavailable" in p["reason"] or "deadline" in p["reason"] or not p["reason"] for p in missing)
            fewer += 1
    # Rows of a call that did not come through have no sample.
    assert len(disturbed) == STEPS * ROWS - lost_calls * ROWS
    assert none + lost_calls * ROWS == pytest.approx(unscorable)
    assert same
    assert unscorable
    assert sum(record["reward_call/unscorable"] for record in calm) == 0
    with capsys.disabled():
        print(
            f"\n{STEPS} steps × {ROWS} rows, {len(victims)} services killed once: {same} rewards equal, {fewer} "
            f"without the terms that failed, {unscorable:g} unscorable ({lost_calls:g} calls lost), none wrong"
        )


def test_a_full_disk_costs_the_checkpoint_and_neither_the_run_nor_its_resumption(
    recipe, tiny_preset, store, lasting_target, tmp_path, caplog
):
    preset = tiny_preset.model_copy(update={"grpo": tiny_preset.grpo.model_copy(update={"max_steps": 3})})
    output = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    def free():
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with contextlib.ExitStack() as undo:
        undo.callback(free)
        folder = RunFolder(output)
        folder.path.mkdir()
        policy = open_policy(preset.policy.model, dtype=torch.float32)
        trainer = make_trainer(
            recipe, preset, policy, open_prompts(store, recipe, seed=0), target=lasting_target, folder=folder
        )

        class Disk(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                (full if state.global_step == 1 else free)()

        trainer.add_callback(Disk())
        trainer.train()
    assert trainer.state.global_step == 3
    assert sorted(path.name for path in folder.checkpoints.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-3"]
    assert "checkpoint-2 could not be written" in caplog.text
    # And one that a kill cut short is not what a run goes on from.
    (folder.checkpoints / "checkpoint-9").mkdir()
    (folder.checkpoints / "checkpoint-9" / "model.safetensors").write_bytes(b"half")
    longer = preset.model_copy(update={"grpo": preset.grpo.model_copy(update={"max_steps": 4})})
    folder.config_file.write_text("{}")
    assert train(recipe, longer, target=lasting_target, output=output, store=store, resume=True).steps == 4
