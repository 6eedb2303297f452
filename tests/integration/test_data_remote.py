"""Artifacts on shared storage: a real S3 server in a process of its own, and a folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from typer.testing import CliRunner, Result

from bioverify.artifacts.store import ArtifactStore
from bioverify.cli import app
from tests.fixtures.servers import free_port

BUCKET = "artifacts"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Endpoint of a moto server."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    endpoint = f"http://127.0.0.1:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="me", aws_secret_access_key="secret"
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            break
        except Exception:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield endpoint
    server.kill()
    server.wait()


@pytest.fixture(params=["s3", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place; the environment of each test knows the server."""
    if request.param == "folder":
        return (tmp_path / "remote").as_uri()
    for name, value in {
        "AWS_ENDPOINT_URL": request.getfixturevalue("s3"),
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundled_store: ArtifactStore) -> Path:
    """A home with two small artifacts of the bundled set."""
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / "home"))
    for name in ("genes", "transcriptformer_pmi"):
        shutil.copytree(bundled_store.root / name, tmp_path / "home/artifacts" / name)
    return tmp_path / "home"


def data(*arguments: str, status: int = 0) -> Result:
    done = CliRunner().invoke(app, ["data", *arguments])
    assert done.exit_code == status, f"exit status {done.exit_code}\n{done.output}{done.exc_info}"
    return done


def test_what_is_pushed_from_one_machine_is_pulled_whole_on_another(
    url: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = data("push", url).stdout
    digests = {manifest.name: manifest.digest for manifest in ArtifactStore(home / "artifacts").list()}
    assert all(f"{name}: {digest}" in pushed for name, digest in digests.items())
    assert " MB\n" in pushed
    assert "pmi.npy" not in data("push", url).stdout, "what is there is not sent again"
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / "other"))
    assert "pmi.npy" in data("pull", url).stdout
    other = ArtifactStore(tmp_path / "other/artifacts")
    assert {manifest.name: manifest.digest for manifest in other.list()} == digests
    assert [problem for name in digests for problem in other.verify(name)] == []
    assert "unchanged" in data("pull", url, f"genes@{digests['genes']}").stdout
    assert {path.name for path in other.root.iterdir() if path.is_dir()} == set(digests)


def test_a_file_that_was_changed_on_the_way_is_refused_and_nothing_is_installed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    data("push", str(remote), "transcriptformer_pmi")
    changed = next(remote.rglob("symbols.arrows"))
    whole = changed.read_bytes()
    changed.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / "other"))
    told = data("pull", str(remote), status=1).stderr
    assert "symbols.arrows is" in told
    assert "its manifest says" in told
    assert ArtifactStore(tmp_path / "other/artifacts").names() == []
    changed.write_bytes(whole)
    resumed = data("pull", str(remote)).stdout
    assert "symbols.arrows" in resumed
    assert "pmi.npy" not in resumed, "files that had arrived are not fetched again"
    assert ArtifactStore(tmp_path / "other/artifacts").names() == ["transcriptformer_pmi"]


def test_a_manifest_that_was_changed_or_leads_outside_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    data("push", str(remote), "genes")
    manifest = next(remote.rglob("manifest.json"))
    whole = manifest.read_text()
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / "other"))
    manifest.write_text(whole.replace("current.arrows", "../../../current.arrows"))
    assert "It was changed" in data("pull", str(remote), status=1).stderr
    manifest.write_text(whole)
    digest = ArtifactStore(home / "artifacts").manifest("genes").digest
    assert "not there" in data("pull", str(remote), "genes@sha256:" + "0" * 64, status=1).stderr
    assert f"expected genes {digest[:-1]}" in data("pull", str(remote), f"genes@{digest[:-1]}0", status=1).stderr
    assert "is no artifact's name" in data("pull", str(remote), "../genes", status=1).stderr
    pointer = remote / "genes/current"
    named = pointer.read_text()
    for hostile in (b"..", b"../../genes", b"", b"\xff\xfe", named.strip().upper().encode() + b"G", b"a/b"):
        pointer.write_bytes(hostile)
        assert "names no version" in data("pull", str(remote), "genes", status=1).stderr
    assert "holds no artifact" in data("pull", str(tmp_path / "empty"), status=1).stderr


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[2Jb", "a\x00b", "a\u202eb", "manifest.json", "SHA256SUMS", "../b", "/b"]
)
def test_a_manifest_whose_digest_fits_and_whose_files_names_do_not_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever owns the bucket can write a manifest that is whole by its own sums."""
    remote = tmp_path / "remote"
    data("push", str(remote), "genes")
    honest = ArtifactStore(home / "artifacts").manifest("genes")
    hostile = honest.model_copy(update={"files": {**honest.files, name: next(iter(honest.files.values()))}})
    folder = remote / "genes" / hostile.folder_name
    folder.mkdir()
    (folder / "manifest.json").write_text(hostile.model_dump_json())
    (remote / "genes/current").write_text(hostile.folder_name)
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / "other"))
    told = data("pull", str(remote), "genes", status=1).stderr
    assert f"{name!r}" in told
    assert name.isprintable() or name not in told
    assert ArtifactStore(tmp_path / "other/artifacts").names() == []


def test_a_file_longer_than_its_manifest_says_is_not_written_to_its_end(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    data("push", str(remote), "genes")
    manifest = ArtifactStore(home / "artifacts").manifest("genes")
    name, record = next(iter(manifest.files.items()))
    with (remote / "genes" / manifest.folder_name / name).open("ab") as file:
        file.truncate(record.size_bytes + 2**33)
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / "other"))
    began = time.monotonic()
    told = data("pull", str(remote), "genes", status=1).stderr
    assert f"{name} is longer than the {record.size_bytes:,} bytes that its manifest says" in told
    assert time.monotonic() - began < 30, "8 GB were read to their end"
    assert sum(file.stat().st_size for file in (tmp_path / "other").rglob("*")) < 2**24
    assert ArtifactStore(tmp_path / "other/artifacts").names() == []


def test_a_pull_that_is_killed_leaves_nothing_to_open_and_goes_on(
    url: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data("push", url)
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / "other"))
    root = tmp_path / "other/artifacts"
    pulling = subprocess.Popen(
        [sys.executable, "-m", "bioverify.cli", "data", "pull", url], stdout=subprocess.DEVNULL, env=os.environ
    )
    deadline = time.monotonic() + 120
    while not list(root.glob(".pulling-*/*")) and not list(root.glob("*/current")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(pulling.pid, signal.SIGKILL)
    pulling.wait()
    for name in ArtifactStore(root).names():
        assert list(ArtifactStore(root).verify(name)) == []
    data("pull", url)
    assert ArtifactStore(root).names() == ["genes", "transcriptformer_pmi"]
    assert not list(root.glob(".pulling-*"))
    assert "all as built" in data("verify").stdout


def test_a_place_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert "nosuchscheme://bucket" in data("pull", "nosuchscheme://bucket", status=1).stderr
