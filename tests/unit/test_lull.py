"""When a lull comes, in the figures of docs/reliability.md: ten turns of the loop, 2 ms, 0.1 s at the longest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bioverify.aggregator.policy.lull import Lull

TURNS, MOMENT_S, LONGEST_S = 10, 0.002, 0.1
TOO_LONG_S = 5 * LONGEST_S


def seconds_of(called: asyncio.Event, since: float) -> asyncio.Task[float]:
    async def wait() -> float:
        await asyncio.wait_for(called.wait(), TOO_LONG_S)
        return time.monotonic() - since

    return asyncio.ensure_future(wait())


async def test_who_waits_alone_waits_for_ten_turns() -> None:
    lull = Lull()
    assert lull.brought_others is False
    for _ in range(2):
        called = asyncio.Event()
        # He has come himself, and is not waited for.
        lull.somebody_came()
        lull.call(called.set)
        for _ in range(TURNS):
            assert not called.is_set()
            await asyncio.sleep(0)
        assert called.is_set()
        assert lull.brought_others is False


async def test_whoever_joins_begins_the_turns_anew_and_the_wait_is_for_a_moment_too() -> None:
    lull = Lull()
    first, second = asyncio.Event(), asyncio.Event()
    lull.somebody_came()
    lull.call(first.set)
    for number in range(3):
        for _ in range(TURNS - 1):
            await asyncio.sleep(0)
        assert not first.is_set()
        lull.somebody_came()
        if number == 1:
            lull.call(second.set)
        last = time.monotonic()
    assert await seconds_of(first, last) >= 0.99 * MOMENT_S
    assert second.is_set()
    assert lull.brought_others is True


async def test_one_who_joins_is_enough_for_a_moment_in_which_the_loop_rests() -> None:
    lull = Lull()
    turns = 0

    def counted(turn: Callable[[], None] = lull._turn) -> None:
        nonlocal turns
        turns += 1
        turn()

    lull._turn = counted
    called = asyncio.Event()
    started = time.monotonic()
    lull.call(called.set)
    lull.somebody_came()
    assert MOMENT_S <= await seconds_of(called, started) < LONGEST_S
    assert lull.brought_others is True
    assert turns <= TURNS + 2
    # The next one finds nobody.
    called.clear()
    lull.call(called.set)
    await seconds_of(called, started)
    assert lull.brought_others is False


async def test_if_somebody_always_comes_the_wait_ends_all_the_same_for_all_who_wait() -> None:
    lull = Lull()
    order: list[int] = []
    started = time.monotonic()
    lull.call(lambda: order.append(1))
    lull.call(lambda: order.append(2))
    while not order and time.monotonic() < started + TOO_LONG_S:
        lull.somebody_came()
        await asyncio.sleep(0)
    assert order == [1, 2]
    assert LONGEST_S <= time.monotonic() - started < TOO_LONG_S
