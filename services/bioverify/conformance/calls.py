"""Checks of many calls: at once, beyond what may be in flight, given up by their callers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc

from bioverify.conformance.outcomes import must_agree
from bioverify.conformance.peer import CALL_S, Broken, NotShown, Peer, changed
from bioverify.transport.refusals import refusal_from_error
from bioverify.v1 import types_pb2

_CALLERS, _CALLS_EACH = 8, 5
_LATE_CALLS = 6
# Below this a queue is over before it is seen, and the machine's own pauses are as long.
_SLOW_ENOUGH_S = 0.15
_MOST_CALLS = 64
_PATIENCE_S = 5.0


def keeps_callers_apart(peer: Peer) -> None:
    items, expected = peer.probes, peer.alone

    def ask(caller: int) -> None:
        for number in range(_CALLS_EACH):
            offset = (caller + number) % len(items)
            mine = [changed(item, id=f"{caller}-{number}-{item.id}") for item in (*items[offset:], *items[:offset])]
            outcomes = _scored_in_time(peer, mine)
            if [outcome.item_id for outcome in outcomes] != [item.id for item in mine]:
                raise Broken(f"{_CALLERS} callers at once: a reply has another order or another caller's ids")
            must_agree(outcomes, [*expected[offset:], *expected[:offset]], f"alone and with {_CALLERS} callers at once")

    with ThreadPoolExecutor(_CALLERS) as callers:
        for done in [callers.submit(ask, caller) for caller in range(_CALLERS)]:
            done.result()


def _scored_in_time(
    peer: Peer, items: Sequence[types_pb2.Item], patience_s: float = CALL_S
) -> Sequence[types_pb2.Outcome]:
    """The outcomes; a refusal with a time to wait is waited out."""
    give_up = time.monotonic() + patience_s
    while True:
        try:
            return peer.score(items)
        except grpc.RpcError as error:
            refusal = refusal_from_error(error)
            if refusal.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() > give_up:
                raise
            time.sleep(refusal.retry_after_s or 0.1)


def refuses_what_does_not_fit(peer: Peer) -> None:
    limits = peer.described.limits
    calls = limits.max_items_in_flight // peer.full_size + 2
    if calls > _MOST_CALLS:
        raise NotShown(f"{calls:,} full calls at once would be needed to exceed max_items_in_flight")
    items = peer.filled(peer.full_size)
    started = [peer.start(items) for _ in range(calls)]
    for call in started:
        code = call.code()
        if code is grpc.StatusCode.OK:
            continue
        refusal = refusal_from_error(call)
        if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise Broken(f"{calls} full calls at once: one ended with {code.name} ({refusal.message})")
        if refusal.retry_after_s is None:
            raise Broken(f"{calls} full calls at once: RESOURCE_EXHAUSTED without RetryInfo, though waiting helps")


def drops_expired_calls(peer: Peer) -> None:
    size = max(1, min(peer.full_size, peer.described.limits.max_items_in_flight // (_LATE_CALLS + 2)))
    items = peer.filled(size)
    usual_s = min(_seconds(peer, items) for _ in range(2))
    if usual_s < _SLOW_ENOUGH_S:
        raise NotShown(f"{size} items take {usual_s:.3f} s: too quick for a call to expire in the queue")
    # A machine that is busy elsewhere is slow once, not each time.
    next_s = min(_seconds_behind_late_calls(peer, items, usual_s) for _ in range(2))
    if next_s > (_LATE_CALLS / 2 + 1) * usual_s:
        raise Broken(
            f"a call takes {usual_s:.2f} s; behind {_LATE_CALLS} calls whose deadline had passed it took {next_s:.2f} s"
        )


def _seconds_behind_late_calls(peer: Peer, items: Sequence[types_pb2.Item], usual_s: float) -> float:
    first = peer.start(items)
    time.sleep(usual_s / 10)
    late = [peer.start(items, timeout_s=usual_s / 10) for _ in range(_LATE_CALLS)]
    if answered := [call for call in late if call.code() is grpc.StatusCode.OK]:
        raise NotShown(f"{len(answered)} of {_LATE_CALLS} calls were answered within {usual_s / 10:.3f} s")
    first.result()
    return _seconds(peer, items)


def _seconds(peer: Peer, items: Sequence[types_pb2.Item]) -> float:
    started = time.monotonic()
    peer.score(items)
    return time.monotonic() - started


def forgets_cancelled_calls(peer: Peer) -> None:
    calls = peer.described.limits.max_items_in_flight // peer.full_size + 2
    if calls > _MOST_CALLS:
        raise NotShown(f"{calls:,} full calls would be needed to exceed max_items_in_flight")
    items = peer.filled(peer.full_size)
    usual_s = _seconds(peer, items)
    for _ in range(calls):
        call = peer.start(items)
        # Long enough for the call to arrive, and mostly to be in work.
        time.sleep(min(0.05, usual_s / 2))
        call.cancel()
    patience_s = _PATIENCE_S + calls * usual_s
    try:
        _scored_in_time(peer, items, patience_s)
    except grpc.RpcError as error:
        raise Broken(
            f"{calls} full calls were cancelled; {patience_s:.0f} s later a call ends with {error.code().name} "
            f"({error.details()})"
        ) from error
