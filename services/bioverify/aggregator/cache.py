"""Outcomes remembered in Redis or Valkey: one MGET for all that a call asks, and few fills.

A value is ``checksum (8 bytes) · whether evidence is inside (1 byte) · Outcome message``. The checksum includes the
Redis key, so that a value which was cut, changed or written under another key is a miss and never a number. With a
secret the checksum is keyed by it (as BLAKE2b does by itself), so that nobody else who writes to Redis makes a value
that is believed; 64 bits are enough, as each guess takes a lookup of ours. Without one a right checksum is easily made,
so the message is held to the rules of an outcome that comes from a verifier. A value with evidence answers callers with
and without, one without is a miss for those who want evidence and is then overwritten. Failures are never written.

The verifiers of a call look up and fill at nearly the same moment, each for itself. What comes in the same turn of the
event loop is read at once, and what comes while a fill is under way is written with the next one: an operation costs
far more than a key.

Redis may be gone, slow, full, locked or read-only: each read and write has a small time limit, every error is a miss
that is counted, and after an error Redis is left alone for a pause that doubles while errors go on; then one operation
tries and the others still do without. Reads and writes pause apart where Redis answered (a full one still reads),
together if it did not.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import structlog
from google.protobuf.message import DecodeError
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ReadOnlyError, ResponseError

from bioverify.aggregator import metrics
from bioverify.aggregator.encoded import EncodedOutcome, read_numbers, strip_evidence
from bioverify.aggregator.policy.pauses import Pauses
from bioverify.aggregator.policy.together import Together
from bioverify.transport.redis_address import RedisAddress
from bioverify.transport.tls import LiveIdentity
from bioverify.v1 import types_pb2
from bioverify.wire.outcomes import MAX_OUTCOME_BYTES

_CHECKSUM_BYTES = 8
_WITH, _WITHOUT = b"\x01", b"\x00"

# One command for all: as a SET per key, a fill of a thousand costs the client twelve times as much.
_FILL = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end"

AnyRedis = Redis | RedisCluster
T = TypeVar("T")

log = structlog.stdlib.get_logger("bioverify.aggregator.cache")


class OutcomeCache:
    """To be made inside the running event loop. ``timeout_s`` bounds each read and write.

    Of a cluster's address any node will do. Over TLS it shows the certificates of ``tls`` if there are any, else it
    trusts whom the system trusts. ``password_file`` is read at each connection, so that a rotated one is taken up.
    What another ``secret`` signed, or none, is a miss.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        ttl_s: int,
        timeout_s: float,
        pause_s: float,
        tls: LiveIdentity | None = None,
        password_file: Path | None = None,
        secret: bytes = b"",
    ) -> None:
        self._secret = secret
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._pauses = {"read": Pauses(pause_s), "write": Pauses(pause_s)}
        self._address = address
        self._password_file = password_file
        self._tls = tls
        self._shown = tls.current() if tls is not None else None
        self._redis = self._connect()
        self._closing: set[asyncio.Task[None]] = set()
        self._reads = Together(self._read, at_once=1)
        self._writes = Together(self._write, at_once=1)

    async def get(
        self, verifier: str, keys: Sequence[bytes], deadline: float, *, with_evidence: bool
    ) -> dict[bytes, EncodedOutcome]:
        """What is known of ``keys`` by ``deadline`` (time.monotonic). What cannot be read is not known."""
        values = await self._reads.join(dict.fromkeys(keys), deadline, self._timeout_s)
        if values is None:
            metrics.CACHE_LOOKUPS.labels(verifier, "unavailable").inc(len(keys))
            return {}
        known: dict[bytes, EncodedOutcome] = {}
        invalid = 0
        for key in keys:
            value = values[key]
            if value is None:
                continue
            try:
                found = unpack(key, value, with_evidence=with_evidence, secret=self._secret)
            except ValueError:
                invalid += 1
                continue
            if found is not None:
                known[key] = found
        metrics.CACHE_LOOKUPS.labels(verifier, "hit").inc(len(known))
        metrics.CACHE_LOOKUPS.labels(verifier, "miss").inc(len(keys) - len(known) - invalid)
        if invalid:
            metrics.CACHE_LOOKUPS.labels(verifier, "invalid").inc(invalid)
            log.warning("unreadable values in the cache are ignored", verifier=verifier, values=invalid)
        return known

    async def put(self, outcomes: Mapping[bytes, EncodedOutcome], deadline: float, *, with_evidence: bool) -> None:
        """Remember these but for failures. What cannot be written is asked again another time."""
        values = {
            key: pack(key, one, with_evidence=with_evidence, secret=self._secret)
            for key, one in outcomes.items()
            if not one.failed
        }
        if values:
            await self._writes.join(values, deadline, self._timeout_s)

    async def close(self) -> None:
        self._reads.close()
        self._writes.close()
        for task in self._closing:
            task.cancel()
        if self._closing:
            await asyncio.wait(self._closing)
        await _close(self._redis)

    async def _read(self, keys: Mapping[bytes, None], deadline: float) -> dict[bytes, bytes | None] | None:
        asked = list(keys)

        async def read(redis: AnyRedis) -> list[Any]:
            values: list[Any] = await (redis.mget_nonatomic if isinstance(redis, RedisCluster) else redis.mget)(asked)
            return values

        values = await self._bounded("read", deadline, read)
        return None if values is None else dict(zip(asked, values, strict=True))

    async def _write(self, values: Mapping[bytes, bytes], deadline: float) -> None:
        async def write(redis: AnyRedis) -> None:
            for keys in _by_slot(values) if isinstance(redis, RedisCluster) else [list(values)]:
                fill = redis.eval(_FILL, len(keys), *keys, self._ttl_s, *[values[key] for key in keys])
                await fill

        await self._bounded("write", deadline, write)

    def _connect_anew(self) -> None:
        """Leave the open connections: they show an old certificate or, after a failover, lead to the old node."""
        old, self._redis = self._redis, self._connect()

        async def close_when_idle() -> None:
            try:
                await asyncio.sleep(self._timeout_s)
            finally:
                await _close(old)

        closing = asyncio.ensure_future(close_when_idle())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _connect(self) -> AnyRedis:
        settings: dict[str, Any] = {
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
            # One attempt: the time limit is for the whole of it, and a miss is cheap.
            "retry": Retry(NoBackoff(), 0),
        }
        address = self._address
        if self._tls is not None and address.is_tls:
            settings |= self._tls.redis_settings()
        if self._password_file is not None:
            login: dict[str, Any] = {"credential_provider": _PasswordFile(address.username, self._password_file)}
        else:
            login = {"username": address.username, "password": address.password}
        if address.kind == "cluster":
            return RedisCluster.from_url(address.url, **settings, **login)
        if address.kind != "sentinel":
            return Redis.from_url(address.url, **settings, **login)
        settings["ssl"] = address.is_tls
        # They are asked one after the other; if the first is silent there has to be time left for another.
        part_s = self._timeout_s / (len(address.hosts) + 1)
        asking = settings | {"socket_timeout": part_s, "socket_connect_timeout": part_s}
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            address.hosts, sentinel_kwargs=asking | (login if address.sentinels_ask else {})
        )
        master: Redis = sentinel.master_for(address.service, db=address.db, **settings, **login)
        return master

    async def _bounded(self, operation: str, deadline: float, work: Callable[[AnyRedis], Awaitable[T]]) -> T | None:
        """The result of ``work``, or None if Redis is left alone, fails, or takes too long."""
        if self._tls is not None and self._tls.current() is not self._shown:
            self._shown = self._tls.current()
            self._connect_anew()
        pauses, redis = self._pauses[operation], self._redis
        limit_s = min(self._timeout_s, deadline - time.monotonic())
        if limit_s <= 0:
            return None
        if not pauses.enter():
            metrics.CACHE_ERRORS.labels(operation, "paused").inc()
            return None
        try:
            with metrics.CACHE_SECONDS.labels(operation).time():
                async with asyncio.timeout(limit_s):
                    result = await work(redis)
        # The faults of a cache's client have no common base: RedisClusterException is no RedisError.
        except Exception as error:
            metrics.CACHE_ERRORS.labels(operation, type(error).__name__).inc()
            log.warning("the cache is not available", operation=operation, error=f"{type(error).__name__}: {error}")
            if isinstance(error, ReadOnlyError) and redis is self._redis:
                self._connect_anew()
            if isinstance(error, ResponseError):
                pauses.failed()
            # A caller who has hardly any time left says nothing about Redis.
            elif not isinstance(error, TimeoutError) or limit_s == self._timeout_s:
                for both in self._pauses.values():
                    both.failed()
            return None
        else:
            pauses.succeeded()
            return result
        finally:
            pauses.leave()


