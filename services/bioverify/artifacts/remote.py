"""Built artifacts on shared storage: S3, Google Cloud Storage, Azure, or a folder.

Laid out as in the store: ``NAME/DIGEST/file`` and ``NAME/current``. A push uploads what is not there yet, the manifest
last, then the pointer: what a reader finds by the pointer is whole. A pull reads the manifest, compares its digest with
the folder's name (or with the digest that was asked for), fetches each file beside the store, compares its sha256, and
only then moves the folder into place, as a build does. A pull that broke off keeps the files that it has. Access comes
from the environment, as the libraries of each cloud read it (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from bioverify.artifacts.checksums import SUMS_FILE, sha256_of, sums_text
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import FOLDER_NAME, MANIFEST_FILE, ArtifactStore, FileRecord, Manifest
from bioverify.errors import how_to_install
from bioverify.files import replace_file, replacing_file
from bioverify.settings import first_problem

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CHUNK_BYTES = 8 << 20
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

Tell = Callable[[str], None]


class Remote:
    """One place of artifacts. ``url``: s3://bucket/prefix, gs://…, az://…, file:///folder, or a folder's path."""

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import LocalStore, from_url
        except ModuleNotFoundError as error:
            raise ArtifactError(f"shared storage needs the library obstore. {how_to_install('remote')}") from error
        self.url = url
        with self._errors():
            if "://" not in url or url.startswith("file://"):
                self._objects: ObjectStore = LocalStore(Path(url.removeprefix("file://")).absolute(), mkdir=True)
            else:
                self._objects = from_url(url)

    def names(self) -> list[str]:
        """Artifacts that were pushed."""
        import obstore

        with self._errors():
            folders = obstore.list_with_delimiter(self._objects)["common_prefixes"]
        return sorted(name for folder in folders if _NAME.fullmatch(name := folder.strip("/")))

    def push(self, store: ArtifactStore, name: str, *, tell: Tell) -> Manifest:
        """Upload the current artifact, whose files are verified first. Raises ArtifactError."""
        import obstore

        artifact = store.open(name)
        manifest = artifact.manifest
        folder = f"{name}/{manifest.folder_name}"
        with self._errors():
            there = {entry["path"]: entry["size"] for batch in obstore.list(self._objects, folder) for entry in batch}
            # The manifest stands for all that it names, so it comes after them.
            for file_name in (*manifest.files, SUMS_FILE, MANIFEST_FILE):
                path = artifact.path / file_name
                # A manifest and its sums may differ and be as long as those that lie there.
                is_small = file_name in {SUMS_FILE, MANIFEST_FILE}
                if is_small or there.get(f"{folder}/{file_name}") != path.stat().st_size:
                    tell(f"{name}: {file_name}, {path.stat().st_size / 1e6:,.1f} MB")
                    obstore.put(self._objects, f"{folder}/{file_name}", path)
            obstore.put(self._objects, f"{name}/current", f"{manifest.folder_name}\n".encode())
        return manifest

    def pull(self, store: ArtifactStore, name: str, *, digest: str = "", tell: Tell) -> tuple[Manifest, bool]:
        """The artifact in the store, and whether anything had to be fetched.

        ``digest``: "sha256:…" to insist on, instead of what the pointer names. Raises ArtifactError.
        """
        if not _NAME.fullmatch(name):
            raise ArtifactError(f"{name!r} is no artifact's name")
        folder_name = (
            digest.removeprefix("sha256:")[:16] or self._read(f"{name}/current").decode(errors="replace").strip()
        )
        if not FOLDER_NAME.fullmatch(folder_name):
            raise ArtifactError(f"{self.url}: {name}/current names no version ({folder_name[:40]!r}). Push it again")
        manifest_bytes = self._read(f"{name}/{folder_name}/{MANIFEST_FILE}")
        manifest = self._checked(name, folder_name, digest, manifest_bytes)
        with store.building(name) as build:
            arrived = store.root / f".pulling-{name}-{folder_name}"
            there = store.build_id(name, folder_name)
            if store.is_intact(name, folder_name) and manifest.build_id in {"", there}:
                return build.install(manifest), False
            arrived.mkdir(exist_ok=True)
            for file_name, record in manifest.files.items():
                path = arrived / file_name
                if not path.is_file() or sha256_of(path) != record.sha256:
                    tell(f"{name}: {file_name}, {record.size_bytes / 1e6:,.1f} MB")
                    self._fetch(f"{name}/{folder_name}/{file_name}", path, record)
            replace_file(arrived / MANIFEST_FILE, manifest_bytes)
            sha256_by_name = {file_name: record.sha256 for file_name, record in manifest.files.items()}
            sha256_by_name[MANIFEST_FILE] = hashlib.sha256(manifest_bytes).hexdigest()
            replace_file(arrived / SUMS_FILE, sums_text(sha256_by_name))
            build.path.rmdir()
            arrived.rename(build.path)
            manifest = build.install(manifest)
        return manifest, True

    def _checked(self, name: str, folder_name: str, digest: str, written: bytes) -> Manifest:
        where = f"{self.url}: {name}/{folder_name}/{MANIFEST_FILE}"
        try:
            manifest = Manifest.model_validate_json(written)
        except ValidationError as error:
            reason = first_problem(error, Manifest, "manifest")
            raise ArtifactError(f"{where} is no manifest ({reason}). Push the artifact again") from error
        if manifest.name != name or manifest.folder_name != folder_name or (digest and digest != manifest.digest):
            raise ArtifactError(
                f"{where} is {manifest.name} {manifest.digest}, expected {name} {digest or folder_name}. It was changed"
            )
        for file_name in manifest.files:
            path = PurePosixPath(file_name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise ArtifactError(f"{where} names a file outside of its folder: {file_name!r}")
            if not file_name.isprintable() or file_name in {MANIFEST_FILE, SUMS_FILE}:
                raise ArtifactError(f"{where} names a file as none is called: {file_name!r}")
        return manifest

    def _fetch(self, source: str, target: Path, record: FileRecord) -> None:
        import obstore

        target.parent.mkdir(parents=True, exist_ok=True)
        found, size_bytes = hashlib.sha256(), 0
        with self._errors(), replacing_file(target) as file:
            for chunk in obstore.get(self._objects, source).stream(min_chunk_size=CHUNK_BYTES):
                size_bytes += len(chunk)
                # Before it fills the disk.
                if size_bytes > record.size_bytes:
                    raise ArtifactError(
                        f"{self.url}: {source} is longer than the {record.size_bytes:,} bytes that its manifest says. "
                        f"The file was changed; push the artifact again"
                    )
                found.update(chunk)
                file.write(chunk)
            if found.hexdigest() != record.sha256:
                raise ArtifactError(
                    f"{self.url}: sha256 of {source} is {found.hexdigest()[:12]}…, its manifest says "
                    f"{record.sha256[:12]}…. "
                    f"The file was changed or cut short; push the artifact again"
                )

    def _read(self, path: str) -> bytes:
        import obstore

        with self._errors():
            return bytes(obstore.get(self._objects, path).bytes())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError, NotFoundError

        try:
            yield
        except (FileNotFoundError, NotFoundError) as error:
            told = f"{self.url}: not there ({_first_line(error)}). Push it: bioverify data push {self.url}"
            raise ArtifactError(told) from error
        except (BaseError, OSError) as error:
            raise ArtifactError(f"{self.url}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
