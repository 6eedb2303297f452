"""Content-addressed folders of built artifacts.

An artifact lives in ``<root>/<name>/<digest[:16]>/`` beside a ``manifest.json`` with the sha256 of every file, and
``SHA256SUMS``, which covers the manifest as well; the file ``<root>/<name>/current`` names the folder in use. A build
writes into a temporary folder of the same root, which is synced to disk and renamed into place, and only then is
``current`` replaced: whoever opens the artifact sees the old one or the new one, and an interrupted build leaves
nothing behind that could be opened. The digest covers what was made and from which bytes, but not when, nor from where
those bytes were fetched, so the same content is the same artifact on every machine, and other content gets another
digest and with it another verifier fingerprint.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from bioverify import __version__
from bioverify.artifacts.checksums import SUMS_FILE, problems, sha256_of, sums_text
from bioverify.artifacts.errors import ArtifactError
from bioverify.core.verifier import ArtifactIdentity
from bioverify.files import replace_file, sync
from bioverify.settings import first_problem

MANIFEST_FILE = "manifest.json"

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
        made = self.manifest
        return ArtifactIdentity(
            name=self.manifest.name,
            digest=self.manifest.digest,
            license=self.manifest.license,
            sources=tuple(source.url or source.location for source in self.manifest.sources),
            simulated=self.manifest.simulated,
            figures={**made.counts, **made.coverage, **made.quality},
        )

    def parameter(self, name: str) -> Parameter:
        """Raises ArtifactError that says how to mend it if an earlier version built the artifact without."""
        if name not in self.manifest.parameters:
            raise ArtifactError(
                f"artifact {self.manifest.name}: its manifest has no parameter {name}; an earlier version built it. "
                f"{_mend(self.manifest.name)}"
            )
        return self.manifest.parameters[name]


@dataclass
class Build:
    """A build under way: files are written below ``path``, then `commit` makes them the current artifact."""

    name: str
    path: Path
    root: Path

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
            code_version=__version__,
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
        replace_file(self.path / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
        replace_file(self.path / SUMS_FILE, sums_text(_expected(self.path, manifest)))
        self.install(manifest)
        return manifest

    def install(self, manifest: Manifest) -> None:
        """Move the complete folder into place and point ``current`` at it. An intact one of that digest is kept."""
        sync(self.path)
        home = self.root / self.name
        home.mkdir(parents=True, exist_ok=True)
        target = home / manifest.folder_name
        if not _is_intact(self.root, self.name, manifest.folder_name):
            if target.exists():
                # A damaged folder of the same digest: put aside, and removed with the rest of the temporary folder.
                target.rename(self.path.with_name(self.path.name + ".damaged"))
            self.path.rename(target)
        replace_file(home / "current", manifest.folder_name + "\n")


@dataclass(frozen=True)
class ArtifactStore:
    """All built artifacts below ``root``, which need not exist yet."""

    root: Path

    @classmethod
    def default(cls) -> Self:
        """``$BIOVERIFY_HOME/artifacts``, else the user's data folder."""
        return cls(home_folder("artifacts"))

    def open(self, name: str) -> OpenArtifact:
        """Verify the current artifact and open it; ArtifactError says what mends it.

        Files that were verified before and have not been touched since are not read again (`checksums`).
        """
        path, manifest = self._current(name)
        for problem in problems(path, _expected(path, manifest), remembered=True):
            raise ArtifactError(f"artifact {name}: {problem}. {_mend(name)}")
        return OpenArtifact(path, manifest)

    def verify(self, name: str) -> Iterator[str]:
        """Read every byte of the current artifact; what is wrong: file, expected, found, and what mends it."""
        try:
            path, manifest = self._current(name)
        except ArtifactError as error:
            yield str(error)
            return
        expected = _expected(path, manifest)
        for problem in problems(path, expected, remembered=False):
            yield f"artifact {name}: {problem}. {_mend(name)}"
        unknown = sorted(
            {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()} - {*expected, SUMS_FILE}
        )
        for file_name in unknown:
            yield f"artifact {name}: {path / file_name} does not belong to it: remove the file"

    def names(self) -> list[str]:
        """Artifacts that were built, intact or not."""
        return sorted(pointer.parent.name for pointer in self.root.glob("*/current"))

    def manifest(self, name: str) -> Manifest:
        """Of the current artifact, whose files are not verified. Raises ArtifactError like `open`."""
        return self._current(name)[1]

    def list(self) -> list[Manifest]:
        """Manifests of all current artifacts by name; their files are not verified."""
        return [self.manifest(name) for name in self.names()]

    def is_intact(self, name: str, folder_name: str) -> bool:
        """Whether this version of the artifact is there with every byte as it was built."""
        return _is_intact(self.root, name, folder_name)

    def _current(self, name: str) -> tuple[Path, Manifest]:
        """Folder and manifest of the current artifact; the manifest is verified, the files are not."""
        pointer = self.root / name / "current"
        try:
            folder_name = pointer.read_text().strip()
        except FileNotFoundError:
            raise ArtifactError(f"artifact {name}: not built yet ({pointer} is missing). {_mend(name)}") from None
        return self.root / name / folder_name, _read_manifest(self.root, name, folder_name)

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


def _mend(name: str) -> str:
    return f"Run: bioverify data build {name}"


def _expected(path: Path, manifest: Manifest) -> dict[str, str]:
    """sha256 of all files of the folder but the sums themselves. The manifest's is taken as it is on disk."""
    sha256_by_name = {file_name: record.sha256 for file_name, record in manifest.files.items()}
    return {**sha256_by_name, MANIFEST_FILE: sha256_of(path / MANIFEST_FILE)}


def _read_manifest(root: Path, name: str, folder_name: str) -> Manifest:
    path = root / name / folder_name / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
        sums = path.with_name(SUMS_FILE).read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(f"artifact {name}: {error.filename} is missing. {_mend(name)}") from None
    except ValidationError as error:
        reason = first_problem(error, Manifest, "manifest")
        raise ArtifactError(f"artifact {name}: {path} is unreadable ({reason}). {_mend(name)}") from None
    if manifest.name != name or manifest.folder_name != folder_name:
        raise ArtifactError(
            f"artifact {name}: {path} has the digest {manifest.folder_name}…, its folder is {folder_name}. "
            f"The manifest was changed. {_mend(name)}"
        )
    if sums != sums_text(_expected(path.parent, manifest)).encode():
        raise ArtifactError(
            f"artifact {name}: {path} (sha256 {sha256_of(path)[:12]}…) and {SUMS_FILE} beside it contradict each "
            f"other. One of them was changed. {_mend(name)}"
        )
    return manifest


def _is_intact(root: Path, name: str, folder_name: str) -> bool:
    try:
        manifest = _read_manifest(root, name, folder_name)
    except ArtifactError:
        return False
    path = root / name / folder_name
    return not any(problems(path, _expected(path, manifest), remembered=False))


def _record_and_sync(path: Path) -> FileRecord:
    sync(path)
    return FileRecord(sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _remove_leftovers(root: Path, name: str) -> None:
    for leftover in root.glob(f".building-{name}-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
