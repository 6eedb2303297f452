"""What is watched: the artifacts of BIOVERIFY_HOME where it is set, which spares building, else the bundled ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bioverify.artifacts.store import ArtifactStore
from tests.fixtures.artifacts import build_bundled
from tests.trainer.conftest import tiny_policy

__all__ = ["tiny_policy"]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    if "BIOVERIFY_HOME" in os.environ:
        return ArtifactStore.default()
    folder: Path = tmp_path_factory.mktemp("bundled")
    return build_bundled(folder)
