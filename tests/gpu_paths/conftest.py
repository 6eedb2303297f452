"""What a GPU path needs and a CPU has: DeepSpeed without its kernels, on two processes that talk over gloo.

DeepSpeed is installed in a folder of its own: where it can be imported, accelerate imports it at every start.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.trainer.conftest import (  # noqa: F401
    format_verifier,
    lasting_target,
    recipe,
    store,
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
