"""An archive of weights is not trusted: only what is known is taken, and only if it is what it should be."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from bioverify.artifacts import checkpoints
from bioverify.artifacts.checkpoints import unpack
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.sources import TF_SAPIENS_SHA256

WEIGHTS, VECTORS = b"weights" * 1000, b"vectors" * 1000
FILES = {
    "tf_sapiens/config.json": b"{}",
    "tf_sapiens/model_weights.pt": WEIGHTS,
    "tf_sapiens/vocabs/assay_vocab.json": b'{"unknown": 0}',
    "tf_sapiens/vocabs/homo_sapiens_gene.h5": VECTORS,
}


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {"model_weights.pt": WEIGHTS, "homo_sapiens_gene.h5": VECTORS}
    for name, content in sums.items():
        monkeypatch.setitem(TF_SAPIENS_SHA256, name, hashlib.sha256(content).hexdigest())


def archive(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for other in others:
            tar.addfile(other)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def test_the_four_files_are_unpacked_where_they_belong_and_nothing_else(tmp_path: Path) -> None:
    hostile = {"../../evil.json": b"{}", "/tmp/evil.pt": b"x", "tf_sapiens/run_me.py": b"x", **FILES}
    packed = archive(tmp_path / "a.tar.gz", hostile, link("tf_sapiens/model_weights.pt", "/etc/passwd"))
    unpack(packed, tmp_path / "out")
    found = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert found == {name.removeprefix("tf_sapiens/") for name in FILES}
    assert (tmp_path / "out/model_weights.pt").read_bytes() == WEIGHTS
    assert not (tmp_path / "out/model_weights.pt").is_symlink()
    assert {file.name for file in tmp_path.iterdir()} == {"a.tar.gz", "out"}


def test_what_is_there_and_right_is_not_unpacked_again(tmp_path: Path) -> None:
    unpack(archive(tmp_path / "a.tar.gz", FILES), tmp_path / "out")
    unpack(tmp_path / "no archive is needed", tmp_path / "out")
    (tmp_path / "out/model_weights.pt").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match="no whole archive"):
        unpack(tmp_path / "no archive is needed", tmp_path / "out")
    unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert (tmp_path / "out/model_weights.pt").read_bytes() == WEIGHTS


def test_weights_of_another_version_are_not_kept(tmp_path: Path) -> None:
    packed = archive(tmp_path / "a.tar.gz", {**FILES, "tf_sapiens/model_weights.pt": b"other"})
    with pytest.raises(ArtifactError, match=r"tf_sapiens/model_weights\.pt is not the published one"):
        unpack(packed, tmp_path / "out")
    assert not (tmp_path / "out/model_weights.pt").exists()


def test_an_archive_that_is_cut_short_lacks_a_file_or_floods_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive(tmp_path / "a.tar.gz", FILES).read_bytes()[:200])
    with pytest.raises(ArtifactError, match="no whole archive"):
        unpack(cut, tmp_path / "out")
    without = {name: content for name, content in FILES.items() if not name.endswith("config.json")}
    with pytest.raises(ArtifactError, match=r"has no config\.json"):
        unpack(archive(tmp_path / "b.tar.gz", without), tmp_path / "other")
    monkeypatch.setattr(checkpoints, "MAX_JSON_BYTES", 10)
    with pytest.raises(ArtifactError, match="too many for settings"):
        unpack(archive(tmp_path / "c.tar.gz", {"config.json": b"[" + b"1," * 20 + b"1]"}), tmp_path / "third")
