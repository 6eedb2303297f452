"""The bytes of an artifact are changed under a running service: wrong numbers stop, a repair brings it back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bioverify.artifacts.remote import Remote
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli import app
from bioverify.client import Client, ListedVerifier, ScoredBatch, ScoreItem
from bioverify.core.outcomes import Failed
from bioverify.core.verifier import Item, without_builds
from bioverify.verifiers.transcriptformer_pmi.artifact import MATRIX_FILE
from tests.fixtures import servers
from tests.fixtures.rewards import outcome_of, recipe, required
from tests.fixtures.waiting import wait_until

NAME = "transcriptformer_pmi"


def to_score(number: int, item: Item) -> ScoreItem:
    return ScoreItem(str(number), f"<think>so</think><answer>{'yes' if item.answer else 'no'}</answer>", task=item.task)


def described(client: Client) -> ListedVerifier:
    [listed] = client.list_verifiers()
    return listed


def test_flipped_bytes_withdraw_the_verifier_and_a_repair_brings_it_back_under_another_fingerprint(
    bundled_store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    shutil.copytree(bundled_store.root, home / "artifacts")
    store = ArtifactStore(home / "artifacts")
    assert all(file.stat().st_mode & 0o222 == 0 for file in store.open(NAME).path.iterdir())
    monkeypatch.setenv("BIOVERIFY_HOME", str(home))
    items = [one for one, _ in store.open(NAME).identity.canaries]
    asked = [to_score(number, one) for number, one in enumerate(items[:16])]
    with (
        servers.valkey() as redis_url,
        servers.verifier("real", parameters={"name": NAME}, check_every_s=0.2) as verifier,
        servers.aggregator({NAME: verifier.target}, redis_url=redis_url) as running,
        Client(running.target) as client,
    ):
        by = recipe(required(NAME))
        right = [reward.reward for reward in client.score(asked, by).rewards]
        assert all(value is not None for value in right)
        first = described(client)
        assert client.score(asked, by).verifiers[0].cache_hits == len(asked)

        matrix = store.open(NAME).path / MATRIX_FILE
        matrix.chmod(0o644)
        with matrix.open("r+b") as file:
            file.seek(matrix.stat().st_size // 2)
            file.write(bytes(4096))

        # At once, asked anew: no number that was computed from these bytes leaves.
        other = [to_score(number, one) for number, one in enumerate(items[16:32])]
        for reward in client.score(other, by).rewards:
            outcome = outcome_of(reward, NAME)
            assert isinstance(outcome, Failed)
            assert (reward.reward, outcome.reason, "was changed" in outcome.detail) == (None, "withdrawn", True)
        wait_until(lambda: verifier.health() == 2)  # NOT_SERVING
        # What the cache holds rests on the same artifact: it is not used either.
        assert {reward.reward for reward in client.score(asked, by).rewards} == {None}

        done = CliRunner().invoke(app, ["data", "verify", NAME])
        assert done.exit_code == 1
        assert f"Run: bioverify data verify --repair {NAME}" in done.output
        remote = tmp_path / "remote"
        Remote(str(remote)).push(bundled_store, NAME, tell=lambda _: None)
        done = CliRunner().invoke(app, ["data", "verify", "--repair", "--from", str(remote), NAME])
        assert done.exit_code == 0, done.output
        wait_until(lambda: verifier.health() == 1, timeout_s=30)
        wait_until(lambda: described(client).is_ready, timeout_s=30)
        second = described(client)
        assert second.fingerprint != first.fingerprint
        assert without_builds(second.fingerprint) == without_builds(first.fingerprint)
        batches: list[ScoredBatch] = []

        def is_asked_again() -> bool:
            """The aggregator's breaker closes in its own time, perhaps already at the first call."""
            batches.append(client.score(asked, by))
            return batches[-1].rewards[0].reward is not None

        wait_until(is_asked_again)
        assert batches[-1].verifiers[0].cache_hits == 0
        assert [reward.reward for reward in batches[-1].rewards] == right
