"""The address of a Redis or Valkey, read strictly: one server, a cluster, or what Sentinels watch over.

An address holds a password, and a password that is not percent-encoded ends up in the host, the port or the path of
what a reader of URLs makes of it, and from there in tracebacks and in connections to strangers. So nothing is guessed:
what does not fit as a whole is refused, in a sentence that repeats no part of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from bioverify.errors import BioverifyError

FORMS = (
    "redis://host:6379/0, redis+cluster://host:6379, redis+sentinel://host:26379,host:26379/service/0 (rediss for "
    "TLS), each with user:password@ before the host if need be, or unix:///path"
)
# What redis-py takes of them without opening another door.
OPTIONS = frozenset(
    {
        "client_name",
        "db",
        "health_check_interval",
        "max_connections",
        "protocol",
        "sentinel_auth",
        "socket_keepalive",
        "ssl_ca_certs",
        "ssl_cert_reqs",
        "ssl_check_hostname",
        "ssl_min_version",
    }
)
_SCHEME = re.compile(r"(?P<tls>redis|rediss)(?:\+(?P<kind>cluster|sentinel))?://|(?P<socket>unix)://")
_LOGIN = re.compile(r"(?:(?P<user>[^:@/?#\s]*)(?::(?P<password>[^@/?#\s]*))?@)?")
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?"
_SERVER = re.compile(rf"(?P<hosts>{_HOST})(?:/(?P<db>[0-9]{{0,4}}))?")
_SENTINEL = re.compile(rf"(?P<hosts>{_HOST}(?:,{_HOST})*)/(?P<service>[A-Za-z0-9_.-]+)(?:/(?P<db>[0-9]{{0,4}}))?")
_SOCKET = re.compile(r"(?P<path>/[^?#@]+)")
_OPTION = re.compile(r"[a-z_]+=[^&#@]*(?:&[a-z_]+=[^&#@]*)*")
_DEFAULT_PORTS = {"sentinel": 26379}


class RedisAddressError(BioverifyError, ValueError):
    """An address that cannot be used. The message repeats no part of it."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """``kind``: server, socket, cluster or sentinel. ``url``: without a login, in redis-py's words; none for Sentinels.

    ``service``: what the Sentinels call the servers. ``sentinels_ask``: they want the same login as the servers.
    """

    kind: str
    is_tls: bool
    url: str
    hosts: tuple[tuple[str, int], ...]
    db: int
    service: str
    username: str | None
    password: str | None = field(repr=False)
    sentinels_ask: bool


def read_address(url: str) -> RedisAddress:
    """A line end around it, as secrets made of files have one, is not part of it. Raises RedisAddressError."""
    url = url.strip()
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise RedisAddressError(f"the address of Redis is of no kind that is known. Write {FORMS}")
    kind = scheme["kind"] or ("socket" if scheme["socket"] else "server")
    body, mark, query = url[scheme.end() :].partition("?")
    login = _LOGIN.match(body)
    assert login is not None
    place = {"socket": _SOCKET, "sentinel": _SENTINEL}.get(kind, _SERVER).fullmatch(body[login.end() :])
    hosts = _hosts(place["hosts"], _DEFAULT_PORTS.get(kind, 6379)) if place is not None and kind != "socket" else ()
    if place is None or hosts is None:
        raise RedisAddressError(
            "the address of Redis cannot be read: host, port and path cannot be told apart. In a user name or password "
            f"the characters / ? # @ : % are percent-encoded, / as %2F. Write {FORMS}"
        )
    options = parse_qsl(query, keep_blank_values=True)
    if mark and (not _OPTION.fullmatch(query) or {name for name, _ in options} - OPTIONS):
        raise RedisAddressError(f"the address of Redis has options after ? other than {', '.join(sorted(OPTIONS))}")
    rest = "&".join(part for part in query.split("&") if part and not part.startswith("sentinel_auth="))
    plain = "unix" if kind == "socket" else scheme["tls"]
    address = RedisAddress(
        kind=kind,
        is_tls=scheme["tls"] == "rediss",
        url="" if kind == "sentinel" else f"{plain}://{body[login.end() :]}" + (f"?{rest}" if rest else ""),
        hosts=hosts,
        db=int(place["db"] or 0) if kind != "socket" else 0,
        service=place["service"] if kind == "sentinel" else "",
        username=unquote(login["user"]) if login["user"] else None,
        password=unquote(login["password"]) if login["password"] else None,
        sentinels_ask=dict(options).get("sentinel_auth") == "true",
    )
    if kind == "sentinel" and rest:
        raise RedisAddressError("the address of Redis by Sentinels takes the option sentinel_auth=true and no other")
    if kind != "sentinel" and "sentinel_auth" in dict(options):
        raise RedisAddressError(
            "the address of Redis has the option sentinel_auth, which is for redis+sentinel:// alone"
        )
    if kind == "cluster" and (place["db"] or dict(options).get("db") or "0").strip("0"):
        raise RedisAddressError("the address of Redis names a database, and a cluster has one, 0: leave the number out")
    _try_options(address)
    return address


def without_login(url: str) -> str:
    """The address for files and eyes: user and password left out. Raises RedisAddressError."""
    read_address(url)
    scheme = _SCHEME.match(url.strip())
    assert scheme is not None
    rest = url.strip()[scheme.end() :]
    login = _LOGIN.match(rest)
    assert login is not None
    return scheme[0] + rest[login.end() :]


def _hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...] | None:
    found = []
    for each in text.split(","):
        host, colon, port = each.rpartition(":") if not each.endswith("]") else (each, "", "")
        number = int(port) if colon else default_port
        if not 0 < number <= 65535:
            return None
        found.append(((host if colon else each).strip("[]"), number))
    return tuple(found)


def _try_options(address: RedisAddress) -> None:
    """By a connection that is not opened: redis-py looks at some options no earlier, and raises whatever it likes."""
    if not address.url:
        return
    from redis import ConnectionPool, RedisError

    try:
        ConnectionPool.from_url(address.url).make_connection()
    except (ValueError, TypeError, RedisError):
        # What redis-py says repeats the value.
        raise RedisAddressError(
            "the address of Redis has an option after ? with a value that it cannot have, or one for TLS (ssl_…) in an "
            "address without it"
        ) from None
