"""One request at one verifier: what is asked once, what is remembered, what is asked again.

Items are reduced to questions (what the verifier reads), equal questions are one, known ones come out of the cache,
those that another request is asking just now are awaited with it, and the rest goes to the verifier. While a verifier
does not answer, what it last said of itself still names the keys of its earlier outcomes, so known questions keep their
outcomes and only the others fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from bioverify import tracing
from bioverify.aggregator import metrics
from bioverify.aggregator.cache import OutcomeCache
from bioverify.aggregator.encoded import EncodedOutcome
from bioverify.aggregator.faults import DEADLINE_EXCEEDED, INTERNAL, VERSION_CHANGED, UpstreamError
from bioverify.aggregator.policy.single_flight import SharedCall
from bioverify.aggregator.questions import Questions, cache_key
from bioverify.aggregator.replica import Usage
from bioverify.aggregator.upstream import Account, Outcomes, Upstream
from bioverify.runtime import cancellation

log = structlog.stdlib.get_logger("bioverify.aggregator.fanout")


@dataclass(frozen=True, slots=True)
class VerifierReply:
    """What a verifier said of some items. ``outcomes``: one per item, in order. ``distinct``: different questions."""

    outcomes: list[EncodedOutcome]
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
) -> VerifierReply:
    """What the verifier says of the items at ``positions``.

    Never raises for a fault of the verifier, of Redis or of our own code: it fails these items at this verifier and no
    others. Ends by ``deadline`` (time.monotonic).
    """
    asking = Asking(upstream, cache, questions, deadline, with_evidence, Usage())
    try:
        return await _ask_verifier(asking, positions)
    except (Exception, asyncio.CancelledError) as error:
        if cancellation.is_wanted(error):
            raise
        log.exception("asking a verifier raised", verifier=upstream.name, items=len(positions))
        raised = f"asking {upstream.name} raised {type(error).__name__}; the aggregator's log has more"
        fault = UpstreamError(INTERNAL, raised)
        _count_failures(upstream, fault, len(positions))
        return VerifierReply([fault.failed] * len(positions))


async def _ask_verifier(asking: Asking, positions: Sequence[int]) -> VerifierReply:
    upstream, questions, deadline, usage = asking.upstream, asking.questions, asking.deadline, asking.usage
    unreachable: UpstreamError | None = None
    try:
        account = await upstream.account(deadline)
    except UpstreamError as error:
        if upstream.last_account is None:
            _count_failures(upstream, error, len(positions))
            return VerifierReply([error.failed] * len(positions), usage=usage)
        account, unreachable = upstream.last_account, error

    for _ in range(2):
        hashes = questions.hashes(account.reads)
        keys = [cache_key(upstream.name, account.fingerprint, hashes[position]) for position in positions]
        # Of those who ask the same one stands for all.
        position_of = dict(zip(keys, positions, strict=True))
        known = await _known(asking, account, list(position_of))
        unknown = {key: position for key, position in position_of.items() if key not in known}
        if unreachable is not None:
            _count_failures(upstream, unreachable, len(unknown))
            found = Outcomes(dict.fromkeys(unknown, unreachable.failed))
        else:
            found = await _ask_once(asking, account, unknown)
        if found.fingerprints <= {account.fingerprint}:
            outcomes = known | found.by_key
            return VerifierReply(
                [outcomes[key] for key in keys], len(position_of), len(known), account.fingerprint, usage
            )
        # Another version has taken over in between: what was known is about the old one.
        try:
            account = await upstream.account(deadline, refresh=True)
        except UpstreamError as error:
            return VerifierReply([error.failed] * len(positions), len(position_of), usage=usage)

    changed = UpstreamError(VERSION_CHANGED, f"{upstream.name} answers with several versions at once")
    return VerifierReply([changed.failed] * len(positions), len(position_of), usage=usage)


async def _known(asking: Asking, account: Account, keys: list[bytes]) -> dict[bytes, EncodedOutcome]:
    if asking.cache is None or not account.message.deterministic:
        return {}
    return await asking.cache.get(asking.upstream.name, keys, asking.deadline, with_evidence=asking.with_evidence)


async def _ask_once(asking: Asking, account: Account, unknown: dict[bytes, int]) -> Outcomes:
    """The outcomes: of a call under way if there is one that asks the same, else of a call of our own."""
    single_flight = asking.upstream.single_flight
    awaited: dict[SharedCall[Outcomes], list[bytes]] = {}
    own: dict[bytes, int] = {}
    for key, position in unknown.items():
        call = None
        if account.message.deterministic:
            call = single_flight.find(_call_key(key, asking.with_evidence), asking.deadline)
        if call is None:
            own[key] = position
        else:
            awaited.setdefault(call, []).append(key)
    asking.usage.shared += len(unknown) - len(own)
    metrics.SHARED.labels(asking.upstream.name).inc(len(unknown) - len(own))
    if own:
        call_keys = [_call_key(key, asking.with_evidence) for key in own] if account.message.deterministic else []
        awaited[single_flight.start(call_keys, asking.deadline, _ask(asking, account, own))] = list(own)

    late = UpstreamError(DEADLINE_EXCEEDED, f"{asking.upstream.name} did not answer another request in time")
    found = Outcomes(dict.fromkeys(unknown, late.failed))
    for call in await single_flight.wait_for(awaited, asking.deadline):
        brought = call.task.result()
        found.by_key.update((key, brought.by_key[key]) for key in awaited[call])
        found.fingerprints |= brought.fingerprints
    return found


async def _ask(asking: Asking, account: Account, unknown: dict[bytes, int]) -> Outcomes:
    """Ask the verifier and remember what it says."""
    messages = asking.questions.messages(list(unknown.values()), account.reads)
    found = await asking.upstream.ask(
        dict(zip(unknown, messages, strict=True)),
        account,
        asking.questions.mode,
        asking.deadline,
        asking.usage,
        with_evidence=asking.with_evidence,
    )
    is_current = found.fingerprints <= {account.fingerprint}
    if asking.cache is not None and account.message.deterministic and is_current:
        await asking.cache.put(found.by_key, asking.deadline, with_evidence=asking.with_evidence)
    return found


def _call_key(key: bytes, with_evidence: bool) -> bytes:
    return key + (b"+" if with_evidence else b"-")


def _count_failures(upstream: Upstream, error: UpstreamError, questions: int) -> None:
    metrics.FAILURES.labels(upstream.name, error.reason).inc(questions)
    tracing.failed("failed", error.reason)
