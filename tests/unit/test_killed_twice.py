"""Artifacts and results, killed again and again: what is there is whole, and the next run needs no help."""

from __future__ import annotations

import signal
from itertools import count
from pathlib import Path

import pytest

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.files import read_lines
from bioverify.rollouts.ledger import Ledger, LedgerError
from tests.fixtures import killing
from tests.unit.test_artifacts_downloads import BODY, Origin, origin

__all__ = ["origin"]

BUILD = """
import sys
from pathlib import Path
from bioverify.artifacts.store import ArtifactStore
with ArtifactStore(Path(sys.argv[1])).building("numbers") as build:
    (build.path / "one").write_text(sys.argv[2] * 100)
    (build.path / "two").write_text(sys.argv[2] * 200)
    build.commit(description="Numbers.", license="none", sources=())
"""


def content(store: ArtifactStore) -> str:
    """Of the artifact, which is whole; "" if none was built yet."""
    try:
        path = store.open("numbers").path
    except ArtifactError as error:
        assert "not built yet" in str(error)  # noqa: PT017
        return ""
    one, two = (path / "one").read_text(), (path / "two").read_text()
    assert 2 * one == two
    return one[0]


def test_a_build_that_is_killed_at_any_step_leaves_the_artifact_of_before_or_the_new_one(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    with killing.script(BUILD, store.root) as build:
        first = [content(store) for _ in build.at_every_step(store.root, "1")]
        second = [content(store) for _ in build.at_every_step(store.root, "2")]
    assert content(store) == "2"
    for seen, before, after in ((first, "", "1"), (second, "1", "2")):
        assert len(seen) > 8
        assert seen == sorted(seen)
        assert set(seen) <= {before, after}
    assert not list(store.root.glob(".building-*"))
    assert not list(store.root.rglob("*.partial"))


PULL = """
import sys
from pathlib import Path
from bioverify.artifacts.remote import Remote
from bioverify.artifacts.store import ArtifactStore
Remote(sys.argv[2]).pull(ArtifactStore(Path(sys.argv[1])), "numbers", tell=lambda _: None)
"""


def test_a_pull_that_is_killed_at_any_step_leaves_a_whole_artifact_or_none(tmp_path: Path) -> None:
    from bioverify.artifacts.remote import Remote

    origin_store, store, bucket = ArtifactStore(tmp_path / "here"), ArtifactStore(tmp_path / "there"), tmp_path / "b"
    with origin_store.building("numbers") as build:
        (build.path / "one").write_text("1" * 100)
        (build.path / "two").write_text("1" * 200)
        build.commit(description="Numbers.", license="none", sources=())
    Remote(str(bucket)).push(origin_store, "numbers", tell=lambda _: None)
    with killing.script(PULL, store.root) as pull:
        assert pull.run(store.root, bucket, at_byte=150) == -signal.SIGXFSZ
        seen = [content(store) for _ in pull.at_every_step(store.root, bucket)]
    assert content(store) == "1"
    assert len(seen) > 8
    assert seen == sorted(seen)
    assert list(store.verify("numbers")) == []
    assert [folder.name for folder in store.root.iterdir() if folder.is_dir()] == ["numbers"]


DOWNLOAD = """
import sys
from pathlib import Path
from bioverify.artifacts.downloads import download
download("file", sys.argv[2], Path(sys.argv[1]))
"""


def test_a_download_that_is_killed_at_any_byte_is_taken_up_there(tmp_path: Path, origin: Origin) -> None:
    target = tmp_path / "files" / "file"
    with killing.script(DOWNLOAD, target.parent) as download:
        assert download.run(target, origin.url, at_byte=30_000) == -signal.SIGXFSZ
        assert download.run(target, origin.url, at_byte=60_000) == -signal.SIGXFSZ
        assert download.run(target, origin.url) == 0
    assert target.read_bytes() == BODY
    assert [asked for asked, _ in origin.asked] == [None, "bytes=30000-", "bytes=60000-"]


def test_bytes_of_an_older_version_are_never_taken_for_the_beginning_of_the_new_one(
    tmp_path: Path, origin: Origin
) -> None:
    """Of a file without a known checksum only the validator tells, so it must not come before its bytes."""
    with killing.script(DOWNLOAD, tmp_path) as download:
        for step in count(1):
            target = tmp_path / str(step) / "file"
            origin.body, origin.etag = BODY, '"one"'
            assert download.run(target, origin.url, at_byte=30_000) == -signal.SIGXFSZ
            origin.body, origin.etag = BODY[::-1], '"two"'
            was_killed = download.run(target, origin.url, before_step=step) != 0
            assert download.run(target, origin.url) == 0
            assert target.read_bytes() == BODY[::-1]
            assert [file.name for file in target.parent.iterdir()] == ["file"]
            if not was_killed:
                break
    assert step > 5


ADD = """
import sys
from pathlib import Path
from bioverify.rollouts.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    stamp = {"key": "k", "fingerprints": {}, "is_lost": False}
    for row in range(1, 41):
        if row not in ledger.entries:
            ledger.add([{"row": row, "id": str(row), "parts": [], "stamp": stamp}])
"""


def test_results_that_were_added_outlive_every_further_kill_and_stand_there_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with killing.script(ADD, tmp_path) as add:
        for at_byte in (1000, 1001, 2500):
            assert add.run(path, at_byte=at_byte) == -signal.SIGXFSZ
            kept = list(read_lines(path))
            with Ledger(path) as ledger:
                assert [ledger.result(row)["row"] for row in sorted(ledger.entries)] == [*range(1, len(kept) + 1)]
        assert add.run(path) == 0
    with Ledger(path) as ledger:
        assert list(ledger.entries) == [*range(1, 41)]
    assert len(path.read_bytes().splitlines()) == 40


@pytest.mark.parametrize("text", ["notes without an end of line", "x", '{"question": "a file of prompts"}'])
def test_a_file_of_somebody_else_is_refused_and_not_cut(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(LedgerError, match="not a result of bioverify"):
        Ledger(path)
    assert path.read_text() == text
