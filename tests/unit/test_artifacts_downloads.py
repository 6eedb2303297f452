"""A download that was cut off goes on where it stopped, and never mixes two versions of a file."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from bioverify.artifacts.downloads import download
from bioverify.artifacts.errors import ArtifactError

BODY = bytes(range(256)) * 400
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Origin:
    """What the server serves, and how often it breaks off. ``cuts``: bytes to send per answer before hanging up."""

    body: bytes = BODY
    etag: str = '"one"'
    knows_ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    served = Origin()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
            served.asked.append((wanted, condition))
            is_rest = served.knows_ranges and wanted is not None and condition in {None, served.etag}
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if is_rest and wanted else 0
            if is_rest and start >= len(served.body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            rest = served.body[start:]
            self.send_response(206 if is_rest else 200)
            if is_rest:
                self.send_header("Content-Range", f"bytes {start}-{len(served.body) - 1}/{len(served.body)}")
            if served.etag:
                self.send_header("ETag", served.etag)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: served.cuts.pop(0)] if served.cuts else rest)

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served.url = f"http://127.0.0.1:{server.server_address[1]}/file"
        yield served
        server.shutdown()


def test_a_connection_that_breaks_is_made_anew_for_the_rest(tmp_path: Path, origin: Origin) -> None:
    origin.cuts = [30_000, 40_000]
    assert download("file", origin.url, tmp_path / "file", sha256=SHA256) == SHA256
    assert (tmp_path / "file").read_bytes() == BODY
    assert [wanted for wanted, _ in origin.asked] == [None, "bytes=30000-", "bytes=70000-"]
    assert {condition for _, condition in origin.asked[1:]} == {'"one"'}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_broken_off_run_left_is_kept_for_the_next(tmp_path: Path, origin: Origin) -> None:
    origin.cuts = [30_000, 0]
    with pytest.raises(httpx.TransportError):
        download("file", origin.url, tmp_path / "file")
    assert (tmp_path / "file.part").stat().st_size == 30_000
    assert not (tmp_path / "file").exists()
    assert download("file", origin.url, tmp_path / "file") == SHA256
    assert origin.asked[-1] == ("bytes=30000-", '"one"')


def test_a_file_that_changed_in_between_is_fetched_from_the_start(tmp_path: Path, origin: Origin) -> None:
    origin.cuts = [30_000, 0]
    with pytest.raises(httpx.TransportError):
        download("file", origin.url, tmp_path / "file")
    origin.body, origin.etag = BODY[::-1], '"two"'
    download("file", origin.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_validator_and_checksum_nothing_is_appended(tmp_path: Path, origin: Origin, etag: str) -> None:
    origin.etag = etag
    origin.cuts = [30_000, 0]
    with pytest.raises(httpx.TransportError):
        download("file", origin.url, tmp_path / "file")
    assert download("file", origin.url, tmp_path / "file") == SHA256
    assert origin.asked[-1] == (None, None)


def test_a_server_without_ranges_sends_the_whole_file(tmp_path: Path, origin: Origin) -> None:
    origin.knows_ranges = False
    (tmp_path / "file.part").write_bytes(BODY[:1000])
    assert download("file", origin.url, tmp_path / "file", sha256=SHA256) == SHA256
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_rest_that_the_server_does_not_have_is_dropped(tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "file.part").write_bytes(BODY + b"more")
    assert download("file", origin.url, tmp_path / "file", sha256=SHA256) == SHA256


def test_a_rest_of_another_file_is_noticed_by_the_checksum_and_not_kept(tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    with pytest.raises(ArtifactError, match="nothing was kept"):
        download("file", origin.url, tmp_path / "file", sha256=SHA256)
    assert not list(tmp_path.iterdir())
    assert download("file", origin.url, tmp_path / "file", sha256=SHA256) == SHA256


def test_a_proxy_of_the_environment_is_asked(tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", origin.url.removesuffix("/file"))
    assert download("file", "http://nowhere.invalid/file", tmp_path / "file") == SHA256


def test_a_file_of_another_size_than_is_known_is_not_kept(tmp_path: Path, origin: Origin) -> None:
    with pytest.raises(ArtifactError, match="has 102,400 bytes, expected 5"):
        download("file", origin.url, tmp_path / "file", size_bytes=5)
    assert not list(tmp_path.iterdir())
    assert download("file", origin.url, tmp_path / "file", size_bytes=len(BODY)) == SHA256
