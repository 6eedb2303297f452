"""What travels beside every call: the id under which all services log it, and the trace that it is part of.

Whoever is asked first, the gateway or a client, takes the caller's own id or makes one; every service keeps it in its
log's context while it works on the call, sends it on with the calls that it makes for it, and gives it back.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

from structlog.contextvars import get_contextvars

from bioverify import tracing

REQUEST_ID = "x-request-id"
"""Header of HTTP and metadata key of gRPC."""
MOST_TOGETHER = 64
"""Request ids of one call that is made for several requests: 4 KB at the most, of the 8 KB that headers may have."""
_ONE = r"[\w.-]{1,64}"
_FIT = re.compile(_ONE, re.ASCII)
_FIT_TOGETHER = re.compile(rf"{_ONE}(?:,{_ONE}){{0,{MOST_TOGETHER - 1}}}", re.ASCII)

Sent = tuple[tuple[str, str], ...]


def is_fit(request_id: str) -> bool:
    """Whether it can stand in a log and a header: at most 64 letters, digits, dots, hyphens and underscores."""
    return _FIT.fullmatch(request_id) is not None


def request_id_from(given: str | None) -> str:
    """The caller's own request id if it sent one that is fit for a log, else a new one."""
    return given if given and is_fit(given) else uuid.uuid4().hex


def received(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[str, dict[str, str]]:
    """The request id of a call that came in, and its headers, which may say whose trace it is part of.

    A call that is made for several requests has the ids of all, with commas.
    """
    headers = {key: value for key, value in metadata or () if isinstance(value, str)}
    given = headers.get(REQUEST_ID, "")
    return given if _FIT_TOGETHER.fullmatch(given) else request_id_from(None), headers


def current_request_id() -> str:
    """The id of the request that is being answered here; empty if there is none."""
    return str(get_contextvars().get("request_id", ""))


def outgoing(request_id: str = "") -> Sent:
    """The headers of a call: the id, without one that of the request which is being answered here, and the trace."""
    sent = request_id or current_request_id()
    return (*(((REQUEST_ID, sent),) if sent else ()), *tracing.outgoing())
