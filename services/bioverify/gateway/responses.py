"""How a route answers in JSON: packed if the caller can unpack it, not at all if the caller has it already."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response

# Larger answers are worth the milliseconds that packing takes.
_PACKED_FROM_BYTES = 2048
_JSON = "application/json"


def json_answer(request: Request, body: bytes, status: int = 200) -> Response:
    """JSON that is written already. To be called in a worker thread: packing is work."""
    headers = {"vary": "accept-encoding"}
    if len(body) >= _PACKED_FROM_BYTES and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(gzip.compress(body, 1), status, {**headers, "content-encoding": "gzip"}, _JSON)
    return Response(body, status, headers, _JSON)


def tagged_answer(request: Request, value: Any) -> Response:
    """JSON with an entity tag; 304 if the caller has shown that it holds the same. For a worker thread, too."""
    body = orjson.dumps(value)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    held = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    answer = Response(status_code=304) if etag in held else json_answer(request, body)
    answer.headers["etag"] = etag
    return answer
