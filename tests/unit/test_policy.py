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

        together = Together(call, at_once=1)

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

        together = Together(call, at_once=1)
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


async def test_a_turn_that_comes_in_the_moment_in_which_its_caller_gives_up_is_passed_on() -> None:
    limit = ItemLimit(8, 100)
    await limit.enter(8, soon())
    gives_up = asyncio.ensure_future(limit.enter(5, soon()))
    next_one = asyncio.ensure_future(limit.enter(8, soon()))
    await asyncio.sleep(0)
    limit.leave(8)
    # It has its turn and does not know it yet.
    assert (limit.in_flight, limit.waiting) == (5, 8)
    gives_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gives_up
    assert await asyncio.wait_for(next_one, 5) >= 0.0
    assert (limit.in_flight, limit.waiting) == (8, 0)
    limit.leave(8)
    assert limit.in_flight == 0


async def test_one_who_leaves_the_head_of_the_queue_lets_those_behind_him_in() -> None:
    limit = ItemLimit(8, 100)
    await limit.enter(4, soon())
    large = asyncio.ensure_future(limit.enter(8, soon()))
    small = asyncio.ensure_future(limit.enter(4, soon()))
    await asyncio.sleep(0)
    assert (limit.in_flight, limit.waiting) == (4, 12)
    large.cancel()
    await asyncio.wait_for(small, 5)
    assert (limit.in_flight, limit.waiting) == (8, 0)


async def test_places_in_the_queue_are_counted_to_the_last_one() -> None:
    limit = ItemLimit(4, 6)
    assert await limit.enter(3, soon()) == 0.0
    assert await limit.enter(1, soon()) == 0.0
    assert limit.has_room(7)
    waiting = [asyncio.ensure_future(limit.enter(items, soon())) for items in (4, 2)]
    await asyncio.sleep(0)
    assert limit.waiting == 6
    assert not limit.has_room(1)
    with pytest.raises(QueueFullError, match="6 items wait already, and 1 more would exceed the limit"):
        await limit.enter(1, soon())
    limit.leave(4)
    await waiting[0]
    assert (limit.in_flight, limit.waiting) == (4, 2)
    assert limit.has_room(4)
    assert not limit.has_room(5)
    limit.leave(4)
    await waiting[1]


def test_a_limit_moves_as_it_is_told_and_stays_between_one_and_what_is_stated() -> None:
    limit = ItemLimit(64, 10)
    limit.state_highest(32)
    assert limit.limit == 32.0
    limit.shrink()
    limit.state_highest(32)
    assert limit.limit == 16.0
    # A limit's worth of items widens it by a sixteenth of the statement, fewer by their share.
    limit.grow(16)
    assert limit.limit == 18.0
    limit.grow(9)
    assert limit.limit == 19.0
    limit.grow(1000)
    assert limit.limit == 21.0
    for _ in range(9):
        limit.shrink()
    assert limit.limit == 1.0
    for _ in range(300):
        limit.grow(8)
    assert limit.limit == 32.0


@pytest.mark.parametrize(("own_s", "theirs_s", "joins"), [(10, 10, True), (10, 5.1, True), (10, 4.9, False)])
async def test_a_call_is_joined_if_it_lasts_at_least_half_of_ones_own_time(own_s, theirs_s, joins) -> None:
    calls: SingleFlight[str] = SingleFlight()
    now = time.monotonic()
    call = calls.start([b"k", b"l"], now + theirs_s, Request(0.05, "done")())
    assert (calls.find(b"k", now + own_s) is call) == joins
    assert (calls.find(b"l", now + own_s) is call) == joins
    assert calls.find(b"m", now + own_s) is None
    await call.task


async def test_a_newer_call_of_the_same_name_is_not_taken_off_the_list_by_an_older_one() -> None:
    calls: SingleFlight[str] = SingleFlight()
    older = calls.start([b"k"], soon(), Request(0.01, "older")())
    newer = calls.start([b"k"], soon(), Request(0.2, "newer")())
    assert await calls.wait_for([older], soon()) == [older]
    await asyncio.sleep(0)
    assert calls.find(b"k", soon()) is newer
    assert [one.task.result() for one in await calls.wait_for([newer, older], soon())] == ["newer", "older"]
    assert (older.waiters, newer.waiters) == (0, 0)


