"""The presets' own DeepSpeed blocks on two CPU processes: the weights of a run without DeepSpeed, to 1e-5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bioverify_trainer.preset import load_preset
from bioverify_trainer.runs.folder import read_records
from tests.fixtures import servers

# Half a minute each on two free cores.
pytestmark = [pytest.mark.gpu_paths, pytest.mark.timeout(580)]


def run(settings: dict[str, Any], ranks: int, packages: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    command += [f"--master-port={servers.free_port()}", "-m", "tests.trainer.two_ranks", json.dumps(settings)]
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        command, cwd=servers.ROOT, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, "\n".join(
        [line for line in done.stderr.splitlines() if "rank0" in line] or [done.stderr[-3000:]]
    )


@pytest.fixture
def settings(tiny_preset, recipe, store, lasting_target, tmp_path):
    def made(name: str, deepspeed: dict[str, Any] | None, **grpo: Any) -> dict[str, Any]:
        preset = tiny_preset.model_dump(mode="json")
        preset["grpo"] |= {
            "per_device_train_batch_size": 4,
            "max_steps": 4,
            "save_steps": 2,
            "use_cpu": deepspeed is None,
            **grpo,
        }
        preset["launcher"] |= {"processes": 2, "deepspeed": deepspeed}
        return {
            "preset": preset,
            "recipe": recipe.model_dump(mode="json"),
            "store": str(store.root),
            "target": lasting_target,
            "output": str(tmp_path / name),
            "fixed_completions": True,
        }

    return made


def weights_of(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(Path(settings["output"]) / "model" / "model.safetensors")


@pytest.mark.parametrize("preset", ["rbio1-published", "h100x8"])
def test_a_presets_own_deepspeed_block_trains_as_without_it(preset, settings, tiny_preset, gpu_packages, capsys):
    block = load_preset(preset).launcher.deepspeed
    plain, spread = settings("plain", None, beta=0.04), settings("spread", block, beta=0.04)
    run(plain, 2, gpu_packages)
    run(spread, 2, gpu_packages)
    start = load_file(str(tiny_preset.policy.model) + "/model.safetensors")
    one, other = weights_of(plain), weights_of(spread)
    moved = max(float((one[name] - start[name]).abs().max()) for name in start)
    apart = max(float((one[name] - other[name]).abs().max()) for name in start)
    with capsys.disabled():
        print(f"\n{preset}, ZeRO-{block['zero_optimization']['stage']}: weights moved {moved:.2e}, apart {apart:.2e}")
    assert moved > 1e-3
    assert apart < 1e-5
    kl = [record["kl"] for record in read_records(Path(spread["output"]) / "metrics.jsonl")]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[-1] > 0
