"""One request at one verifier: what is asked once, what is remembered, what is asked again.

Items are reduced to questions (what the verifier reads), equal questions are one, known ones come out of the cache,
those that another request is asking just now are awaited with it, and the rest goes to the verifier. While a verifier
does not answer, what it last said of itself still names the keys of its earlier outcomes, so known questions keep their
outcomes and only the others fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
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
    """What a verifier said of some items. ``outcomes``: one per item, in order.

    ``keys``: of their questions, in order; none if nobody knows what the verifier reads. ``shared_keys``: of those that
    another request's call answered. ``errors``: of the calls that failed.
    """

    outcomes: list[EncodedOutcome]
    keys: Sequence[bytes] = ()
    shared_keys: Collection[bytes] = ()
    fingerprint: str = ""
    usage: Usage = field(default_factory=Usage)
    errors: Sequence[UpstreamError] = ()

    @property
    def distinct(self) -> int:
        """Different questions."""
        return len(set(self.keys))

    @property
    def cache_hits(self) -> int:
        """Different questions whose outcome was remembered."""
        return len({key for key, outcome in zip(self.keys, self.outcomes, strict=False) if outcome.from_cache})

    @property
    def shared(self) -> int:
        return len(self.shared_keys)


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
        return fault_of_our_own(upstream, error, len(positions))


def fault_of_our_own(upstream: Upstream, error: BaseException, items: int) -> VerifierReply:
    log.error("asking a verifier raised", verifier=upstream.name, items=items, exc_info=error)
    raised = f"asking {upstream.name} raised {type(error).__name__}; the aggregator's log has more"
    return failed(upstream, UpstreamError(INTERNAL, raised), items)


def failed(upstream: Upstream, error: UpstreamError, items: int) -> VerifierReply:
    """The reply if nothing was heard of any of the items."""
    _count_failures(upstream, error, items)
    return VerifierReply([error.failed] * items)


async def _ask_verifier(asking: Asking, positions: Sequence[int]) -> VerifierReply:
    upstream, questions, deadline, usage = asking.upstream, asking.questions, asking.deadline, asking.usage
    unreachable: UpstreamError | None = None
    try:
        account = await upstream.account(deadline)
    except UpstreamError as error:
        if upstream.last_account is None:
            return failed(upstream, error, len(positions))
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
            found, shared = Outcomes(dict.fromkeys(unknown, unreachable.failed)), list[bytes]()
        else:
            found, shared = await _ask_once(asking, account, unknown)
        if found.fingerprints <= {account.fingerprint}:
            outcomes = known | found.by_key
            said = [outcomes[key] for key in keys]
            return VerifierReply(said, keys, shared, account.fingerprint, usage, found.errors)
        # Another version has taken over in between: what was known is about the old one.
        try:
            account = await upstream.account(deadline, refresh=True)
        except UpstreamError as error:
            return VerifierReply([error.failed] * len(positions), keys, usage=usage)

    changed = UpstreamError(VERSION_CHANGED, f"{upstream.name} answers with several versions at once")
    return VerifierReply([changed.failed] * len(positions), keys, usage=usage)


async def _known(asking: Asking, account: Account, keys: list[bytes]) -> dict[bytes, EncodedOutcome]:
    if asking.cache is None or not account.message.deterministic:
        return {}
    return await asking.cache.get(asking.upstream.name, keys, asking.deadline, with_evidence=asking.with_evidence)


async def _ask_once(asking: Asking, account: Account, unknown: dict[bytes, int]) -> tuple[Outcomes, list[bytes]]:
    """The outcomes: of a call under way if there is one that asks the same, else of a call of our own. And which are of
    the first kind."""
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
    shared = [key for key in unknown if key not in own]
    metrics.SHARED.labels(asking.upstream.name).inc(len(shared))
    if own:
        call_keys = [_call_key(key, asking.with_evidence) for key in own] if account.message.deterministic else []
        awaited[single_flight.start(call_keys, asking.deadline, _ask(asking, account, own))] = list(own)

    late = UpstreamError(DEADLINE_EXCEEDED, f"{asking.upstream.name} did not answer another request in time")
    found = Outcomes(dict.fromkeys(unknown, late.failed))
    for call in await single_flight.wait_for(awaited, asking.deadline):
        brought = call.task.result()
        found.by_key.update((key, brought.by_key[key]) for key in awaited[call])
        found.fingerprints |= brought.fingerprints
        found.errors += brought.errors
    return found, shared


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
