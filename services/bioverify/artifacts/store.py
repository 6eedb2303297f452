"""Content-addressed folders of built artifacts.

An artifact lives in ``<root>/<name>/<digest[:16]>/`` beside a ``manifest.json`` with the sha256 of every file, and
``SHA256SUMS``, which covers the manifest as well; the file ``<root>/<name>/current`` names the folder in use. A build
writes into a temporary folder of the same root, which is synced to disk and renamed into place, and only then is
``current`` replaced: whoever opens the artifact sees the old one or the new one, and an interrupted build leaves
nothing behind that could be opened. The digest covers what was made and from which bytes, but not when, nor from where
those bytes were fetched, so the same content is the same artifact on every machine, and other content gets another
digest and with it another verifier fingerprint.

Files are read-only once they are in place. If they were changed all the same, what takes their place has the same
digest and a build id of its own, which enters the fingerprint too: nothing that a cache remembers of the changed bytes
is used.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from bioverify import __version__
from bioverify.artifacts.checksums import SUMS_FILE, problems, sha256_of, sums_text
from bioverify.artifacts.errors import ArtifactError
from bioverify.core.outcomes import Failed, NotApplicable, Outcome, Scored
from bioverify.core.tasks import TaskKind, make_task
from bioverify.core.verifier import Canary, Item, WatchedArtifact
from bioverify.files import Stamp, replace_file, stamp_of, sync
from bioverify.settings import first_problem

MANIFEST_FILE = "manifest.json"
FOLDER_NAME = re.compile("[0-9a-f]{16}")

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


class CanaryRecord(_Strict):
    """A question and the answer that it had. ``not_applicable``: the reason, in place of a score."""

    task_kind: TaskKind
    task: tuple[str | tuple[str, ...], ...]
    """The values of the task's fields, in order."""
    answer: bool | None = None
    completion: str = ""
    value: float | None = None
    belief: float | None = None
    components: dict[str, float] = {}
    not_applicable: str = ""

    @classmethod
    def of(cls, canary: Canary) -> Self:
        item, outcome = canary
        assert item.task is not None
        assert not isinstance(outcome, Failed)
        said: dict[str, Any]
        if isinstance(outcome, Scored):
            said = {"value": outcome.value, "belief": outcome.belief, "components": dict(outcome.components)}
        else:
            said = {"not_applicable": outcome.reason}
        asked: dict[str, Any] = {"answer": item.answer, "completion": item.completion}
        return cls(task_kind=item.task.kind, task=astuple(item.task), **asked, **said)

    @property
    def canary(self) -> Canary:
        item = Item(make_task(self.task_kind, self.task), self.answer, self.completion)
        outcome: Outcome
        if self.value is None:
            outcome = NotApplicable(self.not_applicable, "")
        else:
            outcome = Scored(self.value, self.components, belief=self.belief)
        return item, outcome


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
    canaries: tuple[CanaryRecord, ...] = ()
    """Questions over all of it, with the answers of the day it was built. None of the digest: the last digits of a
    number are the machine's."""
    build_id: str = ""
    """Of an artifact that took the place of a damaged one of the same digest, else empty."""
    built_at: str

    @property
    def digest(self) -> str:
        """ "sha256:" and 64 hexadecimal digits: the hash of the canonical JSON without time and place of the build."""
        of_the_build = {"built_at": True, "build_id": True, "canaries": True}
        content = self.model_dump(exclude={**of_the_build, "sources": {"__all__": {"kind", "location"}}})
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
    """A verified artifact: every file in ``path`` had the checksum of the manifest when it was opened.

    ``stamps``: of each file, from before it was verified.
    """

    path: Path
    manifest: Manifest
    stamps: dict[str, Stamp] = field(default_factory=dict)

    @property
    def identity(self) -> WatchedArtifact:
        made = self.manifest
        return WatchedArtifact(
            name=self.manifest.name,
            digest=self.manifest.digest,
            license=self.manifest.license,
            sources=tuple(source.url or source.location for source in self.manifest.sources),
            simulated=self.manifest.simulated,
            figures={**made.counts, **made.coverage, **made.quality},
            build_id=made.build_id,
            canaries=tuple(record.canary for record in made.canaries),
            problem=self.problem,
        )

    def problem(self) -> str:
        """What is wrong with a file that was touched since the artifact was opened; empty if nothing is.

        A file of the same inode whose content is still right counts as untouched. One that was replaced is not what was
        mapped into memory, whatever its content.
        """
        mend = f"{_REPAIR} {self.manifest.name}"
        for name, opened in self.stamps.items():
            path = self.path / name
            try:
                found = stamp_of(path)
                if found == opened:
                    continue
                if found[0] == opened[0] and sha256_of(path) == self._sha256_of(name):
                    self.stamps[name] = found
                    continue
            except OSError as error:
                return f"artifact {self.manifest.name}: {path} can no longer be read ({error.strerror}). {mend}"
            return f"artifact {self.manifest.name}: {path} was changed or replaced while it was in use. {mend}"
        return ""

    def _sha256_of(self, name: str) -> str:
        record = self.manifest.files.get(name)
        # The manifest has no checksum of itself; what it says was read when the artifact was opened.
        return record.sha256 if record is not None else sha256_of(self.path / name)

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
        canaries: Callable[[ArtifactStore], Sequence[Canary]] | None = None,
    ) -> Manifest:
        """Write the manifest, move the folder into place and point ``current`` at it. Same content: reused.

        ``canaries``: given a store in which this artifact is the current one already.
        """
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
        if canaries is not None:
            computed = canaries(_WithBuild(self.root, OpenArtifact(self.path, manifest)))
            manifest = manifest.model_copy(update={"canaries": tuple(map(CanaryRecord.of, computed))})
        self._write(manifest)
        return self.install(manifest)

    def install(self, manifest: Manifest) -> Manifest:
        """Move the complete folder into place and point ``current`` at it. Returns the manifest that is there then.

        An intact one of that digest and build is kept. What takes the place of a damaged one gets a build id.
        """
        home = self.root / self.name
        home.mkdir(parents=True, exist_ok=True)
        target = home / manifest.folder_name
        there = _build_id_of(target)
        is_intact = _is_intact(self.root, self.name, manifest.folder_name)
        if is_intact and manifest.build_id in {"", there}:
            manifest = _read_manifest(self.root, self.name, manifest.folder_name)
        else:
            if not is_intact and target.exists() and manifest.build_id in {"", there}:
                manifest = manifest.model_copy(update={"build_id": secrets.token_hex(8)})
                self._write(manifest)
            for file in self.path.rglob("*"):
                if file.is_file():
                    file.chmod(0o444)
            sync(self.path)
            if target.exists():
                # Put aside, and removed with the rest of the temporary folder.
                target.rename(self.path.with_name(self.path.name + ".replaced"))
            self.path.rename(target)
        replace_file(home / "current", manifest.folder_name + "\n")
        return manifest

    def _write(self, manifest: Manifest) -> None:
        replace_file(self.path / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
        replace_file(self.path / SUMS_FILE, sums_text(_expected(self.path, manifest)))


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
        expected = _expected(path, manifest)
        # Before they are verified: whatever happens to them from now on is noticed.
        stamps = {file: stamp_of(path / file) for file in expected if (path / file).is_file()}
        for problem in problems(path, expected, remembered=True):
            raise ArtifactError(f"artifact {name}: {problem}. {_REPAIR} {name}")
        return OpenArtifact(path, manifest, stamps)

    def verify(self, name: str) -> Iterator[str]:
        """Read every byte of the current artifact; what is wrong: file, expected, found, and what mends it."""
        try:
            path, manifest = self._current(name)
        except ArtifactError as error:
            yield str(error)
            return
        expected = _expected(path, manifest)
        for problem in problems(path, expected, remembered=False):
            yield f"artifact {name}: {problem}. {_REPAIR} {name}"
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

    def is_damaged(self, name: str) -> bool:
        """Whether the current version has a file that is missing or not as it was built."""
        try:
            path, _ = self._current(name)
        except ArtifactError:
            return True
        return not _is_intact(self.root, name, path.name)

    def is_intact(self, name: str, folder_name: str) -> bool:
        """Whether this version of the artifact is there with every byte as it was built."""
        return _is_intact(self.root, name, folder_name)

    def build_id(self, name: str, folder_name: str) -> str:
        """Of this version, damaged or not; empty if it has none."""
        return _build_id_of(self.root / name / folder_name)

    def _current(self, name: str) -> tuple[Path, Manifest]:
        """Folder and manifest of the current artifact; the manifest is verified, the files are not."""
        pointer = self.root / name / "current"
        try:
            folder_name = pointer.read_text().strip()
        except FileNotFoundError:
            raise ArtifactError(f"artifact {name}: not built yet ({pointer} is missing). {_mend(name)}") from None
        except ValueError:
            folder_name = ""
        if not FOLDER_NAME.fullmatch(folder_name):
            raise ArtifactError(f"artifact {name}: {pointer} names no folder of a version. {_mend(name)}")
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


@dataclass(frozen=True)
class _WithBuild(ArtifactStore):
    """The store as it will be when the build under way is in place."""

    build: OpenArtifact

    def open(self, name: str) -> OpenArtifact:
        return self.build if name == self.build.manifest.name else super().open(name)


def home_folder(part: str) -> Path:
    """``$BIOVERIFY_HOME/<part>``, else ``<part>`` in the user's data folder."""
    home = os.environ.get("BIOVERIFY_HOME")
    return Path(home) / part if home else Path(platformdirs.user_data_dir("bioverify", appauthor=False)) / part


_REPAIR = "Run: bioverify data verify --repair"


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


def _build_id_of(folder: Path) -> str:
    """Of a version, damaged or not; empty if there is none, or its manifest cannot be read."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes()).build_id
    except (OSError, ValidationError):
        return ""


def _record_and_sync(path: Path) -> FileRecord:
    sync(path)
    return FileRecord(sha256=sha256_of(path), size_bytes=path.stat().st_size)


def _remove_leftovers(root: Path, name: str) -> None:
    for leftover in root.glob(f".building-{name}-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
