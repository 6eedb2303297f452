"""Makes the artifacts that ship built, from the bundled set alone: ``python -m bioverify.cli.prebuilt``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer

from bioverify.artifacts.prebuilt import ARCHIVE, install, pack
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.build_settings import BuildSettings
from bioverify.cli.services import PREBUILT, build_artifact


def make(folder: Path) -> ArtifactStore:
    """The artifacts, below the folder, as on a machine without cache, mirror and network."""
    store = ArtifactStore(folder / "artifacts")
    sources = Sources(mirror=None, cache=folder / "sources", offline=True)
    for name in PREBUILT:
        build_artifact(name, store, sources, lambda _: None, BuildSettings())
    return store


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder) / "made")
        if ARCHIVE.exists():
            shipped = {manifest.name: manifest.digest for manifest in install(ArtifactStore(Path(folder) / "shipped"))}
            # Times of the build differ each time: an archive of the same artifacts stays as it is.
            if shipped == {name: made.manifest(name).digest for name in PREBUILT}:
                typer.echo(f"{ARCHIVE.name} holds what a build makes today")
                return
        pack(made, list(PREBUILT), ARCHIVE)
    typer.echo(f"{ARCHIVE.name}: {ARCHIVE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