async def test_a_pause_doubles_to_thirty_two_times_the_first_and_ends_with_a_success(monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pauses = Pauses(1.0)
    for expected in (1, 2, 4, 8, 16, 32, 32):
        assert pauses.enter()
        pauses.failed()
        pauses.leave()
        assert not pauses.enter()
        now += expected - 0.001
        assert not pauses.enter()
        now += 0.001
    assert pauses.enter()
    pauses.succeeded()
    pauses.leave()
    pauses.failed()
    now += 1.0
    assert pauses.enter()


def test_a_breaker_waits_between_half_and_all_of_a_pause_that_doubles() -> None:
    breaker = Breaker(lambda: None)
    for longest in (0.25, 0.5, 1.0, 2.0, 2.0):
        assert longest / 2 <= breaker.next_pause_s() <= longest
    drawn = []
    for _ in range(200):
        breaker.succeeded()
        drawn.append(breaker.next_pause_s())
    assert min(drawn) < 0.15 < 0.22 < max(drawn)


def test_a_budget_is_full_at_first_earns_its_share_and_never_holds_more_than_its_burst() -> None:
    budget = Budget(0.25, 2.0)
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    earned = []
    for _ in range(8):
        budget.earn()
        earned.append(budget.spend())
    assert earned == [False, False, False, True] * 2


def test_of_all_calls_the_last_hundred_and_twenty_eight_say_what_is_slow() -> None:
    latency = Latency()
    for seconds in range(ENOUGH):
        latency.add(seconds)
    assert latency.p95_s() == 19
    for _ in range(128):
        latency.add(1.0)
    assert latency.p95_s() == 1.0


async def test_as_many_calls_are_under_way_as_may_be_and_the_next_ones_wait_for_an_end() -> None:
    under_way = 0
    most = 0
    calls: list[tuple[set[bytes], float]] = []
    gate = asyncio.Event()

    async def call(entries: dict[bytes, None], deadline: float) -> int:
        nonlocal under_way, most
        calls.append((set(entries), deadline))
        under_way += 1
        most = max(most, under_way)
        await gate.wait()
        under_way -= 1
        return len(entries)

    together = Together(call, at_once=2)
    assert together.is_idle
    joined = []
    for number in range(4):
        joined.append(asyncio.ensure_future(together.join({str(number).encode(): None}, soon() + number, 10)))
        await asyncio.sleep(0.001)
    assert not together.is_idle
    assert ([keys for keys, _ in calls], list(together.waiting)) == ([{b"0"}, {b"1"}], [b"2", b"3"])
    gate.set()
    assert await asyncio.gather(*joined) == [1, 1, 2, 2]
    assert (most, list(together.waiting), together.is_idle) == (2, [], True)
    # A shared call lasts as long as the latest of those who share it.
    keys, deadline = calls[2]
    assert keys == {b"2", b"3"}
    assert deadline - soon() == pytest.approx(3, abs=0.5)


async def test_a_call_ends_with_the_last_of_its_callers_and_one_that_has_not_begun_is_not_made() -> None:
    request = Request(5, "never")

    async def call(entries: dict[bytes, None], deadline: float) -> object:
        return await request()

    together = Together(call, at_once=1)
    first = [asyncio.ensure_future(together.join({key: None}, soon(), 10)) for key in (b"a", b"b")]
    await asyncio.sleep(0.001)
    second = asyncio.ensure_future(together.join({b"c": None}, soon(), 10))
    await asyncio.sleep(0.001)
    second.cancel()
    await asyncio.sleep(0.001)
    assert not together.waiting
    first[0].cancel()
    await asyncio.sleep(0.001)
    assert not request.was_cancelled
    first[1].cancel()
    await asyncio.gather(*first, return_exceptions=True)
    await asyncio.sleep(0.001)
    assert request.was_cancelled
    assert together.is_idle


async def test_a_callers_patience_ends_before_the_call_and_its_deadline_with_it_and_a_close_ends_all() -> None:
    async def call(entries: dict[bytes, None], deadline: float) -> str:
        await asyncio.sleep(deadline - time.monotonic())
        return "at the deadline"

    together = Together(call, at_once=1)
    started = time.monotonic()
    assert await together.join({b"a": None}, started + 2, 0.05) is None
    assert time.monotonic() - started < 1
    assert await together.join({b"b": None}, started + 0.1, 10) is None
    assert await Together(call, at_once=1).join({b"c": None}, time.monotonic() + 0.05, 10) == "at the deadline"
    closed = Together(call, at_once=1)
    waiting = asyncio.ensure_future(closed.join({b"d": None}, soon(), 10))
    await asyncio.sleep(0.001)
    closed.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
