"""Files that survive a kill and a full disk: replaced whole, or grown by whole lines.

A file that is replaced is written beside the old one, forced to disk, and renamed over it: a reader sees the old
content or the new, never a part. What a killed writer left beside it is overwritten by the next, so one stays at most.

A file that grows does so by whole lines. A kill or a loss of power may cut the last one short: readers leave it out,
and the next append takes it off first. An append that fails leaves the file as it was.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

Stamp = tuple[int, int, int, int]
_BLOCK_BYTES = 65_536


def replace_file(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Give the file this content. ``private``: for its owner's eyes only. Raises OSError; the old file is then kept."""
    with replacing_file(path, private=private) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """The same for content that is written piece by piece: after an exception the old file is kept."""
    beside = path.with_name(f".{path.name}.partial")
    with _opened_alone(beside, private) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    sync(path.parent)


@contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that takes its name at the end: what was interrupted leaves nothing that looks finished.

    If another process has made it meanwhile, that one stays. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=path.name, dir=path.parent))
    try:
        yield unfinished
        try:
            unfinished.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def append_lines(path: Path, lines: bytes, *, sync_to_disk: bool = True) -> int:
    """Add whole lines to a file that one process writes at a time; made if it is not there. Returns where they begin.

    Raises OSError, and has then left the file as it was. ``sync_to_disk``: whether they survive a loss of power, too.
    No lines: only takes off a last one that was cut short.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        end = _end_of_whole_lines(file)
        file.truncate(end)
        file.seek(end)
        left = memoryview(lines)
        try:
            while left:
                left = left[file.write(left) :]
            if sync_to_disk:
                os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise
    if sync_to_disk and not end:
        sync(path.parent)  # the file itself may be new
    return end


def read_lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file; a last one that is cut short, or just being written, is left out."""
    with path.open("rb") as file:
        yield from whole_lines(file)


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The same from where an open file stands."""
    for line in file:
        if line.endswith(b"\n"):
            yield line


def stamp_of(path: Path) -> Stamp:
    """Inode, size, modification and change time: differs if the file was written, replaced, or its link was turned."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sync(path: Path) -> None:
    """Force a file, or which files a folder holds, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened_alone(path: Path, private: bool) -> BinaryIO:
    """The file, empty, and nobody else's until it is closed: two writers go one after the other."""
    mode = 0o600 if private else 0o666
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it meanwhile has renamed or removed it: then this is another file, not to be written to.
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    file.truncate()
                    if private:
                        os.fchmod(file.fileno(), mode)
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _end_of_whole_lines(file: BinaryIO) -> int:
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
