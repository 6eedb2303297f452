"""Outcomes remembered in Redis or Valkey: one MGET per verifier and call, one pipelined fill.

A value is ``flag (1 byte) · checksum (8 bytes) · Outcome message``. The checksum is keyed by the Redis key, so that a
value which was cut, changed or written under another key is a miss and never a number. The flag says whether evidence
is inside: a value with evidence answers callers with and without, one without is a miss for those who want evidence and
is then overwritten. Failures are never written.

Redis may be gone, slow, full or locked: each read and write has a small time limit, every error is a miss that is
counted, and after an error Redis is left alone for a moment, so that a dead one does not cost every call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from bioverify.aggregator import metrics
from bioverify.aggregator.answers import Answered, answered, strip_evidence
from bioverify.v1 import types_pb2

_WITHOUT_EVIDENCE, _WITH_EVIDENCE = b"\x00", b"\x01"
_CHECKSUM_BYTES = 8
_PAYLOAD_AT = 1 + _CHECKSUM_BYTES

log = structlog.stdlib.get_logger("bioverify.aggregator.cache")


class OutcomeCache:
    """To be made inside the running event loop. ``timeout_s`` bounds each read and write."""

    def __init__(self, url: str, *, ttl_s: int, timeout_s: float, pause_s: float) -> None:
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._paused_until = 0.0
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # One attempt: the time limit is for the whole of it, and a miss is cheap.
            retry=Retry(NoBackoff(), 0),
        )

    async def get(
        self, verifier: str, keys: Sequence[bytes], deadline: float, *, with_evidence: bool
    ) -> dict[bytes, Answered]:
        """What is known of ``keys`` by ``deadline`` (time.monotonic). What cannot be read is not known."""
        values: list[Any] | None = None
        if self._may_try("read"):
            try:
                async with asyncio.timeout(self._time_left(deadline)):
                    values = await self._redis.mget(keys)
            except (RedisError, OSError, TimeoutError) as error:
                self._pause("read", error)
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
        if not values or not self._may_try("write"):
            return
        try:
            async with asyncio.timeout(self._time_left(deadline)), self._redis.pipeline(transaction=False) as pipeline:
                for key, value in values.items():
                    pipeline.set(key, value, ex=self._ttl_s)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._pause("write", error)

    async def close(self) -> None:
        await self._redis.aclose()

    def _time_left(self, deadline: float) -> float:
        return max(0.0, min(self._timeout_s, deadline - time.monotonic()))

    def _may_try(self, operation: str) -> bool:
        if time.monotonic() >= self._paused_until:
            return True
        metrics.CACHE_ERRORS.labels(operation, "paused").inc()
        return False

    def _pause(self, operation: str, error: Exception) -> None:
        metrics.CACHE_ERRORS.labels(operation, type(error).__name__).inc()
        log.warning("the cache is not available", operation=operation, error=f"{type(error).__name__}: {error}")
        self._paused_until = time.monotonic() + self._pause_s


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
