"""The artifacts that ship built: what a build makes today, small, and of nothing that may not be shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.prebuilt import ARCHIVE, MAX_BYTES, install, pack
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import ARTIFACTS, FIRST_VERIFIERS, PREBUILT, VERIFIERS, open_verifier, opened_by
from bioverify.core.outcomes import Failed

OF_A_MACHINE = {"built_at", "canaries", "build_id", "files", "coverage", "quality"}
"""What may differ between two builds of the same, or in its last digits."""


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    store = ArtifactStore(tmp_path_factory.mktemp("shipped") / "artifacts")
    install(store)
    return store


@pytest.mark.parametrize("name", PREBUILT)
def test_what_ships_is_what_a_build_makes_today(
    shipped: ArtifactStore, bundled_store: ArtifactStore, name: str
) -> None:
    """If it is not: make prebuilt."""
    old, new = shipped.open(name), bundled_store.open(name)
    assert old.manifest.model_dump(exclude=OF_A_MACHINE) == new.manifest.model_dump(exclude=OF_A_MACHINE)
    assert old.manifest.files.keys() == new.manifest.files.keys()
    for file in old.manifest.files:
        if file.endswith(".npy"):
            np.testing.assert_allclose(np.load(old.path / file), np.load(new.path / file), rtol=1e-5, atol=1e-6)
        else:
            assert (old.path / file).read_bytes() == (new.path / file).read_bytes(), file


def test_what_ships_is_small_and_made_of_what_may_be_shipped(shipped: ArtifactStore) -> None:
    assert ARCHIVE.stat().st_size <= MAX_BYTES
    assert shipped.names() == sorted(PREBUILT)
    sources = [source for manifest in shipped.list() for source in manifest.sources]
    assert {source.kind for source in sources} == {"bundled", "generated"}
    assert {manifest.name for manifest in shipped.list() if manifest.simulated} == {"experimental"}


def test_every_verifier_of_a_first_score_opens_from_it_and_answers_its_canaries(shipped: ArtifactStore) -> None:
    for name in FIRST_VERIFIERS:
        verifier = open_verifier(name, shipped)
        asked = verifier.description.canaries
        answers = verifier.score([item for item, _ in asked])
        assert not any(isinstance(answer, Failed) for answer in answers), name
    assert all(not list(shipped.verify(name)) for name in PREBUILT)


def test_the_same_artifacts_give_the_same_archive(shipped: ArtifactStore, tmp_path: Path) -> None:
    pack(shipped, list(PREBUILT), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == ARCHIVE.read_bytes()


@pytest.mark.parametrize("n_bytes", [0, 100, 1_000_000])
def test_an_archive_that_was_cut_short_is_named_and_leaves_nothing_that_could_be_opened(
    tmp_path: Path, n_bytes: int
) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(ARCHIVE.read_bytes()[:n_bytes])
    store = ArtifactStore(tmp_path / "artifacts")
    with pytest.raises(ArtifactError, match=r"cut cannot be read .* Install bioverify again"):
        install(store, cut)
    assert store.names() == []


@pytest.mark.parametrize(
    ("verifiers", "opened"),
    [
        (("format",), []),
        (("go_rouge", "format"), ["genes", "go_rouge"]),
        (("esm_mlp",), ["genes", "esm_mlp"]),
        (VERIFIERS, [name for name in ARTIFACTS if name != "prompts"]),
    ],
)
def test_only_what_is_started_has_to_be_built(verifiers: tuple[str, ...], opened: list[str]) -> None:
    assert opened_by(verifiers) == opened
