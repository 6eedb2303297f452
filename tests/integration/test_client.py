"""The Python client: cutting calls, losing some of them, forks and loops, and errors that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.client import AsyncClient, Client, ClientError, ScoreItem, messages
from bioverify.transport.refusals import Refusal, refusal_metadata
from bioverify.v1 import reward_pb2, reward_pb2_grpc
from tests.fixtures import servers
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.rewards import item, many_items, numbers, optional, recipe, required
from tests.fixtures.waiting import wait_until

BY = recipe(optional("lookup", 2.0), required("text"))


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with (
        servers.verifier("Lookup") as lookup,
        servers.verifier("Text") as text,
        servers.aggregator({"lookup": lookup.target, "text": text.target}) as running,
    ):
        yield running.target


@given(
    st.lists(st.tuples(st.sampled_from(["", "g", "h", "i"]), st.integers(0, 30)), max_size=40),
    st.integers(1, 12),
    st.integers(20, 400),
)
def test_a_cut_loses_nothing_and_keeps_groups_whole_and_requests_small(rows, max_items, max_bytes) -> None:
    items = [ScoreItem(str(n), "x" * length, group_id=group) for n, (group, length) in enumerate(rows)]
    requests = messages.cut(items, max_items=max_items, max_bytes=max_bytes)
    assert sorted(position for positions, _ in requests for position in positions) == list(range(len(items)))
    for positions, wire_items in requests:
        assert [message.id for message in wire_items] == [items[position].id for position in positions]
        groups = {items[position].group_id or position for position in positions}
        assert len(groups) == 1 or len(positions) <= max_items
        assert len(groups) == 1 or sum(message.ByteSize() for message in wire_items) <= max_bytes
    for group in {one.group_id for one in items} - {""}:
        assert sum(any(items[p].group_id == group for p in positions) for positions, _ in requests) == 1


def test_a_call_that_is_cut_brings_the_same_rewards_in_order(target) -> None:
    items = many_items(120)
    with Client(target) as client:
        whole = client.score(items, BY)
    with Client(target, max_items=16) as client:
        cut = client.score(items, BY)
    assert numbers(whole.rewards) == numbers(cut.rewards)
    lookup = cut.verifiers[0]
    assert (lookup.verifier, lookup.items, lookup.calls) == ("lookup", 120, 8)


async def test_the_async_client_gives_what_the_blocking_one_gives(target) -> None:
    items = many_items(40)
    async with AsyncClient(target) as client:
        batch = await client.score(items, BY)
        listed = await client.list_verifiers()
        known = await client.list_recipes()
    with Client(target) as client:
        assert numbers(batch.rewards) == numbers(client.score(items, BY).rewards)
        assert [one.name for one in listed] == [one.name for one in client.list_verifiers()]
        assert known == client.list_recipes()


def test_an_async_client_made_elsewhere_works_in_every_loop(target) -> None:
    client = AsyncClient(target)
    for _ in range(3):
        assert asyncio.run(client.score([item("a")], BY)).rewards[0].reward is not None


def _score_in_child(client: Client, queue) -> None:
    queue.put(client.score([item("a")], BY, deadline_s=10).rewards[0].reward)


def test_a_client_that_was_handed_over_a_fork_opens_its_own_connection(target) -> None:
    context = multiprocessing.get_context("fork")
    client = Client(target)
    queue = context.Queue()
    child = context.Process(target=_score_in_child, args=(client, queue))
    child.start()
    assert queue.get(timeout=20) == client.score([item("a")], BY).rewards[0].reward
    child.join(5)
    assert child.exitcode == 0


def test_nobody_at_the_address_says_how_to_start_an_aggregator() -> None:
    address = f"127.0.0.1:{servers.free_port()}"
    with Client(address) as client:
        for call in (
            lambda: client.score([item("a")], "all", deadline_s=0.3),
            client.list_verifiers,
            client.list_recipes,
        ):
            with pytest.raises(ClientError) as caught:
                call()
            assert str(caught.value) == f"no aggregator at {address}: connection refused. Start one: bioverify up"
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    with Client("unix:/nowhere/socket") as client, pytest.raises(ClientError, match="no such socket"):
        client.score([item("a")], "all", deadline_s=0.3)


def test_an_aggregator_that_never_answers_raises_at_the_deadline() -> None:
    with servers.black_hole() as hole, Client(hole) as client:
        started = time.monotonic()
        with pytest.raises(ClientError, match=r"did not answer within 0.5 s"):
            client.score([item("a")], "all", deadline_s=0.5)
        assert time.monotonic() - started < 1.0


def test_asking_a_verifier_for_rewards_says_what_is_wrong() -> None:
    with (
        servers.verifier("Text") as text,
        Client(text.target) as client,
        pytest.raises(ClientError, match="is it a verifier's address"),
    ):
        client.score([item("a")], "all")


@pytest.mark.parametrize("ids", [["a", "b", "a"], ["a", "", "b"]])
def test_ids_that_cannot_tell_items_apart_are_refused_before_anything_is_sent(ids) -> None:
    with Client("unix:/nowhere") as client, pytest.raises(ClientError, match=r"items\[\d\].id") as caught:
        client.score([ScoreItem(one, "x") for one in ids], "all")
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_no_items_are_no_call() -> None:
    with Client("unix:/nowhere") as client:
        assert client.score([], "all").rewards == []


def test_an_unknown_recipe_is_an_error_that_lists_the_known_ones(target) -> None:
    with Client(target) as client, pytest.raises(ClientError, match="there are: all") as caught:
        client.score([item("a")], "nonsense")
    assert caught.value.violations[0][0] == "recipe_name"


class Stub(reward_pb2_grpc.RewardServiceServicer):
    """An aggregator that refuses the first calls as it is told, and each that holds the item "bad"."""

    def __init__(self) -> None:
        self.calls = 0
        self.refusals: list[tuple[grpc.StatusCode, float | None]] = []
        self._lock = threading.Lock()

    def ScoreBatch(self, request, context):  # noqa: N802
        with self._lock:
            self.calls += 1
            refused = self.refusals.pop(0) if self.refusals else None
        if refused:
            refusal = Refusal(refused[0], "busy", retry_after_s=refused[1])
            context.set_trailing_metadata(refusal_metadata(refusal))
            context.abort(refusal.code, refusal.message)
        if any(one.id == "bad" for one in request.items):
            context.abort(grpc.StatusCode.INTERNAL, "lost")
        rewards = [reward_pb2.Reward(item_id=one.id, reward=1.0) for one in request.items]
        return reward_pb2.RewardServiceScoreBatchResponse(rewards=rewards)

    def ListVerifiers(self, request, context):  # noqa: N802
        raise NotImplementedError

    def ListRecipes(self, request, context):  # noqa: N802
        raise NotImplementedError


@pytest.fixture
def stub() -> Iterator[tuple[Stub, str]]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    servicer = Stub()
    reward_pb2_grpc.add_RewardServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None)


async def test_a_lost_part_of_a_call_leaves_its_items_unscorable_and_the_others_scored(stub) -> None:
    _, address = stub
    items = [ScoreItem(one, "x") for one in ("a", "b", "bad", "c", "d", "e")]
    with Client(address, max_items=2) as client:
        rewards = client.score(items, "all", request_id="one").rewards
    async with AsyncClient(address, max_items=2) as client:
        assert (await client.score(items, "all", request_id="one")).rewards == rewards
    assert [(r.id, r.reward) for r in rewards] == [
        ("a", 1.0),
        ("b", 1.0),
        ("bad", None),
        ("c", None),
        ("d", 1.0),
        ("e", 1.0),
    ]
    assert "the request was lost" in rewards[2].unscorable_because
    assert rewards[2].parts == ()


async def test_an_overloaded_aggregator_is_asked_again_when_it_says_so(stub) -> None:
    servicer, address = stub
    servicer.refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, 0.05)] * 2
    with Client(address) as client:
        assert client.score([ScoreItem("a", "x")], "all").rewards[0].reward == 1.0
    assert servicer.calls == 3
    servicer.refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, 0.05)] * 10_000
    async with AsyncClient(address) as client:
        with pytest.raises(ClientError, match="busy"):
            await client.score([ScoreItem("a", "x")], "all", deadline_s=0.3)


async def test_an_aggregator_that_is_away_for_a_moment_is_asked_again_and_no_other_refusal_is(stub) -> None:
    servicer, address = stub
    servicer.refusals = [(grpc.StatusCode.UNAVAILABLE, None)] * 2
    with Client(address) as client:
        assert client.score([ScoreItem("a", "x")], "all").rewards[0].reward == 1.0
    assert servicer.calls == 3
    servicer.refusals = [(grpc.StatusCode.UNAVAILABLE, None)] * 2
    async with AsyncClient(address) as client:
        assert (await client.score([ScoreItem("a", "x")], "all")).rewards[0].reward == 1.0
    for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED):
        servicer.calls, servicer.refusals = 0, [(code, None)]
        with Client(address) as client, pytest.raises(ClientError):
            client.score([ScoreItem("a", "x")], "all")
        assert servicer.calls == 1


def test_an_aggregator_that_says_when_to_come_back_is_asked_then_and_never_behind_the_deadline(stub) -> None:
    servicer, address = stub
    servicer.refusals = [(grpc.StatusCode.UNAVAILABLE, 0.4)] * 5
    with Client(address) as client:
        started = time.monotonic()
        assert client.score([ScoreItem("a", "x")], "all", deadline_s=10).rewards[0].reward == 1.0
        assert time.monotonic() - started > 5 * 0.4
        servicer.calls, servicer.refusals = 0, [(grpc.StatusCode.UNAVAILABLE, 5.0)]
        started = time.monotonic()
        with pytest.raises(ClientError):
            client.score([ScoreItem("a", "x")], "all", deadline_s=1)
        assert time.monotonic() - started < 1
    assert servicer.calls == 1


def test_an_aggregator_that_is_killed_in_a_call_costs_no_reward_where_another_takes_its_place() -> None:
    first_address, second_address = (f"127.0.0.1:{servers.free_port()}" for _ in range(2))
    with (
        servers.verifier("Text", parameters={"delay_s": 2.0}) as text,
        servers.aggregator({"text": text.target}, listen=first_address) as first,
        servers.aggregator({"text": text.target}, listen=second_address),
        contextlib.closing(FaultProxy(first_address)) as proxy,
        Client(proxy.target) as client,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(client.score, [item("a")], recipe(required("text")), deadline_s=60)
        wait_until(lambda: proxy.connections > 0, "the call is under way")
        proxy.upstream = second_address
        first.kill()
        assert asked.result().rewards[0].reward is not None
    assert proxy.connections > 1


def test_512_completions_of_8_kilobytes_pass_and_progress_is_told(target) -> None:
    items = [ScoreItem(str(n), "x" * 8192) for n in range(2560)]
    heard: list[tuple[int, int]] = []
    with Client(target) as client:
        batch = client.score(items, recipe(required("text")), progress=lambda done, of: heard.append((done, of)))
    assert all(reward.reward == 1.0 for reward in batch.rewards)
    assert heard == [(1024, 2560), (2048, 2560), (2560, 2560)]
