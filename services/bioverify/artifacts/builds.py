"""Builds that are not repeated: an artifact is kept if everything that went into it is the same.

After a build, ``built_from.json`` beside the artifact's folders keeps what it consulted: the checksum of every source
that was looked for (also of those that were not to be had, because one that turns up later would be preferred), the
settings, the files that the person named, and the version of the code. The manifest adds the digests of the artifacts
that it was made with. Before the next build all of these are compared with what would be found now. So a run of all
builds that was killed resumes with the artifact that it was killed in. The file is only ever a shortcut: damaged or
absent, the artifact is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bioverify import __version__
from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.sources import ON_REQUEST, PUBLIC, Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.files import replace_file

_FILE = "built_from.json"


class _BuiltFrom(BaseModel):
    model_config = ConfigDict(extra="forbid")

    form: Literal[4]
    """Of the files that builders write: raised when it changes, so that artifacts of the old one are built again."""
    digest: str
    code_version: str
    settings: str
    consulted: dict[str, str]
    named_files: dict[str, str]


def build_unless_unchanged(
    name: str, store: ArtifactStore, sources: Sources, build: Callable[[], Manifest], *, settings: str = ""
) -> tuple[Manifest, bool]:
    """The artifact, and whether it was built now. ``settings``: whatever else the result of ``build`` depends on."""
    if _is_unchanged(name, store, sources, settings):
        return store.manifest(name), False
    sources.consulted.clear()
    manifest = build()
    made = _BuiltFrom(
        form=4,
        digest=manifest.digest,
        code_version=manifest.code_version,
        settings=settings,
        consulted=dict(sources.consulted),
        named_files=_named_files(sources),
    )
    replace_file(store.root / name / _FILE, made.model_dump_json(indent=2) + "\n")
    return manifest, True


def why_not_rebuilt(name: str, store: ArtifactStore, sources: Sources, settings: str) -> str:
    """Why a build with these sources and settings would not be the one that is damaged; empty if it would."""
    try:
        before = _BuiltFrom.model_validate_json((store.root / name / _FILE).read_bytes())
    except FileNotFoundError:
        return f"{name} was not built here. Pull it: bioverify data verify --repair --from URL {name}"
    except ValidationError:
        return f"how {name} was built cannot be read any more. Build it: bioverify data build {name}"
    if before.settings != settings:
        return f"{name} was built with other settings. Give them: --settings FILE"
    if absent := sorted(before.named_files.keys() - sources.explicit.keys()):
        return f"{name} was built from files of your own. Give them: --source {absent[0]}=PATH"
    return ""


def _is_unchanged(name: str, store: ArtifactStore, sources: Sources, settings: str) -> bool:
    try:
        before = _BuiltFrom.model_validate_json((store.root / name / _FILE).read_bytes())
        manifest = store.open(name).manifest
        inputs = {used: store.open(used).manifest.digest for used in manifest.inputs}
    except (FileNotFoundError, ValidationError, ArtifactError):
        return False  # absent or damaged: building mends it
    by_name = {source.name: source for source in (*PUBLIC, *ON_REQUEST)}
    if not before.consulted.keys() <= by_name.keys():
        return False
    now = {used: sources.find(by_name[used]) for used in before.consulted}
    return (
        before.digest == manifest.digest
        and before.code_version == __version__
        and before.settings == settings
        and before.named_files == _named_files(sources)
        and inputs == manifest.inputs
        and before.consulted == {used: located.sha256 if located else "" for used, located in now.items()}
    )


def _named_files(sources: Sources) -> dict[str, str]:
    """sha256 of every file that the person named: a builder may read it under any name, so it counts for all."""
    return {name: sha256_of(path) for name, path in sources.explicit.items() if path.is_file()}
