"""One reward, whichever way it is asked for."""

from __future__ import annotations

import pytest

from benchmarks.same_rewards import CHROMIUM, ask_every_way, differing, draw
from bioverify.artifacts.store import ArtifactStore
from tests.fixtures.stack import LocalStack

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]


def test_fifty_items_have_the_same_reward_by_every_way(stack: LocalStack, bundled_store: ArtifactStore) -> None:
    items, _ = draw(bundled_store, 50, seed=1)
    asked = ask_every_way(items, stack.target, f"http://127.0.0.1:{stack.port_base + 9}")
    assert len(asked) == 6
    assert [len(rewards) for rewards in asked.values()] == [50] * 6
    assert sum(reward is not None for reward in asked["Python"].values()) > 25
    assert len(set(asked["Python"].values())) > 25
    assert differing(asked) == []


def test_a_reward_that_differs_by_one_way_is_named() -> None:
    same = {"a": 1.0, "b": None}
    assert differing({"curl": same, "grpcurl": same}) == []
    assert differing({"curl": same, "grpcurl": {"a": 1.0, "b": 0.0}}) == ["b"]
    assert differing({"curl": same, "grpcurl": {"a": 1.0000000000000002}}) == ["a", "b"]
