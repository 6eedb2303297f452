"""What schemathesis has to be told: how a body of JSON lines is written."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
