"""Who is local, if no key says it: pages of other sites are not, although their browser is.

A browser on this machine sends what any page asks it to send, and calls a foreign name by this machine's address if
its owner's DNS says so. So a gateway without keys answers requests for its own address, for localhost and for the names
that it is told of (`allowed_hosts`), and none that another site's page has made. A page that is looked at may be come
to by a link from anywhere. Programs send neither Origin nor Sec-Fetch headers and are asked for nothing.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bioverify.gateway.config import GatewayConfig
from bioverify.gateway.problems import ProblemError
from bioverify.transport.addresses import addresses_of, literal

_OWN_SITE = {"same-origin", "none"}
# What a page may send elsewhere without asking first is neither of these.
_JSON = {"application/json", "application/x-ndjson"}


class Strangers:
    """Wraps the application of a gateway that asks for no key."""

    def __init__(self, app: ASGIApp, config: GatewayConfig) -> None:
        self._app = app
        self._origins = set(config.cors_origins)
        listened_on = addresses_of(config.host)
        self._is_everywhere = any(address.is_unspecified for address in listened_on)
        named = {"localhost", config.host, *config.allowed_hosts}
        self._names = {name.lower().rstrip(".") for name in named}
        self._addresses = listened_on | addresses_of("127.0.0.1") | addresses_of("::1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope, Headers(scope=scope))
            except ProblemError as refusal:
                await refusal.response(scope["state"]["request_id"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            detail = (
                f"this gateway is not {', '.join(hosts) or 'named'}; name it in allowed_hosts, or call it by address"
            )
            raise ProblemError(421, "other_host", detail)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is None and site is None and "sec-fetch-mode" not in headers:
            return
        is_looked_at = (
            scope["method"] in {"GET", "HEAD"}
            and headers.get("sec-fetch-mode") == "navigate"
            and not scope["path"].startswith("/v1/")
        )
        if origin is not None:
            is_own = origin in self._origins or urlsplit(origin).netloc.lower() == hosts[0].lower()
        else:
            is_own = site in _OWN_SITE
        if not is_own and not is_looked_at:
            raise ProblemError(403, "other_site", f"a page of {origin or 'another site'} asks; see cors_origins")
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if has_body and kind not in _JSON:
            raise ProblemError(415, "not_json", f"content-type {kind!r}: a browser sends {' or '.join(sorted(_JSON))}")

    def _is_own(self, host: str) -> bool:
        """``host``: a Host header, with or without a port."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if (address := literal(name)) is not None:
            # No name stands between a browser and an address, so nobody can have turned it.
            return address in self._addresses or self._is_everywhere
        return name.lower().rstrip(".") in self._names
