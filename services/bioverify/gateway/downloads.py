"""A growing file as a download that can be taken up again: single byte ranges, up to what is known to be good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from starlette.responses import StreamingResponse

from bioverify.gateway.problems import ProblemError

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_PIECE_BYTES = 2**18


def download(path: Path, size_bytes: int, etag: str, asked: str | None, filename: str) -> StreamingResponse:
    """The first ``size_bytes`` of a file of JSON lines, or the range ``asked`` for. Raises ProblemError 416.

    A range of another form is answered with the whole, as HTTP allows.
    """
    headers = {
        "accept-ranges": "bytes",
        "etag": etag,
        "content-disposition": f'attachment; filename="{filename}"',
        "x-accel-buffering": "no",
    }
    first, last, status = 0, size_bytes - 1, 200
    match = _RANGE.fullmatch(asked or "")
    if match:
        first = int(match[1])
        last = min(int(match[2]), size_bytes - 1) if match[2] else size_bytes - 1
        if first > last:
            raise ProblemError(
                416,
                "range_not_satisfiable",
                f"there are {size_bytes:,} bytes so far; bytes {match[0].removeprefix('bytes=')} are none of them",
                headers={"content-range": f"bytes */{size_bytes}"},
            )
        status = 206
        headers["content-range"] = f"bytes {first}-{last}/{size_bytes}"
    headers["content-length"] = str(last - first + 1)
    return StreamingResponse(_read(path, first, last), status, headers, "application/x-ndjson")


def _read(path: Path, first: int, last: int) -> Iterator[bytes]:
    left = last - first + 1
    if left == 0:
        return
    with path.open("rb") as file:
        file.seek(first)
        while left:
            piece = file.read(min(_PIECE_BYTES, left))
            if not piece:
                # The answer's length is promised already: only a broken connection says that it is not whole.
                raise OSError(f"{path} ends {left:,} bytes early: it was cut short from outside")
            left -= len(piece)
            yield piece
