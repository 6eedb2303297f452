"""The chains of docs/known-chains.md, asked of the real ontology and its annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.outcomes import Scored
from bioverify.core.tasks import PROSE
from bioverify.core.verifier import Item
from bioverify.verifiers.claims import build
from bioverify.verifiers.claims.verifier import open_verifier
from tests.fixtures.artifacts import silent

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_document_says_of_every_chain_what_the_verifier_says(
    real_store: ArtifactStore, real_sources: Sources
) -> None:
    build.build(real_store, real_sources, progress=silent)
    verifier = open_verifier(real_store)
    chains = (ROOT / "examples" / "chains.txt").read_text(encoding="utf-8").split("\n\n")
    outcomes = verifier.score([Item(PROSE, completion=text) for text in chains])
    assert len(chains) == 10
    told = []
    for outcome in outcomes:
        assert isinstance(outcome, Scored)
        told += [one.text for one in outcome.evidence]
    lines = (ROOT / "docs" / "known-chains.md").read_text(encoding="utf-8").splitlines()
    assert [line.strip() for line in lines if line.startswith("  ")] == told
    assert [outcome.value > 0 for outcome in outcomes if isinstance(outcome, Scored)] == [True] * 7 + [False] * 3
