"""Training while every service dies once, and while the disk of its checkpoints is full."""

from __future__ import annotations

import json
import random
import resource
import signal
import threading
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from bioverify import recipes
from bioverify.client import Message, ScoreItem
from bioverify.core.rewards import term_value
from bioverify_trainer.dataset import open_prompts
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.runs.folder import RunError, RunFolder, read_records
from bioverify_trainer.train import make_trainer, train
from tests.fault.conftest import SEED
from tests.fault.judge import RECIPE, fault_free
from tests.fault.system import System
from tests.trainer.conftest import lasting_target, recipe, store, tiny_policy, tiny_preset, verifier_targets

__all__ = ["lasting_target", "recipe", "store", "tiny_policy", "tiny_preset", "verifier_targets"]

STEPS, ROWS = 60, 8
AWAY_STEPS = 3
LONGEST_DELAY_S = 0.3
REPORT = Path("reports/training.json")
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
    return {(s["step"], s["id"]): s for s in read_records(folder.samples_file)}, list(read_records(folder.metrics_file))


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
        victims, draw = [*system.programs], random.Random(SEED)
        for step, name in zip(range(4, STEPS - AWAY_STEPS, STEPS // len(victims)), victims, strict=True):
            program = system.programs[name]
            # At some moment of the step that follows: while completions are generated, scored or trained on.
            number = draw.choice((signal.SIGKILL, signal.SIGTERM))
            end = threading.Timer(draw.uniform(0, LONGEST_DELAY_S), program.end, (number,))
            acts[step] = end.start
            acts[step + 1] = end.join
            acts[step + 1 + AWAY_STEPS] = lambda program=program: (program.start(), program.wait_until_ready())
        killed = {name: len(system.programs[name].exit_codes) for name in victims}
        disturbed, shaken = run(preset, bundled_store, system.target, RunFolder(tmp_path / "shaken"), acts.items())
        assert all(len(system.programs[name].exit_codes) == killed[name] + 1 for name in victims)

    assert len(shaken) == STEPS
    unscorable = sum(record["reward_call/unscorable"] for record in shaken) * ROWS
    lost_calls = sum(record["reward_call/failed"] for record in shaken)
    # Each row of the undisturbed run is there, with the same reward, without one, or without the parts that failed.
    same = fewer = none = wrong = 0
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
            wrong += part["value"] not in (value, None)
            wrong += part["contribution"] not in (expected_part["contribution"], None)
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
    report = {
        "steps": STEPS,
        "rows": ROWS,
        "killed": len(victims),
        "equal": same,
        "fewer_terms": fewer,
        "unscorable": round(unscorable),
        "lost": round(lost_calls) * ROWS,
        "wrong": wrong,
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    with capsys.disabled():
        print(f"\nTraining: {report}\nWritten: {REPORT}")
    assert wrong == 0


DISK_BYTES = 100_000


@pytest.fixture
def disk():
    """``disk.full()``: no file can grow beyond `DISK_BYTES`; ``disk.free()``: they can again."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Disk:
        def full(self):
            resource.setrlimit(resource.RLIMIT_FSIZE, (DISK_BYTES, limits[1]))

        def free(self):
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    disk = Disk()
    yield disk
    disk.free()


def steps_of(preset, steps):
    return preset.model_copy(update={"grpo": preset.grpo.model_copy(update={"max_steps": steps})})


def with_a_long_record(folder):
    """As after many steps: all but the first bytes of the next line are beyond the limit."""
    for append in (folder.append_metrics, folder.append_sample):
        append({"step": 0, "filler": "x" * (DISK_BYTES - 50)})


def recorded_steps(folder):
    """Fails where a line is not whole."""
    files = (folder.metrics_file, folder.samples_file)
    return [[json.loads(line)["step"] for line in file.read_text().splitlines()] for file in files]


def test_a_full_disk_costs_the_checkpoint_and_neither_the_record_nor_the_run_nor_its_resumption(
    recipe, tiny_preset, store, lasting_target, tmp_path, caplog, disk
):
    preset = steps_of(tiny_preset, 3)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with_a_long_record(folder)
    policy = open_policy(preset.policy.model, dtype=torch.float32)
    trainer = make_trainer(
        recipe, preset, policy, open_prompts(store, recipe, seed=0), target=lasting_target, folder=folder
    )

    class FullInTheSecondStep(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2:
                assert recorded_steps(folder) == [[0, 1], [0, 1]]
            (disk.full if state.global_step == 1 else disk.free)()

    trainer.add_callback(FullInTheSecondStep())
    trainer.train()
    assert trainer.state.global_step == 3
    assert recorded_steps(folder) == [[0, 1, 2, 3]] * 2
    assert sorted(path.name for path in folder.checkpoints.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-3"]
    assert "checkpoint-2 could not be written" in caplog.text
    assert "metrics.jsonl could not be written (File too large). Training continues" in caplog.text
    assert "metrics.jsonl: the 1 lines that waited are written" in caplog.text
    # And one that a kill cut short is not what a run goes on from.
    for step, state in ((8, '{"global_st'), (9, None)):
        cut = folder.checkpoints / f"checkpoint-{step}"
        cut.mkdir()
        (cut / "model.safetensors").write_bytes(b"half")
        if state:
            (cut / "trainer_state.json").write_text(state)
    folder.config_file.write_text("{}")
    resumed = train(recipe, steps_of(preset, 4), target=lasting_target, output=folder.path, store=store, resume=True)
    assert resumed.steps == 4
    assert recorded_steps(folder) == [[0, 1, 2, 3, 4]] * 2


def test_a_disk_that_stays_full_ends_the_run_with_a_word_on_how_to_go_on_and_leaves_nothing_half_written(
    recipe, tiny_preset, store, lasting_target, tmp_path, monkeypatch, disk
):
    preset, output = steps_of(tiny_preset, 3), tmp_path / "run"
    folder = RunFolder(output)

    def make_trainer_on_a_filling_disk(*args, **kwargs):
        trainer = make_trainer(*args, **kwargs)
        with_a_long_record(kwargs["folder"])
        trainer.add_callback(At([(2, disk.full)]))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr("bioverify_trainer.train.make_trainer", make_trainer_on_a_filling_disk)
        with pytest.raises(RunError, match=r"could not be written .* Free space there and run .* with --resume"):
            train(recipe, preset, target=lasting_target, output=output, store=store)
    # TRL logs a step after the callbacks of its end.
    assert recorded_steps(folder) == [[0, 1], [0, 1, 2]]
    assert not list(output.glob("model*"))
    # Even the record cannot be put in order while the disk is full.
    with pytest.raises(RunError, match=r"metrics.jsonl could not be written .* Free space there, then try again"):
        train(recipe, preset, target=lasting_target, output=output, store=store, resume=True)
    assert recorded_steps(folder) == [[0, 1], [0, 1, 2]]
    disk.free()
    assert train(recipe, preset, target=lasting_target, output=output, store=store, resume=True).steps == 3
    assert recorded_steps(folder) == [[0, 1, 2, 3]] * 2
    assert (folder.model / "model.safetensors").exists()
    assert not list(output.glob("*.partial"))
