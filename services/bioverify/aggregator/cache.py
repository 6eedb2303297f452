"""Outcomes remembered in Redis or Valkey: one MGET per verifier and call, one pipelined fill.

A value is ``flag (1 byte) · checksum (8 bytes) · Outcome message``. The checksum is keyed by the Redis key, so that a
value which was cut, changed or written under another key is a miss and never a number. The flag says whether evidence
is inside: a value with evidence answers callers with and without, one without is a miss for those who want evidence and
is then overwritten. Failures are never written.

Redis may be gone, slow, full, locked or read-only: each read and write has a small time limit, every error is a miss
that is counted, and after an error Redis is left alone for a pause that doubles while errors go on; then one operation
tries and the others still do without. Reads and writes pause apart where Redis answered (a full one still reads),
together where it did not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import structlog
from google.protobuf.message import DecodeError
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from bioverify.aggregator import metrics
from bioverify.aggregator.answers import Answered, answered, strip_evidence
from bioverify.aggregator.policy.pauses import Pauses
from bioverify.v1 import types_pb2

CLUSTER_SCHEME = "redis+cluster://"
_WITHOUT_EVIDENCE, _WITH_EVIDENCE = b"\x00", b"\x01"
_CHECKSUM_BYTES = 8
_PAYLOAD_AT = 1 + _CHECKSUM_BYTES

AnyRedis = Redis | RedisCluster
T = TypeVar("T")

log = structlog.stdlib.get_logger("bioverify.aggregator.cache")


class OutcomeCache:
    """To be made inside the running event loop. ``timeout_s`` bounds each read and write.

    ``url``: "redis://host:port/0", "unix:///path", or "redis+cluster://host:port", any node of a cluster.
    """

    def __init__(self, url: str, *, ttl_s: int, timeout_s: float, pause_s: float) -> None:
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._pauses = {"read": Pauses(pause_s), "write": Pauses(pause_s)}
        self._url = url
        self._redis = _connect(url, timeout_s)
        self._closing: set[asyncio.Task[None]] = set()

    async def get(
        self, verifier: str, keys: Sequence[bytes], deadline: float, *, with_evidence: bool
    ) -> dict[bytes, Answered]:
        """What is known of ``keys`` by ``deadline`` (time.monotonic). What cannot be read is not known."""
        values: list[Any] | None = await self._bounded("read", deadline, lambda redis: redis.mget(keys))
        if values is None:
            metrics.CACHE_LOOKUPS.labels(verifier, "unavailable").inc(len(keys))
            return {}
        known: dict[bytes, Answered] = {}
        invalid = 0
        for key, value in zip(keys, values, strict=True):
            if value is None:
                continue
            try:
                found = unpack(key, value, with_evidence=with_evidence)
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

    async def put(self, answers: Mapping[bytes, Answered], deadline: float, *, with_evidence: bool) -> None:
        """Remember these but for failures. What cannot be written is asked again another time."""
        values = {key: pack(key, a, with_evidence=with_evidence) for key, a in answers.items() if not a.failed}

        async def write(redis: AnyRedis) -> None:
            async with redis.pipeline(transaction=False) as pipeline:
                for key, value in values.items():
                    pipeline.set(key, value, ex=self._ttl_s)
                await pipeline.execute()

        if values:
            await self._bounded("write", deadline, write)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await self._redis.aclose()

    def _connect_anew(self) -> None:
        """After a failover the name may lead to another node, while open connections still lead to the old one."""
        old, self._redis = self._redis, _connect(self._url, self._timeout_s)

        async def close_when_idle() -> None:
            await asyncio.sleep(self._timeout_s)
            await old.aclose()

        closing = asyncio.ensure_future(close_when_idle())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _bounded(self, operation: str, deadline: float, work: Callable[[AnyRedis], Awaitable[T]]) -> T | None:
        """The result of ``work``, or None where Redis is left alone, fails, or takes too long."""
        pauses, redis = self._pauses[operation], self._redis
        limit_s = min(self._timeout_s, deadline - time.monotonic())
        if limit_s <= 0:
            return None
        if not pauses.enter():
            metrics.CACHE_ERRORS.labels(operation, "paused").inc()
            return None
        try:
            async with asyncio.timeout(limit_s):
                result = await work(redis)
        except (RedisError, OSError, TimeoutError) as error:
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


def _connect(url: str, timeout_s: float) -> AnyRedis:
    settings: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # One attempt: the time limit is for the whole of it, and a miss is cheap.
        "retry": Retry(NoBackoff(), 0),
    }
    if url.startswith(CLUSTER_SCHEME):
        return RedisCluster.from_url("redis://" + url.removeprefix(CLUSTER_SCHEME), **settings)
    return Redis.from_url(url, **settings)


def pack(key: bytes, answer: Answered, *, with_evidence: bool) -> bytes:
    payload = answer.message.SerializeToString()
    flag = _WITH_EVIDENCE if with_evidence else _WITHOUT_EVIDENCE
    return flag + _checksum(key, flag, payload) + payload


def unpack(key: bytes, value: bytes, *, with_evidence: bool) -> Answered | None:
    """The answer; None where it lacks the evidence that is wanted. Raises ValueError where the value is damaged."""
    flag, checksum, payload = value[:1], value[1:_PAYLOAD_AT], value[_PAYLOAD_AT:]
    if checksum != _checksum(key, flag, payload):
        raise ValueError("the checksum does not fit")
    if with_evidence and flag != _WITH_EVIDENCE:
        return None
    try:
        message = types_pb2.Outcome.FromString(payload)
    except DecodeError as error:
        raise ValueError("not an outcome") from error
    if not with_evidence:
        strip_evidence(message)
    found = answered(message, from_cache=True)
    if found.failed:
        raise ValueError("a failure is never remembered")
    return found


def _checksum(key: bytes, flag: bytes, payload: bytes) -> bytes:
    return blake2b(flag + payload, digest_size=_CHECKSUM_BYTES, key=key[-32:]).digest()
