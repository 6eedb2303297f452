"""Content-addressed folders of built artifacts.

An artifact lives in ``<root>/<name>/<digest[:16]>/`` beside a ``manifest.json`` with the sha256 of every file; the file
``<root>/<name>/current`` names the folder in use. A build writes into a temporary folder of the same root, which is
synced to disk and renamed into place, and only then is ``current`` replaced: whoever opens the artifact sees the old
one or the new one, and an interrupted build leaves nothing behind that could be opened. The digest covers what was made
and from which bytes, but not when, nor from where those bytes were fetched, so the same content is the same artifact on
every machine, and other content gets another digest and with it another verifier fingerprint.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from bioverify.artifacts.errors import ArtifactError
from bioverify.core.verifier import ArtifactIdentity

SourceKind = Literal["explicit", "cache", "mirror", "url", "bundled", "generated"]
Parameter = str | int | float | bool | list[str] | dict[str, str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceRecord(_Strict):
    """One source file: ``kind`` and ``location`` say where this build took it, ``url`` is the official address."""

    name: str
    kind: SourceKind
    location: str
    url: str
    sha256: str
    license: str


class FileRecord(_Strict):
    sha256: str
    size_bytes: int


class Manifest(_Strict):
    """What an artifact is, what it was made of, and the checksums of its files."""

    name: str
    description: str
    code_version: str
    license: str
    simulated: bool
    sources: tuple[SourceRecord, ...]
    inputs: dict[str, str]
    """Digests of the artifacts that this one was made with."""
    parameters: dict[str, Parameter]
    counts: dict[str, int]
    coverage: dict[str, float]
    """Shares in [0, 1]."""
    quality: dict[str, float]
    files: dict[str, FileRecord]
    built_at: str

    @property
    def digest(self) -> str:
        """ "sha256:" and 64 hexadecimal digits: the hash of the canonical JSON without time and place of the build."""
        content = self.model_dump(exclude={"built_at": True, "sources": {"__all__": {"kind", "location"}}})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        return self.digest.removeprefix("sha256:")[:16]

    @property
    def size_bytes(self) -> int:
        return sum(record.size_bytes for record in self.files.values())


@dataclass(frozen=True)
class OpenArtifact:
    """A verified artifact: every file in ``path`` had the checksum of the manifest when it was opened."""

    path: Path
    manifest: Manifest

    @property
    def identity(self) -> ArtifactIdentity:
        return ArtifactIdentity(
            name=self.manifest.name,
            digest=self.manifest.digest,
            license=self.manifest.license,
            sources=tuple(source.url or source.location for source in self.manifest.sources),
            simulated=self.manifest.simulated,
        )


@dataclass
class Build:
    """A build under way: files are written below ``path``, then `commit` makes them the current artifact."""

    name: str
    path: Path
    root: Path
    committed: Manifest | None = field(default=None, init=False)

    def commit(
        self,
        *,
        description: str,
        license: str,  # noqa: A002  the manifest's own word
        sources: Sequence[SourceRecord],
        simulated: bool = False,
        inputs: Sequence[OpenArtifact] = (),
        parameters: Mapping[str, Parameter] | None = None,
        counts: Mapping[str, int] | None = None,
        coverage: Mapping[str, float] | None = None,
        quality: Mapping[str, float] | None = None,
    ) -> Manifest:
        """Write the manifest, move the folder into place and point ``current`` at it. Same content: reused."""
        files = {
            file.relative_to(self.path).as_posix(): _record_and_sync(file)
            for file in sorted(self.path.rglob("*"))
            if file.is_file()
        }
        manifest = Manifest(
            name=self.name,
            description=description,
            code_version=version("bioverify"),
            license=license,
            simulated=simulated,
            sources=tuple(sources),
            inputs={artifact.manifest.name: artifact.manifest.digest for artifact in inputs},
            parameters=dict(parameters or {}),
            counts=dict(counts or {}),
            coverage=dict(coverage or {}),
            quality=dict(quality or {}),
            files=files,
            built_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        _write_synced(self.path / "manifest.json", manifest.model_dump_json(indent=2) + "\n")
        _sync_folder(self.path)
        home = self.root / self.name
        home.mkdir(parents=True, exist_ok=True)
        target = home / manifest.folder_name
        if not _is_intact(target, manifest):
            if target.exists():
                # A damaged folder of the same digest: put aside, and removed with the rest of the temporary folder.
                target.rename(self.path.with_name(self.path.name + ".damaged"))
            self.path.rename(target)
        pointer = self.path.with_name(self.path.name + ".current")
        _write_synced(pointer, manifest.folder_name + "\n")
        pointer.replace(home / "current")
        _sync_folder(home)
        self.committed = manifest
        return manifest


@dataclass(frozen=True)
class ArtifactStore:
    """All built artifacts below ``root``, which need not exist yet."""

    root: Path

    @classmethod
    def default(cls) -> Self:
        """``$BIOVERIFY_HOME/artifacts``, else the user's data folder."""
        return cls(home_folder("artifacts"))

    def open(self, name: str) -> OpenArtifact:
        """Verify every file of the current artifact and open it; ArtifactError says what mends it."""
        mend = f"Run: bioverify data build {name}"
        pointer = self.root / name / "current"
        try:
            folder_name = pointer.read_text().strip()
        except FileNotFoundError:
            raise ArtifactError(f"artifact {name}: not built yet ({pointer} is missing). {mend}") from None
        path = self.root / name / folder_name
        try:
            manifest = Manifest.model_validate_json((path / "manifest.json").read_text())
        except FileNotFoundError:
            raise ArtifactError(f"artifact {name}: {path / 'manifest.json'} is missing. {mend}") from None
        except (ValidationError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise ArtifactError(f"artifact {name}: {path / 'manifest.json'} is unreadable ({reason}). {mend}") from None
        if manifest.name != name or manifest.folder_name != folder_name:
            raise ArtifactError(
                f"artifact {name}: manifest.json has the digest {manifest.folder_name}…, its folder is {folder_name}. "
                f"The manifest was changed. {mend}"
            )
        for file_name, record in manifest.files.items():
            _verify(name, path / file_name, file_name, record, mend)
        return OpenArtifact(path, manifest)

    def list(self) -> list[Manifest]:
        """Manifests of all current artifacts by name; their files are not verified."""
        pointers = sorted(self.root.glob("*/current"))
        return [
            Manifest.model_validate_json((pointer.parent / pointer.read_text().strip() / "manifest.json").read_text())
            for pointer in pointers
        ]

    @contextmanager
    def building(self, name: str) -> Iterator[Build]:
        """A folder to build ``name`` in. Without a commit, or after an exception, nothing of it stays."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{name}.lock").open("w") as lock:
            # Only the holder of the lock builds this artifact, so whatever is left of other builds was interrupted.
            fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_leftovers(self.root, name)
            try:
                path = Path(tempfile.mkdtemp(prefix=f".building-{name}-", dir=self.root))
                path.chmod(0o755)
                yield Build(name, path, self.root)
            finally:
                _remove_leftovers(self.root, name)


def home_folder(part: str) -> Path:
    """``$BIOVERIFY_HOME/<part>``, else ``<part>`` in the user's data folder."""
    home = os.environ.get("BIOVERIFY_HOME")
    return Path(home) / part if home else Path(platformdirs.user_data_dir("bioverify", appauthor=False)) / part


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(name: str, path: Path, file_name: str, record: FileRecord, mend: str) -> None:
    if not path.is_file():
        raise ArtifactError(f"artifact {name}: {file_name} is missing from {path.parent}. {mend}")
    found = sha256_of(path)
    if found != record.sha256:
        raise ArtifactError(
            f"artifact {name}: sha256 of {file_name} is {found[:4]}…, manifest says {record.sha256[:4]}…. "
            f"The file was changed or cut short. {mend}"
        )


def _is_intact(path: Path, manifest: Manifest) -> bool:
    return (path / "manifest.json").is_file() and all(
        (path / name).is_file() and sha256_of(path / name) == record.sha256 for name, record in manifest.files.items()
    )


def _record_and_sync(path: Path) -> FileRecord:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return FileRecord(sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(root: Path, name: str) -> None:
    for leftover in root.glob(f".building-{name}-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
