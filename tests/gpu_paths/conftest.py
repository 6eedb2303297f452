"""What a GPU path needs and a CPU has: DeepSpeed without its kernels, on two processes that talk over gloo.

DeepSpeed is installed in a folder of its own: where it can be imported, accelerate imports it at every start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures import servers
from tests.trainer.conftest import (  # noqa: F401
    format_verifier,
    lasting_target,
    mixed_store,
    recipe,
    tiny_policy,
    tiny_preset,
    verifier_targets,
)

GPU_PACKAGES = "BIOVERIFY_GPU_PACKAGES"


@pytest.fixture(scope="session")
def gpu_packages() -> Path:
    """The folder with DeepSpeed."""
    folder = os.environ.get(GPU_PACKAGES, "")
    if not folder:
        pytest.skip(f"{GPU_PACKAGES} names no folder: run make test-gpu-paths")
    return Path(folder)


def launch(module: str, arguments: Any, ranks: int, packages: Path) -> None:
    """Run a module of the tests in ``ranks`` processes that can import DeepSpeed, to its good end."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    command += [f"--master-port={servers.free_port()}", "-m", module, json.dumps(arguments)]
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        command, cwd=servers.ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, "\n".join(
        [line for line in done.stderr.splitlines() if "rank0" in line] or [done.stderr[-3000:]]
    )


@pytest.fixture
def settings(tiny_preset, recipe, mixed_store, lasting_target, tmp_path) -> Callable[..., dict[str, Any]]:  # noqa: F811
    """One run, as `tests.trainer.two_ranks` reads it."""

    def made(name: str, *, ranks: int, deepspeed: dict[str, Any] | None = None, **grpo: Any) -> dict[str, Any]:
        preset = tiny_preset.model_dump(mode="json")
        preset["grpo"] |= {"max_steps": 4, "save_steps": 1, "use_cpu": False, **grpo}
        preset["launcher"] |= {"processes": ranks, "deepspeed": deepspeed}
        return {
            "preset": preset,
            "recipe": recipe.model_dump(mode="json"),
            "store": str(mixed_store.root),
            "target": lasting_target,
            "output": str(tmp_path / name),
        }

    return made


def weights_of(run: dict[str, Any], checkpoint: str = "model") -> dict[str, torch.Tensor]:
    return load_file(Path(run["output"]) / checkpoint / "model.safetensors")


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest distance of two weights of one place."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)
