"""Checksums of an artifact's files: made once, verified on opening, remembered where nothing can have changed since.

Hashing a matrix of 800 MB takes seconds, and every worker process opens it. So a file whose hash was right is
remembered by inode, size, modification and change time (`ctime`, which no ordinary program can set back), in
``verified.json`` beside the artifact's folders; as long as the four are the same, it is not read again. A file that
changed less than two seconds ago is not remembered, because the file system's clock might not tell it from one that
changes now. The memory is only ever a shortcut: damaged or absent, every file is read. ``bioverify data verify`` reads
every file, always.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from bioverify.files import Stamp, replace_file, stamp_of

SUMS_FILE = "SHA256SUMS"
"""In the form of sha256sum, of every other file in the folder, the manifest included."""
_MEMORY_FILE = "verified.json"
SETTLED_S = 2.0


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_text(sha256_by_name: Mapping[str, str]) -> str:
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sha256_by_name.items()))


def problems(folder: Path, expected: Mapping[str, str], *, remembered: bool) -> Iterator[str]:
    """What is wrong with the files of ``folder``: file, expected and found. ``remembered``: known files are not read.

    ``expected``: file name → sha256.
    """
    known = _recall(folder) if remembered else {}
    right: dict[str, Stamp] = {}
    for name, sha256 in expected.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing from {folder}"
            continue
        stamp = stamp_of(path)
        if known.get(name) != stamp:
            found = sha256_of(path)
            if found != sha256:
                yield (
                    f"sha256 of {name} is {found[:12]}…, manifest says {sha256[:12]}…. "
                    f"The file was changed or cut short"
                )
                continue
        if _is_settled(stamp):
            right[name] = stamp
    if right != known:
        _remember(folder, right)


def _is_settled(stamp: Stamp) -> bool:
    return max(stamp[2:]) < time.time_ns() - int(SETTLED_S * 1e9)


def _recall(folder: Path) -> dict[str, Stamp]:
    try:
        memory = json.loads((folder.parent / _MEMORY_FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    # Of another build of the artifact: its files are other files.
    of_folder = memory.get(folder.name) if isinstance(memory, dict) else None
    if not isinstance(of_folder, dict):
        return {}
    return {name: tuple(stamp) for name, stamp in of_folder.items() if isinstance(stamp, list)}


def _remember(folder: Path, stamps: dict[str, Stamp]) -> None:
    # On a read-only volume or a full disk nothing is remembered: every opening reads every file.
    with suppress(OSError):
        replace_file(folder.parent / _MEMORY_FILE, json.dumps({folder.name: stamps}))
