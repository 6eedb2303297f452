"""A build is repeated exactly where something that went into it is another one now."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bioverify.artifacts.builds import build_unless_unchanged
from bioverify.artifacts.sources import GENES, GLIOMA_CELLS, Sources
from bioverify.artifacts.store import ArtifactStore, Manifest


def make_sources(root: Path, **named: Path) -> Sources:
    return Sources(None, root / "cache", named, offline=True, bundled=root / "bundled")


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def build_poem(store: ArtifactStore, sources: Sources, settings: str = "") -> bool:
    """Whether it was built, of genes, of cells where there are any, and of the artifact ``words``."""

    def build() -> Manifest:
        words = store.open("words")
        records = [located.record for located in (sources.find(GENES), sources.find(GLIOMA_CELLS)) if located]
        with store.building("poem") as folder:
            put(folder.path / "poem.txt", "roses")
            return folder.commit(description="A poem.", license="CC0", sources=records, inputs=[words])

    return build_unless_unchanged("poem", store, sources, build, settings=settings)[1]


def build_words(store: ArtifactStore, text: str) -> None:
    with store.building("words") as folder:
        put(folder.path / "words.txt", text)
        folder.commit(description="Words.", license="CC0", sources=[])


def forget_form(memory: Path) -> None:
    fields = json.loads(memory.read_text())
    del fields["form"]
    memory.write_text(json.dumps(fields))


Change = Callable[[Path, ArtifactStore], object]
CHANGES: dict[str, Change] = {
    "a source changes": lambda root, _: put(root / "bundled" / GENES.bundled, "other genes"),
    "a preferred source turns up": lambda root, _: put(root / "cache" / GLIOMA_CELLS.file_names[0], "cells"),
    "an artifact that it was made with changes": lambda _, store: build_words(store, "violets"),
    "its file is damaged": lambda _, store: put(store.open("poem").path / "poem.txt", "rosez"),
    "its files had another form": lambda _, store: forget_form(store.root / "poem" / "built_from.json"),
    "the memory of the build is damaged": lambda _, store: put(store.root / "poem" / "built_from.json", "{"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_it_is_built_again_when(tmp_path: Path, change: Change) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    put(tmp_path / "bundled" / GENES.bundled, "genes")
    build_words(store, "roses")
    assert build_poem(store, make_sources(tmp_path))
    assert not build_poem(store, make_sources(tmp_path))
    change(tmp_path, store)
    assert build_poem(store, make_sources(tmp_path))
    assert not build_poem(store, make_sources(tmp_path))


def test_it_is_built_again_with_other_settings_and_other_files_of_ones_own(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    put(tmp_path / "bundled" / GENES.bundled, "genes")
    build_words(store, "roses")
    own = put(tmp_path / "own.npz", "vectors")
    assert build_poem(store, make_sources(tmp_path))
    assert build_poem(store, make_sources(tmp_path), settings="ancestors")
    assert build_poem(store, make_sources(tmp_path, vectors=own), settings="ancestors")
    assert not build_poem(store, make_sources(tmp_path, vectors=own), settings="ancestors")
    put(own, "other vectors")
    assert build_poem(store, make_sources(tmp_path, vectors=own), settings="ancestors")
