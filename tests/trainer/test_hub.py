"""A model of a hub that cannot be reached is told in seconds; what its cache holds is opened all the same."""

from __future__ import annotations

import json
import socket
import time

import pytest
import torch
from huggingface_hub import constants

from bioverify_trainer.model.checkpoints import CheckpointError, fetch
from bioverify_trainer.model.policy import PolicyError, open_policy


@pytest.fixture
def silent_hub(monkeypatch):
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield constants.ENDPOINT


def test_a_hub_that_does_not_answer_is_told_within_ten_seconds_and_what_to_do(silent_hub):
    started = time.monotonic()
    with pytest.raises(PolicyError) as refused:
        open_policy("nobody/no-such-model", dtype=torch.float32)
    assert time.monotonic() - started < 10
    assert (
        f"the model hub at {silent_hub} does not answer, and its cache here does not hold 'nobody/no-such-model'"
        in str(refused.value)
    )
    assert "Name a folder with a checkpoint, or set HTTPS_PROXY or HF_ENDPOINT" in str(refused.value)


def test_an_adapter_whose_base_is_a_hubs_is_told_likewise_and_a_folder_asks_nobody(
    silent_hub, tiny_policy, tmp_path, monkeypatch
):
    monkeypatch.setattr("bioverify_trainer.model.policy.HUB_WAIT_S", 0.2)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "nobody/no-such-model"}))
    with pytest.raises(PolicyError, match=r"the model hub at .* does not answer"):
        open_policy(str(tmp_path), dtype=torch.float32)
    assert open_policy(str(tiny_policy), dtype=torch.float32).path == str(tiny_policy)
    with pytest.raises(PolicyError, match="neither 'smollm2', nor a folder"):
        open_policy(str(tmp_path / "nowhere"), dtype=torch.float32)


def test_a_bucket_that_does_not_answer_is_told_within_ten_seconds(silent_hub, tmp_path):
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="rbio1-exp could not be fetched from"):
        fetch("rbio1-exp", tmp_path, bucket=silent_hub)
    assert time.monotonic() - started < 10
