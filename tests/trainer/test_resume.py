"""A run that is killed and resumed, and a run over two processes: the same training as the undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from bioverify_trainer.pace import PREFIX
from bioverify_trainer.runs.folder import read_records
from tests.fixtures import servers

# Of time, not of training.
CLOCKS = ("seconds", "step_time", "cache_hits")


def launch(recipe, preset, store, target, output, tmp_path, *options):
    for name, content in (("recipe", recipe), ("preset", preset)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content.model_dump(mode="json")))
    command = [sys.executable, "-m", "bioverify_trainer", "train", str(tmp_path / "recipe.yaml"), "--preset"]
    command += [str(tmp_path / "preset.yaml"), "--target", target, "--output", str(output), *options]
    environment = os.environ | {"BIOVERIFY_HOME": str(store.root.parent)}
    return subprocess.Popen(
        command, cwd=servers.ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def metrics_of(output):
    """By step, without what a clock says."""
    return {
        record["step"]: {
            key: value for key, value in record.items() if not key.endswith(CLOCKS) and not key.startswith(PREFIX)
        }
        for record in read_records(output / "metrics.jsonl")
    }


@pytest.mark.slow
def test_a_run_killed_between_two_checkpoints_goes_on_as_if_it_had_not_been(
    recipe, tiny_preset, store, verifier_targets, tmp_path
):
    preset = tiny_preset.model_copy(
        update={"grpo": tiny_preset.grpo.model_copy(update={"max_steps": 9, "save_steps": 3, "warmup_steps": 2})}
    )
    # Each step takes a moment, so that the kill comes between two.
    with (
        servers.verifier("Text", parameters={"delay_s": 0.3}) as text,
        servers.aggregator({**verifier_targets, "text": text.target}) as aggregator,
    ):
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        undisturbed = launch(recipe, preset, store, aggregator.target, whole, tmp_path)
        victim = launch(recipe, preset, store, aggregator.target, killed, tmp_path)
        deadline = time.monotonic() + 200
        while not (killed / "metrics.jsonl").exists() or 5 not in metrics_of(killed):
            assert victim.poll() is None, victim.stderr.read()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        assert max(metrics_of(killed)) in (5, 6)
        resumed = launch(recipe, preset, store, aggregator.target, killed, tmp_path, "--resume")
        for process in (undisturbed, resumed):
            _, problems = process.communicate(timeout=200)
            assert process.returncode == 0, problems[-2000:]
            assert "arning:" not in problems
    expected, found = metrics_of(whole), metrics_of(killed)
    assert sorted(found) == list(range(1, 10))
    for step in range(1, 10):
        assert found[step].keys() == expected[step].keys()
        for key, value in expected[step].items():
            assert found[step][key] == (value if value is None else pytest.approx(value, rel=1e-6)), (step, key)
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (whole, killed)]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=0, atol=1e-7)


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tiny_preset, recipe, store, lasting_target, tmp_path, capsys):
    losses, weights, groups = {}, {}, {}
    for ranks in (1, 2):
        preset = tiny_preset.model_dump(mode="json")
        preset["grpo"] |= {"per_device_train_batch_size": 8 // ranks, "max_steps": 4, "save_steps": 100}
        preset["launcher"] |= {"processes": ranks}
        output = tmp_path / f"on-{ranks}"
        settings = {
            "preset": preset,
            "recipe": recipe.model_dump(mode="json"),
            "store": str(store.root),
            "target": lasting_target,
            "output": str(output),
            "fixed_completions": True,
        }
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
        command += [f"--master-port={servers.free_port()}", "-m", "tests.trainer.two_ranks", json.dumps(settings)]
        done = subprocess.run(command, cwd=servers.ROOT, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        records = list(read_records(output / "metrics.jsonl"))
        losses[ranks] = [(record["loss"], record["grad_norm"], record["reward"]) for record in records]
        weights[ranks] = load_file(output / "model" / "model.safetensors")
        per_rank = [list(read_records(output / f"rank-{rank}.jsonl")) for rank in range(ranks)]
        groups[ranks] = [[group for line in step for group in line["groups"]] for step in zip(*per_rank, strict=True)]
    # The prompts of each step, in the same order.
    assert groups[1] == groups[2]
    assert len(set(groups[1][0])) == 2
    start = load_file(str(tiny_preset.policy.model) + "/model.safetensors")
    moved = max(float((weights[1][name] - start[name]).abs().max()) for name in start)
    apart = max(float((weights[1][name] - weights[2][name]).abs().max()) for name in start)
    with capsys.disabled():
        for step, (one, two) in enumerate(zip(losses[1], losses[2], strict=True), 1):
            print(f"\nstep {step}, one rank, two ranks: loss {one[0]:.6f} {two[0]:.6f}", end="")
            print(f", gradient {one[1]:.6f} {two[1]:.6f}, reward {one[2]:.6f} {two[2]:.6f}", end="")
        print(f"\nweights moved by up to {moved:.2e}, and are {apart:.2e} apart")
    for one, two in zip(losses[1], losses[2], strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-6)
    assert moved > 1e-3
    assert apart < 0.01 * moved
