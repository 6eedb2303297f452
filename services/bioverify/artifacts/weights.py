"""The ``consensus`` artifact as a service opens it: one JSON file, so that the aggregator needs no Arrow to read it."""

from __future__ import annotations

from bioverify.artifacts.store import ArtifactStore, OpenArtifact
from bioverify.core.consensus import CONSENSUS, Consensus

FILE = "consensus.json"


def open_consensus(store: ArtifactStore) -> tuple[Consensus, OpenArtifact]:
    """Raises ArtifactError if the artifact is missing or damaged."""
    artifact = store.open(CONSENSUS)
    return Consensus.model_validate_json((artifact.path / FILE).read_bytes()), artifact
