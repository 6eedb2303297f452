"""The laws of the aggregator's policies: what they may cost, whom they stop, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioverify.aggregator.policy.breaker import FAILURES_IN_A_ROW, LONGEST_PAUSE_S, Breaker, State
from bioverify.aggregator.policy.budget import Budget, pause_s
from bioverify.aggregator.policy.hedging import hedged
from bioverify.aggregator.policy.latency import ENOUGH, Latency
from bioverify.aggregator.policy.limits import ItemLimit, QueueFullError, TurnedAwayError
from bioverify.aggregator.policy.pauses import Pauses
from bioverify.aggregator.policy.single_flight import SingleFlight
from bioverify.aggregator.policy.together import Together


def soon() -> float:
    return time.monotonic() + 5


@given(st.lists(st.booleans(), max_size=300), st.sampled_from([(0.05, 1.0), (0.2, 10.0)]))
def test_extra_calls_never_exceed_their_share_of_the_ordinary_ones(wishes, share_and_burst) -> None:
    share, burst = share_and_burst
    budget = Budget(share, burst)
    spent = 0
    for calls, wish in enumerate(wishes, start=1):
        budget.earn()
        spent += wish and budget.spend()
        assert spent <= burst + share * calls + 1e-9


def test_pauses_between_attempts_double_and_are_drawn_from_nought() -> None:
    for attempt, longest in ((1, 0.1), (2, 0.2)):
        drawn = [pause_s(attempt) for _ in range(300)]
        assert 0 <= min(drawn) < 0.2 * longest
        assert 0.8 * longest < max(drawn) <= longest


def test_a_breaker_opens_after_failures_in_a_row_and_closes_only_by_a_real_success() -> None:
    opened = []
    breaker = Breaker(lambda: opened.append(True))
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed()
    breaker.succeeded()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed()
    assert breaker.state is State.CLOSED
    breaker.failed()
    assert (breaker.state, opened) == (State.OPEN, [True])
    breaker.half_open()
    assert breaker.state is State.HALF_OPEN
    breaker.failed()
    assert (breaker.state, opened) == (State.OPEN, [True, True])
    breaker.half_open()
    breaker.succeeded()
    assert breaker.state is State.CLOSED


def test_a_probe_that_succeeds_does_not_touch_a_closed_breaker_and_pauses_grow_to_their_bound() -> None:
    breaker = Breaker(lambda: None)
    breaker.half_open()
    assert breaker.state is State.CLOSED
    pauses = [breaker.next_pause_s() for _ in range(10)]
    assert pauses[0] <= 0.25
    assert all(LONGEST_PAUSE_S / 2 <= pause <= LONGEST_PAUSE_S for pause in pauses[3:])
    breaker.succeeded()
    assert breaker.next_pause_s() <= 0.25


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 64), st.randoms())
def test_no_more_is_in_flight_than_the_limit_and_everyone_gets_a_turn(sizes, limit, draw) -> None:
    async def run() -> None:
        item_limit = ItemLimit(limit, 10_000)
        order = []

        async def call(number: int, items: int) -> None:
            await item_limit.enter(items, soon())
            order.append(number)
            assert item_limit.in_flight <= max(limit, items)
            for _ in range(draw.randint(0, 3)):
                await asyncio.sleep(0)
            item_limit.leave(items)

        await asyncio.gather(*(call(number, items) for number, items in enumerate(sizes)))
        assert order == sorted(order)
        assert (item_limit.in_flight, item_limit.waiting) == (0, 0)

    asyncio.run(run())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from(["ends", "cancelled", "late"])), max_size=12))
def test_callers_who_give_up_waiting_leave_nothing_behind(callers) -> None:
    async def run() -> None:
        limit = ItemLimit(8, 10_000)
        await limit.enter(8, soon())

        async def call(items: int, deadline: float) -> None:
            await limit.enter(items, deadline)
            limit.leave(items)

        tasks = [
            asyncio.ensure_future(call(items, time.monotonic() if fate == "late" else soon()))
            for items, fate in callers
        ]
        await asyncio.sleep(0.002)
        for task, (_, fate) in zip(tasks, callers, strict=True):
            if fate == "cancelled":
                task.cancel()
        limit.leave(8)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        expected = {"ends": type(None), "late": TimeoutError, "cancelled": asyncio.CancelledError}
        assert [type(end) for end in ends] == [expected[fate] for _, fate in callers]
        assert (limit.in_flight, limit.waiting) == (0, 0)

    asyncio.run(run())


async def test_a_full_queue_and_an_open_breaker_turn_callers_away_at_once() -> None:
    limit = ItemLimit(4, 6)
    await limit.enter(4, soon())
    waiting = asyncio.ensure_future(limit.enter(6, soon()))
    await asyncio.sleep(0)
    assert not limit.has_room(1)
    with pytest.raises(QueueFullError):
        await limit.enter(1, soon())
    limit.restart()
    with pytest.raises(TurnedAwayError):
        await waiting
    assert (limit.in_flight, limit.waiting) == (4, 0)


async def test_after_a_restart_one_call_goes_at_a_time_and_success_widens_the_limit() -> None:
    limit = ItemLimit(64, 1000)
    limit.restart()
    await limit.enter(16, soon())
    second = asyncio.ensure_future(limit.enter(16, soon()))
    await asyncio.sleep(0)
    assert limit.waiting == 16
    for _ in range(100):
        limit.grow(16)
    assert limit.limit == 64
    limit.leave(16)
    await second
    limit.shrink()
    assert limit.limit == 32


def test_the_p95_is_known_when_there_is_enough_to_know_it_from() -> None:
    latency = Latency()
    for n in range(ENOUGH - 1):
        latency.add(n)
    assert latency.p95_s() is None
    for n in range(ENOUGH - 1, 100):
        latency.add(n)
    assert latency.p95_s() == 95


class Request:
    """One that takes a while, then answers or fails, and remembers that it was cancelled."""

    def __init__(self, seconds: float, answer: object) -> None:
        self.seconds, self.answer, self.was_cancelled = seconds, answer, False

    async def __call__(self) -> object:
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_fast_first_request_is_not_hedged() -> None:
    assert await hedged(Request(0, "one"), pytest.fail, after_s=0.2) == ("one", False)


async def test_a_slow_first_request_loses_to_the_second_and_is_cancelled() -> None:
    first, second = Request(5, "one"), Request(0, "two")
    assert await hedged(first, second, after_s=0.01) == ("two", True)
    assert first.was_cancelled


async def test_a_second_request_that_fails_does_not_spoil_the_first_and_one_that_is_not_allowed_is_not_made() -> None:
    assert await hedged(Request(0.05, "one"), Request(0, ValueError()), after_s=0.01) == ("one", False)
    assert await hedged(Request(0.05, "one"), lambda: None, after_s=0.01) == ("one", False)
    with pytest.raises(KeyError):
        await hedged(Request(0.02, KeyError()), Request(0.01, ValueError()), after_s=0.01)


async def test_cancelling_a_hedged_request_cancels_both() -> None:
    first, second = Request(5, "one"), Request(5, "two")
    task = asyncio.ensure_future(hedged(first, second, after_s=0.01))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (first.was_cancelled, second.was_cancelled) == (True, True)


async def test_a_caller_who_leaves_does_not_end_the_shared_call_and_the_last_one_does() -> None:
    calls: SingleFlight[str] = SingleFlight()
    work = Request(0.05, "done")
    deadline = soon()
    call = calls.start([b"k"], deadline, work())
    leader = asyncio.ensure_future(calls.wait_for([call], deadline))
    await asyncio.sleep(0)
    assert calls.find(b"k", deadline) is call
    follower = asyncio.ensure_future(calls.wait_for([call], deadline))
    await asyncio.sleep(0)
    leader.cancel()
    [done] = await follower
    assert done.task.result() == "done"
    assert calls.find(b"k", deadline) is None

    abandoned = Request(5, "never")
    call = calls.start([b"k"], deadline, abandoned())
    callers = [asyncio.ensure_future(calls.wait_for([call], deadline)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert calls.find(b"k", deadline) is None
    await asyncio.sleep(0)
    assert abandoned.was_cancelled


async def test_a_caller_in_a_hurry_leaves_and_nobody_joins_a_call_that_ends_too_early() -> None:
    calls: SingleFlight[str] = SingleFlight()
    call = calls.start([b"k"], time.monotonic() + 1, Request(0.1, "done")())
    assert calls.find(b"k", time.monotonic() + 10) is None
    assert calls.find(b"k", time.monotonic() + 1.5) is call
    waiting = asyncio.ensure_future(calls.wait_for([call], call.deadline))
    assert await calls.wait_for([call], time.monotonic() + 0.01) == []
    assert await waiting == [call]


def test_a_helper_that_failed_is_tried_by_one_caller_after_a_pause_that_grows() -> None:
    pauses = Pauses(0.02)
    assert pauses.enter()
    pauses.failed()
    pauses.failed()  # a caller of the same moment
    pauses.leave()
    assert not pauses.enter()
    time.sleep(0.025)
    assert pauses.enter()
    assert not pauses.enter()
    pauses.failed()
    pauses.leave()
    time.sleep(0.025)
    assert not pauses.enter()
    time.sleep(0.02)
    assert pauses.enter()
    pauses.succeeded()
    pauses.leave()
    assert pauses.enter()
    assert pauses.enter()


def test_who_comes_in_one_turn_or_while_a_call_is_under_way_shares_the_next_one() -> None:
    calls: list[set[bytes]] = []

    async def run() -> None:
        async def call(entries: dict[bytes, int], deadline: float) -> dict[bytes, int]:
            calls.append(set(entries))
            await asyncio.sleep(0.01)
            return {key: 2 * value for key, value in entries.items()}

        together = Together(call)

        async def caller(number: int, late: bool) -> None:
            if late:
                await asyncio.sleep(0.005)
            key = str(number).encode()
            found = await together.join({key: number}, soon(), 5)
            assert found is not None
            assert found[key] == 2 * number

        await asyncio.gather(*(caller(number, number >= 3) for number in range(6)))

    asyncio.run(run())
    assert calls == [{b"0", b"1", b"2"}, {b"3", b"4", b"5"}]


def test_who_leaves_a_shared_call_takes_nobody_along_and_an_error_reaches_all_who_wait() -> None:
    async def run() -> None:
        async def call(entries: dict[bytes, None], deadline: float) -> int:
            await asyncio.sleep(0.02)
            if b"bad" in entries:
                raise ValueError("bad")
            return len(entries)

        together = Together(call)
        hasty = asyncio.ensure_future(together.join({b"a": None}, soon(), 0.001))
        gone = asyncio.ensure_future(together.join({b"b": None}, soon(), 5))
        patient = asyncio.ensure_future(together.join({b"c": None}, soon(), 5))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await hasty, await patient) == (None, 3)
        failed = await asyncio.gather(
            *(together.join({key: None}, soon(), 5) for key in (b"bad", b"d")), return_exceptions=True
        )
        assert [type(error) for error in failed] == [ValueError, ValueError]
        assert await together.join({b"e": None}, soon(), 5) == 1

    asyncio.run(run())
