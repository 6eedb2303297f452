"""Connections whose other end vanished silently, and those that are merely quiet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import grpc
import pytest

from bioverify.client import AsyncClient, Client
from bioverify.transport.channels import CHANNEL_OPTIONS, KEEPALIVE_MS
from bioverify.v1 import types_pb2, verifier_pb2, verifier_pb2_grpc
from tests.fixtures import servers
from tests.fixtures.proxy import proxied
from tests.fixtures.rewards import item, outcome_of, recipe, required

BACK_WITHIN_S = 5.0


def until_true(ask: Callable[[], bool]) -> float:
    """Seconds until ``ask`` gives True."""
    started = time.monotonic()
    while not ask():
        assert time.monotonic() - started < 60, "waited in vain"
        time.sleep(0.1)
    return time.monotonic() - started


@pytest.mark.parametrize("half_open_s", [1.5, 4.0])
def test_a_verifier_is_back_within_seconds_after_its_path_was_half_open(half_open_s) -> None:
    by = recipe(required("lookup"))
    with (
        servers.verifier("Lookup", listen=f"127.0.0.1:{servers.free_port()}") as lookup,
        proxied(lookup.target) as proxy,
        servers.aggregator({"lookup": proxy.target}) as running,
        Client(running.target) as client,
    ):
        asked = iter(range(10_000))

        def is_scored() -> bool:
            n = next(asked)
            return client.score([item(f"{n}", f"A{n}")], by, deadline_s=1).rewards[0].reward is not None

        assert is_scored()
        proxy.set(is_half_open=True)
        ends = time.monotonic() + half_open_s
        while time.monotonic() < ends:
            assert not is_scored()
        proxy.heal()
        assert until_true(is_scored) < BACK_WITHIN_S


def answers(channel: grpc.Channel) -> bool:
    try:
        stub = verifier_pb2_grpc.VerifierServiceStub(channel)
        return bool(stub.Describe(verifier_pb2.DescribeRequest(), timeout=1).name)
    except grpc.RpcError:
        return False


def test_a_call_into_a_half_open_connection_is_ended_by_keepalive() -> None:
    # All as in production but for the time until the first ping, so that the test need not wait for ten seconds.
    options = [(name, 1000 if value == KEEPALIVE_MS else value) for name, value in CHANNEL_OPTIONS]
    with (
        servers.verifier("Lookup", listen=f"127.0.0.1:{servers.free_port()}") as lookup,
        proxied(lookup.target) as proxy,
        grpc.insecure_channel(proxy.target, options=options) as channel,
    ):
        assert answers(channel)
        proxy.set(is_half_open=True)
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            verifier_pb2_grpc.VerifierServiceStub(channel).Describe(verifier_pb2.DescribeRequest(), timeout=50)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - started < 10


def test_an_attempt_to_connect_that_meets_silence_is_given_up_before_the_keepalive() -> None:
    with (
        servers.verifier("Lookup", listen=f"127.0.0.1:{servers.free_port()}") as lookup,
        proxied(lookup.target) as proxy,
        grpc.insecure_channel(proxy.target, options=CHANNEL_OPTIONS) as channel,
    ):
        proxy.set(is_half_open=True)
        assert not answers(channel)
        proxy.heal()
        # The attempt, the longest pause before the next one, and a call.
        assert until_true(lambda: answers(channel)) < 3 + 2.4 + 1


class SlowToSayWhoItIs(verifier_pb2_grpc.VerifierServiceServicer):
    """Once ``is_slow``, Describe takes longer than anyone waits, and a score 5 s."""

    is_slow = False

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()

    async def Describe(self, request, context):  # noqa: N802
        if self.is_slow:
            await asyncio.sleep(30)
        return verifier_pb2.DescribeResponse(
            name="slow", fingerprint="f", reads=[verifier_pb2.READ_FIELD_COMPLETION], deterministic=True
        )

    async def ScoreBatch(self, request, context):  # noqa: N802
        if self.is_slow:
            self.is_asked.set()
            await asyncio.sleep(5)
        outcomes = [types_pb2.Outcome(item_id=i.id, scored=types_pb2.Scored(value=0.5)) for i in request.items]
        return verifier_pb2.VerifierServiceScoreBatchResponse(outcomes=outcomes, fingerprint="f")


async def test_calls_over_a_connection_that_was_given_up_are_still_answered() -> None:
    verifier, by = SlowToSayWhoItIs(), recipe(required("slow"))
    server = grpc.aio.server()
    verifier_pb2_grpc.add_VerifierServiceServicer_to_server(verifier, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with servers.aggregator({"slow": f"127.0.0.1:{port}"}) as running:
            async with AsyncClient(running.target) as client:
                assert (await client.score([item("a")], by)).rewards[0].reward == 0.5
                verifier.is_slow = True
                under_way = asyncio.ensure_future(client.score([item("b")], by))
                await verifier.is_asked.wait()
                # Asks who it is, and hears nothing.
                assert not (await client.list_verifiers())[0].is_ready
                # The first of them may be the trial call of a breaker that had waited by then.
                refusals = [await client.score([item(which)], by, deadline_s=1) for which in "cd"]
                assert "breaker_open" in [outcome_of(reply.rewards[0], "slow").reason for reply in refusals]
                assert not under_way.done()
                assert (await under_way).rewards[0].reward == 0.5
    finally:
        await server.stop(None)


@pytest.mark.fault
def test_an_idle_connection_is_kept_by_pings_that_no_server_takes_for_an_attack() -> None:
    with (
        servers.verifier("Lookup", listen=f"127.0.0.1:{servers.free_port()}") as lookup,
        proxied(lookup.target) as to_lookup,
        servers.aggregator({"lookup": to_lookup.target}, listen=f"127.0.0.1:{servers.free_port()}") as running,
        proxied(running.target) as to_aggregator,
        Client(to_aggregator.target) as client,
    ):
        assert client.score([item("a")], recipe(required("lookup"))).rewards[0].reward is not None
        before = to_aggregator.connections, to_lookup.connections
        # gRPC's servers hang up at the third ping that comes too soon.
        time.sleep(4.5 * KEEPALIVE_MS / 1000)
        assert client.score([item("b", "B")], recipe(required("lookup"))).rewards[0].reward is not None
        assert (to_aggregator.connections, to_lookup.connections) == before
