"""What a shell completes beside options and files: names of recipes, verifiers and artifacts. Nothing is asked."""

from __future__ import annotations

from bioverify.cli.services import ARTIFACTS, VERIFIERS


def recipe_names(incomplete: str) -> list[str]:
    """Those that ship; an aggregator may know others."""
    from bioverify.recipes import names

    return _beginning(names(), incomplete)


def verifier_names(incomplete: str) -> list[str]:
    return _beginning(VERIFIERS, incomplete)


def artifact_names(incomplete: str) -> list[str]:
    """Those that can be built."""
    return _beginning(ARTIFACTS, incomplete)


def built_names(incomplete: str) -> list[str]:
    """Those that are built here."""
    from bioverify.artifacts.store import ArtifactStore

    return _beginning(ArtifactStore.default().names(), incomplete)


def _beginning(names: list[str] | tuple[str, ...], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
