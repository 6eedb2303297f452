"""One vector per gene, as the ``esm_mlp`` artifact keeps them: what genes are, for whoever learns what they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.core.genes import GeneResolver

NAME = "esm_mlp"
SYMBOLS_FILE = "symbols.arrows"
VECTORS_FILE = "vectors.safetensors"
"""What the nets are fed with."""
JOINT_FILE = "joint.safetensors"
"""With all their dimensions, if nets are fed with fewer."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class KnownVectors:
    """``vectors``: a row per symbol. ``name``: what they were made of; ``digest``: of the artifact."""

    resolver: GeneResolver
    symbols: list[str]
    vectors: Vectors
    name: str
    digest: str


def open_vectors(store: ArtifactStore) -> KnownVectors:
    """Raises ArtifactError with the command that mends it."""
    resolver, _ = open_genes(store)
    artifact = store.open(NAME)
    vectors: npt.NDArray[Any] = load_file(artifact.path / VECTORS_FILE)["vectors"]
    return KnownVectors(
        resolver,
        read_served(artifact, SYMBOLS_FILE).strings("symbol"),
        vectors.astype(np.float32),
        str(artifact.manifest.parameters["vectors"]),
        artifact.identity.digest,
    )


def leading(vectors: Vectors, dimensions: int | None) -> Vectors:
    """In their ``dimensions`` leading principal directions, of unit mean square; None, or fewer than that: as they are.

    Signs are canonical.
    """
    if dimensions is None or vectors.shape[1] <= dimensions:
        return vectors
    double = vectors.astype(np.float64)
    centred = double - double.mean(axis=0)
    _, basis = np.linalg.eigh(centred.T @ centred)
    chosen = basis[:, ::-1][:, :dimensions]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(dimensions)])
    coordinates = centred @ chosen
    scaled: Vectors = (coordinates / np.sqrt(np.mean(coordinates**2))).astype(np.float32)
    return scaled
