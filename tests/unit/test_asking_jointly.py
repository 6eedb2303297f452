"""Callers of few items each who ask a verifier as one: what they share, and what stays each one's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from structlog.contextvars import bound_contextvars

from bioverify.aggregator.cache import OutcomeCache
from bioverify.aggregator.fanout import VerifierReply
from bioverify.aggregator.jointly import Jointly
from bioverify.aggregator.questions import Questions
from bioverify.aggregator.upstream import Upstream
from bioverify.core.answers import ParseMode
from bioverify.core.outcomes import Failed
from bioverify.core.verifier import Item
from bioverify.transport.headers import MOST_TOGETHER, is_fit
from bioverify.v1 import verifier_pb2
from tests.fixtures.waiting import wait_until
from tests.unit.test_asking import Told, ask, asked, cache, counted, reasons, redis_url, stored, until_called, values

__all__ = ["cache", "redis_url", "stored"]


def join(
    jointly: Jointly,
    upstream: Upstream,
    texts: list[str],
    *,
    mode: ParseMode = ParseMode.WHOLE_WORDS,
    with_evidence: bool = False,
    seconds: float = 20.0,
) -> asyncio.Task[VerifierReply]:
    jointly.somebody_came()
    questions = Questions([Item(None, None, "of another verifier"), *(Item(None, None, text) for text in texts)], mode)
    deadline = time.monotonic() + seconds
    positions = list(range(1, 1 + len(texts)))
    return asyncio.ensure_future(jointly.ask(upstream, questions, positions, deadline, with_evidence=with_evidence))


def sizes(told: Told) -> list[int]:
    return [len(call.items) for call in told.calls]


async def test_callers_who_come_together_are_asked_for_in_one_call_and_each_is_told_of_his_own() -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        jointly = Jointly(None)
        before = counted("aggregator_shared_total")
        replies = await asyncio.gather(
            *(join(jointly, upstream, texts) for texts in (["a", "b"], ["c"], ["b", "d", "d"]))
        )
    assert sizes(told) == [1, 4]
    assert [one.completion for one in told.calls[1].items] == ["a", "b", "c", "d"]
    assert [values(reply) for reply in replies] == [[0.02] * 2, [0.02], [0.02] * 3]
    assert [(reply.distinct, reply.cache_hits, reply.shared) for reply in replies] == [(2, 0, 0), (1, 0, 0), (2, 0, 1)]
    assert counted("aggregator_shared_total") - before == 1
    for reply in replies:
        assert (reply.fingerprint, reply.usage.calls, reply.usage.queue_s, reply.usage.work_s) == ("1", 1, 0.25, 0.5)
        assert reply.usage.wall_s > 0


async def test_what_is_remembered_is_counted_for_who_asked_it_and_only_the_rest_is_asked(
    cache: OutcomeCache, stored: object
) -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["known"], cache=cache)
        jointly = Jointly(cache)
        both, none = await asyncio.gather(join(jointly, upstream, ["known", "new"]), join(jointly, upstream, ["known"]))
    assert sizes(told) == [1, 1]
    assert [(reply.distinct, reply.cache_hits, reply.shared) for reply in (both, none)] == [(2, 1, 0), (1, 1, 0)]
    assert [reply.usage.calls for reply in (both, none)] == [1, 0]
    assert [values(reply) for reply in (both, none)] == [[0.01, 0.02], [0.01]]
    async with asked(told) as upstream:
        alone = await join(Jointly(cache), upstream, ["new"])
    assert (alone.cache_hits, values(alone), alone.usage.calls) == (1, [0.02], 0)


async def test_what_another_request_asks_just_now_is_shared_with_it_and_told_to_who_asked_it() -> None:
    told = Told()
    async with asked(told) as upstream:
        await upstream.account(time.monotonic() + 5)
        told.gate.clear()
        first = ask(upstream, ["a"])
        await until_called(told)
        jointly = Jointly(None)
        callers = [join(jointly, upstream, [text]) for text in "ab"]
        await until_called(told, 2)
        told.gate.set()
        replies = await asyncio.gather(*callers, first)
    assert sizes(told) == [1, 1]
    assert [(values(reply), reply.shared, reply.usage.calls) for reply in replies] == [
        ([0.01], 1, 0),
        ([0.02], 0, 1),
        ([0.01], 0, 1),
    ]


@pytest.mark.parametrize(
    "other",
    [{"mode": ParseMode.RBIO_DEMO}, {"with_evidence": True}, {"seconds": 200.0}, {"seconds": 9.0}],
    ids=str,
)
async def test_who_asks_in_another_way_asks_in_a_call_of_his_own(other: dict[str, Any]) -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        jointly = Jointly(None)
        await asyncio.gather(
            join(jointly, upstream, ["a"]),
            join(jointly, upstream, ["b"], **other),
        )
    assert sizes(told) == [1, 1, 1]
    modes = {one.completion: call.parse_mode for call in told.calls for one in call.items}
    assert (modes["a"] == modes["b"]) == ("mode" not in other)
    omits = {one.completion: call.omit_evidence for call in told.calls for one in call.items}
    assert (omits["a"], omits["b"]) == (True, "with_evidence" not in other)


async def test_callers_who_share_a_call_are_asked_for_in_their_way() -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        jointly = Jointly(None)
        way: dict[str, Any] = {"mode": ParseMode.RBIO_DEMO, "with_evidence": True}
        await asyncio.gather(*(join(jointly, upstream, [text], **way) for text in "ab"))
    assert sizes(told) == [1, 2]
    assert told.calls[0].parse_mode != told.calls[1].parse_mode
    assert [call.omit_evidence for call in told.calls] == [True, False]


async def test_a_verifier_that_is_not_deterministic_or_not_yet_known_is_asked_by_each_for_himself() -> None:
    told = Told(deterministic=False)
    async with asked(told) as upstream:
        jointly = Jointly(None)
        replies = await asyncio.gather(*(join(jointly, upstream, ["a"]) for _ in range(2)))
        assert sorted(values(reply) for reply in replies) == [[0.01], [0.02]]
        told.description.deterministic = True
        await upstream.account(time.monotonic() + 5, refresh=True)
        replies = await asyncio.gather(*(join(jointly, upstream, ["a"]) for _ in range(2)))
        assert [values(reply) for reply in replies] == [[0.03], [0.03]]


async def test_each_is_told_why_a_verifier_does_not_say_who_it_is_and_nothing_is_kept_of_calls_that_ended() -> None:
    told = Told()
    told.is_silent = True
    async with asked(told) as upstream:
        jointly = Jointly(None)
        replies = await asyncio.gather(*(join(jointly, upstream, texts) for texts in (["a"], ["b", "c"])))
    assert [reasons(reply) for reply in replies] == [["not_a_verifier"], ["not_a_verifier"] * 2]
    assert told.calls == []
    assert jointly._asked == {"told": {}}
    assert jointly.waiting("told") == jointly.waiting("never asked") == 0


async def test_one_caller_whose_item_the_verifier_refuses_costs_the_others_nothing() -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        told.refusals = [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INVALID_ARGUMENT]
        jointly = Jointly(None)
        replies = await asyncio.gather(join(jointly, upstream, ["bad"]), join(jointly, upstream, ["good"]))
    assert sorted(reasons(reply) for reply in replies) == [[""], ["refused"]]
    assert sizes(told) == [1, 2, 1, 1]


async def test_what_may_pass_is_no_reason_to_ask_for_each() -> None:
    told = Told(idempotent=False)
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        told.refusals = [grpc.StatusCode.UNAVAILABLE]
        jointly = Jointly(None)
        replies = await asyncio.gather(join(jointly, upstream, ["a"]), join(jointly, upstream, ["b"]))
    assert [reasons(reply) for reply in replies] == [["unavailable"], ["unavailable"]]
    assert sizes(told) == [1, 2]


async def test_who_has_less_time_left_fails_alone_and_who_leaves_ends_the_call_for_nobody_else() -> None:
    told = Told()
    told.gate.clear()
    async with asked(told) as upstream:
        await upstream.account(time.monotonic() + 5)
        jointly = Jointly(None)
        patient = join(jointly, upstream, ["a"], seconds=1.95)
        hasty = join(jointly, upstream, ["b"], seconds=1.2)
        gone = join(jointly, upstream, ["c"], seconds=1.8)
        await until_called(told)
        assert jointly.waiting("told") == 0
        gone.cancel()
        late = await hasty
        assert not patient.done()
        told.gate.set()
        assert values(await patient) == [0.01]
        assert told.cancelled == 0
    assert [one.outcome for one in late.outcomes] == [
        Failed("deadline_exceeded", "told did not answer in time", retryable=True)
    ]
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_the_verifier_stops_working_when_the_last_of_those_who_share_has_left() -> None:
    told = Told()
    told.gate.clear()
    async with asked(told) as upstream:
        await upstream.account(time.monotonic() + 5)
        jointly = Jointly(None)
        callers = [join(jointly, upstream, [text]) for text in "ab"]
        assert jointly.waiting("told") == 0
        await asyncio.sleep(0)
        assert jointly.waiting("told") == 2
        await until_called(told)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await asyncio.to_thread(wait_until, lambda: told.cancelled == 1)


async def test_a_lone_caller_waits_for_nobody_and_who_comes_then_for_a_lull(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told()
    told.gate.clear()
    async with asked(told) as upstream:
        await upstream.account(time.monotonic() + 5)
        jointly = Jointly(None)
        waiting: list[Callable[[], None]] = []
        monkeypatch.setattr(jointly._lull, "call", waiting.append)
        first = join(jointly, upstream, ["a"])
        await until_called(told)
        assert waiting == []
        second = join(jointly, upstream, ["b"])
        other_way = join(jointly, upstream, ["c"], with_evidence=True)
        await asyncio.sleep(0)
        assert (len(waiting), jointly.waiting("told")) == (2, 2)
        third = join(jointly, upstream, ["d"])
        await asyncio.sleep(0)
        assert (len(waiting), jointly.waiting("told")) == (2, 3)
        for start in waiting:
            start()
        told.gate.set()
        await asyncio.gather(first, second, third, other_way)
        assert sizes(told) in ([1, 2, 1], [1, 1, 2])
        waiting.clear()
        await join(jointly, upstream, ["e"])
        assert waiting == []
        # If others have come of late, more may be at the door.
        jointly._lull.brought_others = True
        late = join(jointly, upstream, ["f"])
        await asyncio.sleep(0)
        assert len(waiting) == 1
        waiting.pop()()
        await late


async def test_what_a_queue_has_no_room_for_as_one_is_asked_for_each_as_far_as_there_is_room() -> None:
    told = Told(limits=verifier_pb2.Limits(max_items_in_flight=4))
    async with asked(told, max_waiting=4) as upstream:
        await ask(upstream, ["warm"])
        told.gate.clear()
        others = [ask(upstream, [f"{call}{n}" for n in range(items)]) for call, items in (("x", 4), ("y", 3))]
        await until_called(told, 2)
        jointly = Jointly(None)
        callers = [join(jointly, upstream, texts) for texts in (["a"], ["b", "c"])]
        assert reasons(await callers[1]) == ["overloaded"] * 2
        told.gate.set()
        assert reasons(await callers[0]) == [""]
        await asyncio.gather(*others)


async def test_who_was_told_of_all_his_items_is_not_asked_for_again_if_another_was_refused() -> None:
    told = Told(limits=verifier_pb2.Limits(max_items=2))
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        told.refusals = [grpc.StatusCode.INVALID_ARGUMENT]
        jointly = Jointly(None)
        replies = await asyncio.gather(*(join(jointly, upstream, texts) for texts in (["a"], ["b", "c"], ["d"])))
    assert [reasons(reply) for reply in replies] == [[""], ["", ""], [""]]
    again = sorted([one.completion for one in call.items] for call in told.calls[3:])
    first = {tuple(one.completion for one in call.items) for call in told.calls[1:3]}
    assert first == {("a", "b"), ("c", "d")}
    # Which of the two calls came first, and was refused, is not said.
    assert again in ([["a"], ["b", "c"]], [["b", "c"], ["d"]])


async def test_the_verifier_is_told_whose_requests_it_is_asked_for() -> None:
    told = Told()
    async with asked(told) as upstream:
        await ask(upstream, ["warm"])
        jointly = Jointly(None)

        async def ask_as(request_ids: list[str]) -> list[str]:
            """The id of each call that the verifier got."""
            begin = len(told.request_ids)
            callers = []
            for number, request_id in enumerate(request_ids):
                with bound_contextvars(request_id=request_id):
                    callers.append(join(jointly, upstream, [f"{begin} {number}"]))
            await asyncio.gather(*callers)
            return sorted(told.request_ids[begin:])

        assert await ask_as(["one"]) == ["one"]
        assert await ask_as(["one", "two", "one"]) == ["one,two"]
        many = [f"r{number}" for number in range(MOST_TOGETHER)]
        assert await ask_as(many) == [",".join(many)]
        [new] = await ask_as([*many, "more"])
        assert is_fit(new)
        assert new not in {*many, "more"}
        told.refusals = [grpc.StatusCode.INVALID_ARGUMENT]
        assert await ask_as(["one", "two"]) == ["one", "one,two", "two"]
        told.description.deterministic = False
        await upstream.account(time.monotonic() + 5, refresh=True)
        assert await ask_as(["one", "two"]) == ["one", "two"]


async def test_an_exception_of_our_own_fails_these_items_at_this_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    async def raises(*_: object, **__: object) -> None:
        raise LookupError("of our own")

    async with asked(Told()) as upstream:
        jointly = Jointly(None)
        monkeypatch.setattr(jointly, "_ask", raises)
        reply = await join(jointly, upstream, ["a", "b"])
    said = "asking told raised LookupError; the aggregator's log has more"
    assert [one.outcome for one in reply.outcomes] == [Failed("internal", said, retryable=False)] * 2
