"""One request at one verifier: what is asked once, what is remembered, what is asked anew.

Items are reduced to questions (what the verifier reads), equal questions are one, known ones come out of the cache,
those that another request is asking just now are awaited with it, and the rest goes to the verifier. While a verifier
does not answer, what it last said of itself still names the keys of what it said before, so known questions keep their
answers and only the others fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bioverify import tracing
from bioverify.aggregator import metrics
from bioverify.aggregator.cache import OutcomeCache
from bioverify.aggregator.encoded import Answered
from bioverify.aggregator.faults import DEADLINE_EXCEEDED, VERSION_CHANGED, UpstreamError
from bioverify.aggregator.policy.flights import Flight
from bioverify.aggregator.questions import Questions, cache_key
from bioverify.aggregator.replica import Usage
from bioverify.aggregator.upstream import Account, Landed, Upstream


@dataclass(frozen=True, slots=True)
class Told:
    """What a verifier told of some items. ``answers``: one per item, in order. ``distinct``: different questions."""

    answers: list[Answered]
    distinct: int = 0
    cache_hits: int = 0
    fingerprint: str = ""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Asking:
    """Whom to ask and how, the same for all questions of one request to one verifier."""

    upstream: Upstream
    cache: OutcomeCache | None
    questions: Questions
    deadline: float
    with_evidence: bool
    usage: Usage


async def ask_verifier(
    upstream: Upstream,
    cache: OutcomeCache | None,
    questions: Questions,
    positions: Sequence[int],
    deadline: float,
    *,
    with_evidence: bool,
) -> Told:
    """What the verifier says of the items at ``positions``.

    Never raises for a fault of the verifier or of Redis; ends by ``deadline`` (time.monotonic)."""
    usage = Usage()
    unreachable: UpstreamError | None = None
    try:
        account = await upstream.account(deadline)
    except UpstreamError as error:
        if upstream.last_account is None:
            _count_failures(upstream, error, len(positions))
            return Told([error.failed] * len(positions), usage=usage)
        account, unreachable = upstream.last_account, error

    asking = Asking(upstream, cache, questions, deadline, with_evidence, usage)
    for _ in range(2):
        hashes = questions.hashes(account.reads)
        keys = [cache_key(upstream.name, account.fingerprint, hashes[position]) for position in positions]
        # Of those who ask the same one stands for all.
        asked_by = dict(zip(keys, positions, strict=True))
        known = await _known(asking, account, list(asked_by))
        open_positions = {key: position for key, position in asked_by.items() if key not in known}
        if unreachable is not None:
            _count_failures(upstream, unreachable, len(open_positions))
            landed = Landed(dict.fromkeys(open_positions, unreachable.failed), set())
        else:
            landed = await _fly(asking, account, open_positions)
        if landed.fingerprints <= {account.fingerprint}:
            answers = known | landed.answers
            return Told([answers[key] for key in keys], len(asked_by), len(known), account.fingerprint, usage)
        # Another version has taken over in between: what was known is about the old one.
        try:
            account = await upstream.account(deadline, refresh=True)
        except UpstreamError as error:
            return Told([error.failed] * len(positions), len(asked_by), usage=usage)

    changed = UpstreamError(VERSION_CHANGED, f"{upstream.name} answers with several versions at once")
    return Told([changed.failed] * len(positions), len(asked_by), usage=usage)


async def _known(asking: Asking, account: Account, keys: list[bytes]) -> dict[bytes, Answered]:
    if asking.cache is None or not account.message.deterministic:
        return {}
    return await asking.cache.get(asking.upstream.name, keys, asking.deadline, with_evidence=asking.with_evidence)


async def _fly(asking: Asking, account: Account, open_positions: dict[bytes, int]) -> Landed:
    """The answers, by key: of flights under way where there are, else of a flight of our own."""
    flights = asking.upstream.flights
    boarded: dict[Flight[Landed], list[bytes]] = {}
    own: dict[bytes, int] = {}
    for key, position in open_positions.items():
        flight = None
        if account.message.deterministic:
            flight = flights.find(_flight_key(key, asking.with_evidence), asking.deadline)
        if flight is None:
            own[key] = position
        else:
            boarded.setdefault(flight, []).append(key)
    asking.usage.shared += len(open_positions) - len(own)
    metrics.SHARED.labels(asking.upstream.name).inc(len(open_positions) - len(own))
    if own:
        flight_keys = [_flight_key(key, asking.with_evidence) for key in own] if account.message.deterministic else []
        boarded[flights.start(flight_keys, asking.deadline, _ask(asking, account, own))] = list(own)

    late = UpstreamError(DEADLINE_EXCEEDED, f"{asking.upstream.name} did not answer another request in time")
    found = Landed(dict.fromkeys(open_positions, late.failed), set())
    for flight in await flights.ride(boarded, asking.deadline):
        brought = flight.task.result()
        found.answers.update((key, brought.answers[key]) for key in boarded[flight])
        found.fingerprints |= brought.fingerprints
    return found


async def _ask(asking: Asking, account: Account, open_positions: dict[bytes, int]) -> Landed:
    """Ask the verifier and remember what it says."""
    messages = asking.questions.messages(list(open_positions.values()), account.reads)
    replies = await asking.upstream.ask(
        messages, account, asking.questions.mode, asking.deadline, asking.usage, with_evidence=asking.with_evidence
    )
    answers = {key: replies.answers[at] for at, key in enumerate(open_positions)}
    is_current = replies.fingerprints <= {account.fingerprint}
    if asking.cache is not None and account.message.deterministic and is_current:
        await asking.cache.put(answers, asking.deadline, with_evidence=asking.with_evidence)
    return Landed(answers, replies.fingerprints)


def _flight_key(key: bytes, with_evidence: bool) -> bytes:
    return key + (b"+" if with_evidence else b"-")


def _count_failures(upstream: Upstream, error: UpstreamError, questions: int) -> None:
    metrics.FAILURES.labels(upstream.name, error.reason).inc(questions)
    tracing.failed("failed", error.reason)
