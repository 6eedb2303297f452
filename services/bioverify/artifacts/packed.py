"""The bytes of a file that may be compressed, whatever its name says."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

_COMPRESSED: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"\x28\xb5\x2f\xfd", lambda path: pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")),
)
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeError, pa.ArrowException, csv.Error)
"""What a damaged file raises while it is read."""


def open_bytes(path: Path) -> IO[bytes]:
    """The file's content, unpacked whatever its ending says."""
    with path.open("rb") as file:
        start = file.read(8)
    for magic, opened in _COMPRESSED:
        if start.startswith(magic):
            unpacked: IO[bytes] = opened(path)
            return unpacked
    return path.open("rb")
