"""Taking in a request's body: piece by piece, unpacked if it is gzip, within limits of size and of patience."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from starlette.requests import ClientDisconnect, Request

from bioverify.gateway.problems import ProblemError

_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 2**18


async def pieces(request: Request, max_bytes: int, timeout_s: float) -> AsyncIterator[bytes]:
    """The body, decompressed. Raises ProblemError beyond ``max_bytes`` or after ``timeout_s`` without a piece."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", "gzip"}:
        raise ProblemError(415, "unknown_encoding", f"content-encoding {encoding!r} is not one of gzip, identity")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    unpack = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
    size_bytes = 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                received = await anext(stream, None)
        except TimeoutError as error:
            detail = f"nothing more of the body came for {timeout_s:g} s"
            raise ProblemError(408, "slow_body", detail, headers={"connection": "close"}) from error
        except ClientDisconnect as error:
            raise ProblemError(400, "incomplete_body", "the connection ended before the body did") from error
        if received is None:
            break
        for piece in _unpacked(unpack, received):
            size_bytes += len(piece)
            if size_bytes > max_bytes:
                raise _too_large(max_bytes)
            yield piece
    if unpack is not None and not unpack.eof:
        raise ProblemError(400, "incomplete_body", "the gzip body ends too early")


async def whole(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The body in one piece; errors as for `pieces`."""
    return b"".join([piece async for piece in pieces(request, max_bytes, timeout_s)])


def _unpacked(unpack: zlib._Decompress | None, received: bytes) -> Iterator[bytes]:
    if unpack is None:
        yield received
        return
    # A small body may unpack to gigabytes: each piece is counted before the next is made.
    while received and not unpack.eof:
        try:
            yield unpack.decompress(received, _PIECE_BYTES)
        except zlib.error as error:
            raise ProblemError(400, "broken_gzip", f"the body is not gzip: {error}") from error
        received = unpack.unconsumed_tail


def _too_large(max_bytes: int) -> ProblemError:
    detail = f"the body is larger than {max_bytes:,} bytes; send fewer items, or a file to /v1/jobs"
    return ProblemError(413, "body_too_large", detail, headers={"connection": "close"})
