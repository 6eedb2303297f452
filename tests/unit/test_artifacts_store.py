"""The store: content-addressed, atomic, and loud about damage."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bioverify.artifacts import checksums
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore, Manifest


def build_text(store: ArtifactStore, text: str) -> Manifest:
    with store.building("poem") as folder:
        (folder.path / "poem.txt").write_text(text)
        return folder.commit(description="A poem.", license="none", sources=[])


def test_an_artifact_opens_with_what_was_built(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    manifest = build_text(store, "roses")
    opened = store.open("poem")
    assert (opened.path / "poem.txt").read_text() == "roses"
    assert opened.manifest == manifest
    assert opened.path.name == manifest.digest.removeprefix("sha256:")[:16]
    assert [entry.name for entry in store.list()] == ["poem"]


def test_the_same_content_is_the_same_artifact_and_other_content_another(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    first = build_text(store, "roses")
    inode = (tmp_path / "poem" / first.folder_name).stat().st_ino
    assert build_text(store, "roses").digest == first.digest
    assert (tmp_path / "poem" / first.folder_name).stat().st_ino == inode
    second = build_text(store, "violets")
    assert second.digest != first.digest
    assert store.open("poem").identity.digest == second.digest


def test_a_missing_artifact_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"artifact poem: not built yet .* Run: bioverify data build poem"):
        ArtifactStore(tmp_path).open("poem")


@pytest.mark.parametrize("damage", [b"", b"rosez", b"roses and more"])
def test_a_damaged_file_is_refused_with_both_checksums_and_mended_by_building(tmp_path: Path, damage: bytes) -> None:
    store = ArtifactStore(tmp_path)
    build_text(store, "roses")
    file = store.open("poem").path / "poem.txt"
    file.write_bytes(damage)
    message = (
        r"artifact poem: sha256 of poem\.txt is [0-9a-f]{12}…, manifest says [0-9a-f]{12}…\. "
        r"The file was changed or cut short\. Run: bioverify data verify --repair poem"
    )
    with pytest.raises(ArtifactError, match=message):
        store.open("poem")
    build_text(store, "roses")
    assert (store.open("poem").path / "poem.txt").read_text() == "roses"


def test_a_removed_file_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    build_text(store, "roses")
    (store.open("poem").path / "poem.txt").unlink()
    with pytest.raises(ArtifactError, match=r"poem\.txt is missing .* Run: bioverify data verify --repair poem"):
        store.open("poem")


def test_a_manifest_that_was_edited_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    build_text(store, "roses")
    manifest = store.open("poem").path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("A poem.", "A song."))
    with pytest.raises(ArtifactError, match="The manifest was changed"):
        store.open("poem")
    manifest.write_text("{")
    with pytest.raises(ArtifactError, match="unreadable"):
        store.open("poem")


def test_a_build_that_raises_leaves_the_old_artifact_and_nothing_else(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    build_text(store, "roses")

    def fail_half_way() -> None:
        with store.building("poem") as folder:
            (folder.path / "poem.txt").write_text("vio")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert (store.open("poem").path / "poem.txt").read_text() == "roses"
    assert not list(tmp_path.glob(".building-*"))
    assert len(list((tmp_path / "poem").iterdir())) == 2


def test_a_build_that_is_killed_is_never_opened_and_its_remains_go_with_the_next(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\n"
        "from bioverify.artifacts.store import ArtifactStore\n"
        "with ArtifactStore(pathlib.Path(sys.argv[1])).building('poem') as folder:\n"
        "    (folder.path / 'poem.txt').write_text('vio')\n"
        "    print('half way', flush=True)\n"
        "    time.sleep(60)\n"
    )
    builder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "half way\n"
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    store = ArtifactStore(tmp_path)
    with pytest.raises(ArtifactError, match="not built yet"):
        store.open("poem")
    assert list(tmp_path.glob(".building-poem-*"))
    build_text(store, "roses")
    assert not list(tmp_path.glob(".building-*"))


def test_the_digest_does_not_depend_on_time_or_place(tmp_path: Path) -> None:
    first = build_text(ArtifactStore(tmp_path / "a"), "roses")
    time.sleep(1.1)
    second = build_text(ArtifactStore(tmp_path / "b"), "roses")
    assert first.built_at != second.built_at
    assert first.digest == second.digest


def build_two_files(store: ArtifactStore) -> Manifest:
    with store.building("poem") as folder:
        (folder.path / "poem.txt").write_text("roses")
        (folder.path / "more").mkdir()
        (folder.path / "more" / "verse.txt").write_text("violets")
        return folder.commit(description="A poem.", license="CC0", sources=[])


def test_verify_catches_one_flipped_byte_in_any_file_of_the_artifact(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    build_two_files(store)
    assert list(store.verify("poem")) == []
    folder = store.open("poem").path
    files = [*(path for path in folder.rglob("*") if path.is_file()), folder.parent / "current"]
    assert len(files) == 5
    for path in files:
        whole = path.read_bytes()
        for position in range(
            0, len(whole) - (path.name == "current"), 5
        ):  # the final line break of "current" says nothing
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            found = list(store.verify("poem"))
            assert found, f"byte {position} of {path}"
            commands = ("Run: bioverify data verify --repair poem", "Run: bioverify data build poem")
            assert all(problem.endswith(commands) for problem in found)
        path.write_bytes(whole)
    assert list(store.verify("poem")) == []


def test_verify_names_file_expected_and_found_for_every_damaged_file(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    manifest = build_two_files(store)
    folder = store.open("poem").path
    (folder / "poem.txt").write_text("rosez")
    (folder / "more" / "verse.txt").unlink()
    (folder / "stray.txt").write_text("")
    damaged, missing, stray = sorted(
        store.verify("poem"), key=lambda problem: ("belong" in problem, "missing" in problem)
    )
    assert f"sha256 of poem.txt is {hashlib.sha256(b'rosez').hexdigest()[:12]}…" in damaged
    assert f"manifest says {manifest.files['poem.txt'].sha256[:12]}…" in damaged
    assert "more/verse.txt is missing" in missing
    assert "stray.txt does not belong to it" in stray


def test_a_verified_file_is_not_read_again_until_it_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(path: Path) -> str:
        read.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    store = ArtifactStore(tmp_path)
    build_text(store, "roses")
    monkeypatch.setattr(checksums, "sha256_of", counting)
    store.open("poem")
    assert read == ["poem.txt", "manifest.json"], "written a moment ago: the clock might not show another change"
    time.sleep(checksums.SETTLED_S)
    store.open("poem")
    read.clear()
    opened = store.open("poem")
    assert read == []
    assert list(store.verify("poem")) == []
    assert read == ["poem.txt", "manifest.json"]
    status = (opened.path / "poem.txt").stat()
    (opened.path / "poem.txt").write_text("rosez")
    os.utime(opened.path / "poem.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ArtifactError, match=r"sha256 of poem\.txt is"):
        store.open("poem")


@pytest.mark.parametrize("memory", [b"", b"[]", b'{"0224a6fbe2e8a8f9": 7}', b"\xff"])
def test_a_damaged_memory_of_checksums_only_costs_reading(tmp_path: Path, memory: bytes) -> None:
    store = ArtifactStore(tmp_path)
    build_text(store, "roses")
    (tmp_path / "poem" / "verified.json").write_bytes(memory)
    assert (store.open("poem").path / "poem.txt").read_text() == "roses"
