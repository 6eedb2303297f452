"""Who may call the service: whoever knows the one token that lies in a file, a Kubernetes secret for instance.

The file is read at every call, so that a token is replaced without a restart. Calls are rare; the gateway in front has
keys of its own, one per person, and knows this token.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

import grpc

from bioverify.runtime.errors import Refused
from bioverify.transport.refusals import Refusal


def read_token(file: Path) -> str:
    """Raises OSError, and ValueError for an empty file."""
    token = file.read_text().strip()
    if not token:
        raise ValueError(f"{file} is empty; write a long random token into it")
    return token


def check_token(file: Path | None, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Raises Refused, UNAUTHENTICATED. ``file`` None: anybody may call."""
    if file is None:
        return
    given = next((value for key, value in metadata if key == "authorization"), "")
    try:
        wanted = f"Bearer {read_token(file)}"
    except (OSError, ValueError) as error:
        raise _refused(f"the service cannot read its token: {error}") from error
    given_bytes = given.encode() if isinstance(given, str) else given
    if not hmac.compare_digest(given_bytes, wanted.encode()):
        raise _refused("no token, or another one: send it as `authorization: Bearer …` in the metadata")


def _refused(message: str) -> Refused:
    return Refused(Refusal(grpc.StatusCode.UNAUTHENTICATED, message, "unauthenticated"))
