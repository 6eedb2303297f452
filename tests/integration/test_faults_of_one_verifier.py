"""A fault on one verifier's path fails its items at this verifier, and no others; no call is left without an end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from bioverify.aggregator import replica
from bioverify.aggregator.cache import OutcomeCache
from bioverify.aggregator.fanout import VerifierReply, ask_verifier
from bioverify.aggregator.questions import Questions
from bioverify.aggregator.upstream import Upstream
from bioverify.client import Client
from bioverify.core.answers import ParseMode
from bioverify.core.outcomes import Failed, Scored
from bioverify.core.verifier import Item
from tests.fixtures import servers
from tests.fixtures.rewards import item, optional, outcome_of, recipe, required
from tests.fixtures.waiting import wait_until
from tests.integration.test_aggregator_policies import Scripted, served


@contextlib.asynccontextmanager
async def upstream_of(verifier: Scripted) -> AsyncIterator[Upstream]:
    with served(verifier, 1) as target:
        upstream = Upstream("scripted", target, describe_ttl_s=1.0, max_waiting=1000)
        try:
            yield upstream
        finally:
            await upstream.close()


def ask(upstream: Upstream, cache: OutcomeCache | None = None) -> asyncio.Task[VerifierReply]:
    questions = Questions([Item(None, None, "text")], ParseMode.WHOLE_WORDS)
    deadline = time.monotonic() + 10
    return asyncio.ensure_future(ask_verifier(upstream, cache, questions, [0], deadline, with_evidence=False))


async def until_called(verifier: Scripted) -> None:
    await asyncio.to_thread(wait_until, lambda: bool(verifier.calls))


@pytest.mark.parametrize(("idempotent", "kind"), [(True, Scored), (False, Failed)])
async def test_a_call_under_way_over_a_connection_that_is_given_up_is_asked_again_or_fails_at_once(
    monkeypatch: pytest.MonkeyPatch, idempotent: bool, kind: type
) -> None:
    monkeypatch.setattr(replica, "LAST_CALLS_S", 0.05)
    verifier = Scripted(idempotent=idempotent)
    verifier.script = [8.0]
    async with upstream_of(verifier) as upstream:
        asking = ask(upstream)
        await until_called(verifier)
        started = time.monotonic()
        upstream._replicas[0]._connect_anew()
        [outcome] = (await asking).outcomes
    assert isinstance(outcome.outcome, kind)
    assert time.monotonic() - started < 5


async def test_a_call_that_its_caller_cancels_is_cancelled_and_no_fault() -> None:
    verifier = Scripted()
    verifier.script = [8.0]
    async with upstream_of(verifier) as upstream:
        asking = ask(upstream)
        await until_called(verifier)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(verifier.cancelled.wait, 5)


async def test_an_exception_of_our_own_code_is_an_internal_failure_of_this_verifier() -> None:
    class BrokenCache:
        async def get(self, *_: object, **__: object) -> None:
            raise TypeError("a fault of ours")

    async with upstream_of(Scripted()) as upstream:
        [outcome] = (await ask(upstream, BrokenCache())).outcomes
    found = outcome.outcome
    assert isinstance(found, Failed)
    assert (found.reason, "TypeError" in found.detail) == ("internal", True)


class Newer(Scripted):
    """It reads a field that this version of the contract does not know."""

    def Describe(self, request, context):  # noqa: N802
        described = super().Describe(request, context)
        described.name = "newer"
        described.reads.append(99)
        return described


def test_a_newer_verifier_is_misconfigured_and_nobody_else_is() -> None:
    with (
        served(Newer(), 1) as newer,
        served(Scripted(), 1) as scripted,
        servers.aggregator({"newer": newer, "scripted": scripted}) as running,
        Client(running.target) as client,
    ):
        batch = client.score([item("a")], recipe(required("scripted"), optional("newer")))
        assert batch.rewards[0].reward == 0.5
        outcome = outcome_of(batch.rewards[0], "newer")
        assert isinstance(outcome, Failed)
        assert (outcome.reason, "newer bioverify" in outcome.detail) == ("misconfigured", True)
        assert {one.name: one.is_ready for one in client.list_verifiers()} == {"scripted": True, "newer": False}
