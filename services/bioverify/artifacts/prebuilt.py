"""Artifacts that ship built, so that a first score needs no build: Gene Ontology, blood cells, the simulated screen.

One archive in the package, laid out as in the store: ``NAME/DIGEST/file``. It is made from the bundled set alone
(`bioverify.cli.prebuilt`, `make prebuilt`), so nothing that may not be shipped can be in it, and a test holds it to
what a build makes today. Each file's sha256 is verified when an artifact is opened, as for any other.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.sources import BUNDLED_FOLDER
from bioverify.artifacts.store import MANIFEST_FILE, ArtifactStore, Manifest

ARCHIVE = BUNDLED_FOLDER / "prebuilt.tar.xz"
EXAMPLES = BUNDLED_FOLDER / "completions.jsonl"
MAX_BYTES = 3_000_000
"""Of the archive: what the package may grow by."""


def pack(store: ArtifactStore, names: list[str], archive: Path) -> None:
    """Write the archive. The same artifacts give the same bytes. Raises ArtifactError for one that is not built."""
    with tarfile.open(archive, "w:xz") as packed:
        for name in names:
            opened = store.open(name)
            folder = f"{name}/{opened.manifest.folder_name}"
            for path in sorted(path for path in opened.path.rglob("*") if path.is_file()):
                # Without owner, mode and time, which are this machine's.
                entry = tarfile.TarInfo(f"{folder}/{path.relative_to(opened.path).as_posix()}")
                entry.size = path.stat().st_size
                packed.addfile(entry, io.BytesIO(path.read_bytes()))


def install(store: ArtifactStore, archive: Path = ARCHIVE) -> list[Manifest]:
    """Put all of the archive into the store. Raises ArtifactError if it is damaged."""
    installed = []
    try:
        with tarfile.open(archive, "r:xz") as packed:
            by_name: dict[str, list[tarfile.TarInfo]] = {}
            for entry in packed.getmembers():
                by_name.setdefault(PurePosixPath(entry.name).parts[0], []).append(entry)
            for name, entries in by_name.items():
                with store.building(name) as build:
                    for entry in entries:
                        # Without the folders of name and digest.
                        target = build.path.joinpath(*PurePosixPath(entry.name).parts[2:])
                        target.parent.mkdir(parents=True, exist_ok=True)
                        content = packed.extractfile(entry)
                        if content is None or ".." in target.parts:
                            raise ArtifactError(f"{archive} holds {entry.name}, which is no file of an artifact")
                        with target.open("wb") as file:
                            shutil.copyfileobj(content, file)
                    manifest = Manifest.model_validate_json((build.path / MANIFEST_FILE).read_bytes())
                    installed.append(build.install(manifest))
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise ArtifactError(f"{archive} cannot be read ({error}). Install bioverify again") from error
    return installed
