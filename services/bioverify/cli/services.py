"""The verifiers and artifacts by name: the one place where a new verifier of this repository is entered.

Each is imported where it is opened or built, because only one of them needs torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bioverify.artifacts.errors import ArtifactError
from bioverify.errors import missing_extra

if TYPE_CHECKING:
    from bioverify.artifacts.sources import Sources
    from bioverify.artifacts.store import ArtifactStore, Manifest
    from bioverify.cli.build_settings import BuildSettings
    from bioverify.core.verifier import Verifier

# In the order of the local stack's ports.
VERIFIERS = ("experimental", "go_rouge", "transcriptformer_pmi", "esm_mlp", "format", "analogy", "claims")
# In the order in which they are built: later ones are made with earlier ones.
ARTIFACTS = (
    "genes",
    "experimental",
    "go_rouge",
    "claims",
    "transcriptformer_pmi",
    "prompts",
    "esm_mlp",
    "analogy",
    "consensus",
)

# What ships built, and the verifiers that answer from it.
PREBUILT = ("genes", "experimental", "go_rouge", "transcriptformer_pmi")
FIRST_VERIFIERS = tuple(name for name in VERIFIERS if name in {*PREBUILT, "format"})
# Whose beliefs a consensus is made of; apart from the build, which needs torch.
CONSENSUS_MEMBERS = frozenset({"esm_mlp", "analogy"})


def composes_consensus(verifiers: Sequence[str]) -> bool:
    """Whether all its members are among them."""
    return set(verifiers) >= CONSENSUS_MEMBERS


def opened_by(verifiers: Sequence[str]) -> list[str]:
    """The artifacts that these verifiers, and an aggregator before them, open."""
    own = [name for name in ARTIFACTS if name in verifiers]
    return [*(["genes"] if own else []), *own, *(["consensus"] if composes_consensus(verifiers) else [])]


# Cores per process, by what a completion costs where (docs/performance.md); a lookup's one process serves a machine.
_CORES_PER_PROCESS = {"aggregator": 4, "go_rouge": 4, "format": 8, "claims": 2}


def workers_of(verifiers: Sequence[str], each: int | None, cores: int | None = None) -> dict[str, int]:
    """Processes of the aggregator and of each verifier: ``each``, or as many as suit the cores that are to be had."""
    names = ("aggregator", *verifiers)
    if each is not None:
        return dict.fromkeys(names, each)
    cores = cores or os.cpu_count() or 1
    return {name: max(1, cores // _CORES_PER_PROCESS.get(name, cores)) for name in names}


def open_verifier(name: str, store: ArtifactStore) -> Verifier:
    """The verifier over its artifact. Raises ArtifactError with the command that mends it, KeyError for no verifier."""
    try:
        return _open(name, store)
    except ModuleNotFoundError as error:
        raise ArtifactError(f"{name}: {missing_extra(error) or error}") from error


def _open(name: str, store: ArtifactStore) -> Verifier:
    match name:
        case "experimental":
            from bioverify.verifiers.experimental import verifier as experimental

            return experimental.open_verifier(store)
        case "go_rouge":
            from bioverify.verifiers.go_rouge import verifier as go_rouge

            return go_rouge.open_verifier(store)
        case "transcriptformer_pmi":
            from bioverify.verifiers.transcriptformer_pmi import verifier as transcriptformer_pmi

            return transcriptformer_pmi.open_verifier(store)
        case "esm_mlp":
            from bioverify.verifiers.esm_mlp import verifier as esm_mlp

            return esm_mlp.open_verifier(store)
        case "analogy":
            from bioverify.verifiers.analogy import verifier as analogy

            return analogy.open_verifier(store)
        case "claims":
            from bioverify.verifiers.claims import verifier as claims

            return claims.open_verifier(store)
        case "format":
            from bioverify.verifiers.format import verifier as format_verifier

            return format_verifier.open_verifier()
    raise KeyError(name)


def build_artifact(
    name: str, store: ArtifactStore, sources: Sources, progress: Callable[[str], None], settings: BuildSettings
) -> Manifest:
    """Make the artifact and put it in the store. Raises ArtifactError, KeyError for no artifact."""
    try:
        return _build(name, store, sources, progress, settings)
    except ModuleNotFoundError as error:
        raise ArtifactError(f"{name}: {missing_extra(error, 'build') or missing_extra(error) or error}") from error


def _build(
    name: str, store: ArtifactStore, sources: Sources, progress: Callable[[str], None], settings: BuildSettings
) -> Manifest:
    match name:
        case "genes":
            from bioverify.artifacts import genes

            return genes.build(store, sources, progress=progress)
        case "prompts":
            from bioverify.artifacts import prompts

            return prompts.build(store, sources, progress=progress)
        case "experimental":
            from bioverify.verifiers.experimental import build as experimental

            return experimental.build(store, sources, progress=progress, settings=settings.experimental)
        case "go_rouge":
            from bioverify.verifiers.go_rouge import build as go_rouge

            return go_rouge.build(store, sources, progress=progress, settings=settings.go_rouge)
        case "claims":
            from bioverify.verifiers.claims import build as claims

            return claims.build(store, sources, progress=progress, settings=settings.claims)
        case "transcriptformer_pmi":
            from bioverify.verifiers.transcriptformer_pmi import build as transcriptformer_pmi

            return transcriptformer_pmi.build(store, sources, progress=progress, settings=settings.transcriptformer_pmi)
        case "esm_mlp":
            from bioverify.verifiers.esm_mlp import build as esm_mlp

            return esm_mlp.build(store, sources, progress=progress, settings=settings.esm_mlp)
        case "analogy":
            from bioverify.verifiers.analogy import build as analogy

            return analogy.build(store, sources, progress=progress, settings=settings.analogy)
        case "consensus":
            from bioverify.artifacts import consensus
            from bioverify.verifiers.analogy import verifier as analogy_verifier
            from bioverify.verifiers.esm_mlp import verifier as esm_mlp_verifier

            members: dict[str, consensus.Member] = {
                "esm_mlp": esm_mlp_verifier.open_verifier(store),
                "analogy": analogy_verifier.open_verifier(store),
            }
            return consensus.build(store, sources, members, progress=progress)
    raise KeyError(name)
