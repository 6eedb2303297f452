"""Thousands of callers who each ask for one item at the same moment: all are answered."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from bioverify.client import AsyncClient, ClientError
from tests.fixtures import servers
from tests.fixtures.rewards import item, recipe, required


async def ends_of_one_item_calls(target: str, callers: int) -> Counter[str]:
    """How the calls ended: scored, unscorable, or the status of a call that was lost."""
    async with AsyncClient(target) as client:

        async def one(number: int) -> str:
            try:
                batch = await client.score(
                    [item("a", f"G{number}", "H")], recipe(required("lookup")), deadline_s=240, with_evidence=False
                )
            except ClientError as error:
                return error.code.name
            return "unscorable" if batch.rewards[0].reward is None else "scored"

        return Counter(await asyncio.gather(*map(one, range(callers))))


# Above gRPC's own backlog of 1,000 calls; at its hard limit of 3,000; above it, for longer than its 30 s.
@pytest.mark.parametrize("callers", [1_500, *(pytest.param(n, marks=pytest.mark.fault) for n in (3_000, 10_000))])
def test_no_call_of_a_burst_is_lost(callers: int) -> None:
    with servers.verifier("Lookup") as lookup, servers.aggregator({"lookup": lookup.target}) as running:
        ends = asyncio.run(ends_of_one_item_calls(running.target, callers))
    assert ends == {"scored": callers}
