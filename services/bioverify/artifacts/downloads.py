"""One download over HTTP that survives being cut off.

Bytes go into ``<target>.part``; if the connection breaks, or the process is killed, the next attempt asks for the
rest with a Range request. That is only done if the file is known to be the same one: the server's validator (a
strong ETag, else Last-Modified), kept in ``<target>.part.validator``, goes along as If-Range, and a file whose checksum
is known is compared with it in the end. Proxies are taken from the environment, as httpx does.
"""

from __future__ import annotations

import re
import socket
import threading
import urllib.request
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError
from bioverify.files import replace_file, sync

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 30.0
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416


def download(name: str, url: str, target: Path, *, sha256: str = "", size_bytes: int = 0) -> str:
    """Fetch ``url`` into ``target``, resuming what an earlier attempt left. Returns the sha256.

    A connection that breaks is opened again as long as each one brings bytes. Raises httpx.TransportError if none
    comes (what arrived is kept), httpx.HTTPStatusError, and ArtifactError for another sha256 or size (nothing is kept).
    """
    host = httpx.URL(url).host
    if not _name_resolves(host):
        raise httpx.ConnectTimeout(f"the name {host} does not resolve")
    partial, validator = (target.with_name(target.name + ending) for ending in (".part", ".part.validator"))
    target.parent.mkdir(parents=True, exist_ok=True)
    is_complete = False
    while not is_complete:
        size_before = _size(partial)
        try:
            is_complete = _receive(name, url, partial, validator, has_checksum=bool(sha256))
        except httpx.TransportError:
            if _size(partial) <= size_before:
                raise
    validator.unlink(missing_ok=True)
    if size_bytes and _size(partial) != size_bytes:
        found_bytes = _size(partial)
        partial.unlink()
        raise ArtifactError(
            f"source {name}: {url} has {found_bytes:,} bytes, expected {size_bytes:,}. "
            f"The official file has changed; nothing was kept"
        )
    found = sha256_of(partial)
    if sha256 and found != sha256:
        partial.unlink()
        raise ArtifactError(
            f"source {name}: sha256 of {url} is {found[:12]}…, expected {sha256[:12]}…. "
            f"The official file has changed, or the download was tampered with; nothing was kept"
        )
    partial.replace(target)
    sync(target.parent)
    return found


def _receive(name: str, url: str, partial: Path, validator: Path, *, has_checksum: bool) -> bool:
    """One request for what is missing; False if the server knows no such rest and all is to be asked for again."""
    size_before = _size(partial)
    headers = {"Accept-Encoding": "identity"}
    known_version = validator.read_text() if validator.is_file() else ""
    if size_before and (known_version or has_checksum):
        headers["Range"] = f"bytes={size_before}-"
        if known_version:
            headers["If-Range"] = known_version
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        if response.status_code == _RANGE_NOT_SATISFIABLE and "Range" in headers:
            partial.unlink()
            return False
        response.raise_for_status()
        is_rest = response.status_code == _PARTIAL_CONTENT and _first_byte(response) == size_before
        if not is_rest:
            size_before = 0
            # In this order: bytes of another version must never lie beside this version's validator.
            partial.unlink(missing_ok=True)
            replace_file(validator, _version(response))
        length = response.headers.get("content-length")
        total = size_before + int(length) if length else None
        task = bar.add_task(name, total=total, completed=size_before)
        with partial.open("ab" if is_rest else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.advance(task, len(chunk))
    sync(partial)
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _first_byte(response: httpx.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return int(found[1]) if found else None


def _version(response: httpx.Response) -> str:
    """What If-Range may hold; empty if the server says nothing to be relied on (a weak ETag is not)."""
    etag = response.headers.get("etag", "")
    version: str = etag if etag.startswith('"') else response.headers.get("last-modified", "")
    return version


def _name_resolves(host: str) -> bool:
    """Whether the name has an address, within the connect timeout (a resolver alone may take half a minute)."""
    if urllib.request.getproxies():
        return True
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.extend(socket.getaddrinfo(host, None))
        except OSError:
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT_S)
    return bool(answers)