class _PasswordFile(CredentialProvider):
    """The login that lies in a file now: redis-py asks for it at each connection."""

    def __init__(self, username: str | None, file: Path) -> None:
        self._username = username
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._file.read_text().rstrip("\r\n")
        return (self._username, password) if self._username else (password,)


async def _close(redis: AnyRedis) -> None:
    await redis.aclose()
    pool = redis.connection_pool if isinstance(redis, Redis) else None
    if isinstance(pool, SentinelConnectionPool):
        await pool.sentinel_manager.aclose()


def _by_slot(keys: Iterable[bytes]) -> list[list[bytes]]:
    """A cluster takes together only what lies in one slot, which a key's verifier in braces decides."""
    slots: dict[bytes, list[bytes]] = {}
    for key in keys:
        slots.setdefault(key[: key.index(b"}")], []).append(key)
    return list(slots.values())


def pack(key: bytes, outcome: EncodedOutcome, *, with_evidence: bool, secret: bytes = b"") -> bytes:
    body = (_WITH if with_evidence else _WITHOUT) + outcome.message
    return _checksum(key, body, secret) + body


def unpack(key: bytes, value: bytes, *, with_evidence: bool, secret: bytes = b"") -> EncodedOutcome | None:
    """The outcome; None if it lacks the evidence that is wanted. Raises ValueError if it is damaged or forged."""
    body = value[_CHECKSUM_BYTES:]
    if not hmac.compare_digest(value[:_CHECKSUM_BYTES], _checksum(key, body, secret)):
        raise ValueError("the checksum does not fit")
    inside, message = body[:1], body[1:]
    if inside not in (_WITH, _WITHOUT) or len(message) > MAX_OUTCOME_BYTES:
        raise ValueError("its content is no outcome")
    try:
        parsed = types_pb2.Outcome.FromString(message)
    except DecodeError as error:
        raise ValueError("its content is no outcome") from error
    kind, number, belief = read_numbers(parsed)
    if kind == "failure":
        raise ValueError("its content is a failure, which is never remembered")
    if inside == _WITHOUT:
        if with_evidence:
            return None
    elif not with_evidence:
        strip_evidence(parsed)
        message = parsed.SerializeToString()
    return EncodedOutcome(kind, message, number, belief, True)


def _checksum(key: bytes, body: bytes, secret: bytes) -> bytes:
    return blake2b(key + body, digest_size=_CHECKSUM_BYTES, key=secret).digest()
