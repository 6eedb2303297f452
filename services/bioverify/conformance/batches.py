"""Checks of a call: one outcome per item, in order, the same however items are put together, limits with details."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import grpc

from bioverify.conformance.outcomes import must_agree, problem_of
from bioverify.conformance.peer import CALL_S, MOST_ITEMS, Broken, NotShown, Peer, Request, changed, matched, refusal_of
from bioverify.v1 import types_pb2, verifier_pb2

_IDS = ("0", " ", "a b", "é🧬", "items[0].id", "x" * 256, "../..", "\n")
_MOST_BYTES = 256 * 2**20
_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def keeps_order_and_ids(peer: Peer) -> None:
    size = min(len(_IDS), max(1, peer.described.limits.max_items))
    items = [changed(item, id=name) for item, name in zip(peer.filled(size), _IDS, strict=False)]
    found = [outcome.item_id for outcome in peer.score(items)]
    if found != [item.id for item in items]:
        raise Broken(f"ids {found} for items {[item.id for item in items]}")


def gives_whole_outcomes(peer: Peer) -> None:
    outcomes = peer.score(peer.probes)
    for index, outcome in enumerate(outcomes):
        if problem := problem_of(outcome, peer.described):
            raise Broken(f"probe {index}: {problem}")
    faults = [outcome.failure for outcome in outcomes if outcome.HasField("failure")]
    if faults:
        raise Broken(f"{len(faults)} of {len(outcomes)} plain items failed: {faults[0].reason}: {faults[0].detail}")


def scores_something(peer: Peer) -> None:
    scored = [outcome for outcome in peer.score(peer.probes) if outcome.HasField("scored")]
    if not scored:
        raise NotShown(f"none of {len(peer.probes)} items was scored, so no rule about scores was tried; give --items")
    if peer.described.holds_belief and not any(outcome.scored.HasField("belief") for outcome in scored):
        raise Broken(f"Describe says holds_belief, and none of {len(scored)} scores has a belief")


def answers_an_empty_batch(peer: Peer) -> None:
    peer.score([])


def takes_a_full_batch(peer: Peer) -> None:
    items = peer.filled(peer.full_size)
    found = [outcome.item_id for outcome in peer.score(items)]
    if found != [item.id for item in items]:
        raise Broken(f"a call of {len(items)} items, its limit, came back in another order or under other ids")


def refuses_too_many_items(peer: Peer) -> None:
    most = peer.described.limits.max_items
    if most > MOST_ITEMS:
        raise NotShown(f"a call of more than max_items {most:,} was not tried")
    _must_be_too_large(peer, peer.filled(most + 1), f"{most + 1} items where max_items is {most}")


def refuses_too_many_bytes(peer: Peer) -> None:
    most = peer.described.limits.max_bytes
    if most > _MOST_BYTES:
        raise NotShown(f"a message of more than max_bytes {most:,} was not tried")
    item = changed(peer.probes[0], completion="x" * most)
    _must_be_too_large(peer, [item], f"a message above max_bytes {most}")


def _must_be_too_large(peer: Peer, items: Sequence[types_pb2.Item], case: str) -> None:
    refusal = refusal_of(lambda: peer.reply(items), expected=_EXHAUSTED, case=case)
    if refusal.retry_after_s is not None:
        raise Broken(f"{case}: RetryInfo says to wait {refusal.retry_after_s} s, which will not make it smaller")


def refuses_repeated_ids(peer: Peer) -> None:
    items = [changed(peer.probes[0], id=name) for name in ("a", "b", "a")]
    request = Request(items=items[: _at_least(peer, 3)])
    _must_name(lambda: peer.stub.ScoreBatch(request, timeout=CALL_S), "items[2].id", "an id that stands twice")


def refuses_invalid_fields(peer: Peer) -> None:
    item = peer.probes[0]
    no_gene = types_pb2.Task(co_expression=types_pb2.CoExpression(gene_a="", gene_b="HBB"))
    turn = types_pb2.Message(role="robot", content="beep")
    unknown_mode = Request(items=[item])
    unknown_mode.parse_mode = 99  # type: ignore[assignment]
    for request, field in (
        (Request(items=[changed(item, id=None)]), "items[0].id"),
        (Request(items=[changed(item, id="x" * 257)]), "items[0].id"),
        (Request(items=[changed(item, task=types_pb2.Task())]), "items[0].task.kind"),
        (Request(items=[changed(item, task=no_gene)]), "items[0].task.co_expression.gene_a"),
        (Request(items=[changed(item, prompt=[turn])]), "items[0].prompt[0].role"),
        (unknown_mode, "parse_mode"),
    ):
        _must_name(partial(peer.stub.ScoreBatch, request, timeout=CALL_S), field, f"a wrong {field}")


def _must_name(call: Callable[[], object], field: str, case: str) -> None:
    refusal = refusal_of(call, expected=_INVALID, case=case)
    named = [name for name, _ in refusal.violations]
    if field not in named:
        raise Broken(f"{case}: BadRequest names {', '.join(named) or 'no field'}, not {field}")


def _at_least(peer: Peer, items: int) -> int:
    if peer.described.limits.max_items < items:
        raise NotShown(f"a call may hold {peer.described.limits.max_items} items")
    return items


def scores_the_same_in_any_batch(peer: Peer) -> None:
    items = peer.probes
    _at_least(peer, 2)
    must_agree(peer.score(items), peer.alone, "alone and in one call with the others")
    backwards = peer.score(items[::-1])
    must_agree(backwards[::-1], peer.alone, "alone and in a call in reverse order")
    half = len(items) // 2
    must_agree(peer.score(items[:half]) + peer.score(items[half:]), peer.alone, "alone and in calls of half the size")
    full = peer.score(peer.filled(peer.full_size))
    must_agree(full[: len(items)], peer.alone[: len(full)], f"alone and in a call of {peer.full_size} items")


def leaves_evidence_out(peer: Peer) -> None:
    reply = peer.reply(peer.probes, omit_evidence=True)
    outcomes = matched(reply, peer.probes)
    if any(outcome.scored.evidence for outcome in outcomes):
        raise Broken("evidence came back although omit_evidence was set")
    must_agree(outcomes, peer.alone, "with and without evidence")


def streams_the_same(peer: Peer) -> None:
    items = peer.probes
    batches = [items[:1], items, [], items[::-1], items[-1:]]
    requests = [verifier_pb2.ScoreStreamRequest(batch=Request(items=batch)) for batch in batches]
    replies = list(peer.stub.ScoreStream(iter(requests), timeout=CALL_S))
    if len(replies) != len(batches):
        raise Broken(f"{len(replies)} replies to {len(batches)} batches of a stream")
    for number, (batch, reply) in enumerate(zip(batches, replies, strict=True)):
        outcomes = matched(reply.batch, batch)
        if [outcome.item_id for outcome in outcomes] != [item.id for item in batch]:
            raise Broken(f"batch {number} of a stream came back in another order or under other ids")
        expected = peer.score(batch)
        must_agree(outcomes, expected, f"by ScoreBatch and by batch {number} of ScoreStream")
        if reply.batch.fingerprint != peer.described.fingerprint:
            raise Broken(f"batch {number} of a stream has fingerprint {reply.batch.fingerprint!r}")


def refuses_invalid_batches_of_a_stream(peer: Peer) -> None:
    good = verifier_pb2.ScoreStreamRequest(batch=Request(items=peer.probes[:1]))
    twice = [changed(peer.probes[0], id="a")] * _at_least(peer, 2)
    for bad, field in (
        (verifier_pb2.ScoreStreamRequest(), "batch"),
        (verifier_pb2.ScoreStreamRequest(batch=Request(items=twice)), "batch.items[1].id"),
    ):
        _must_name(
            lambda bad=bad: list(peer.stub.ScoreStream(iter([good, bad]), timeout=CALL_S)),  # type: ignore[misc]
            field,
            f"a stream whose second batch has a wrong {field}",
        )
