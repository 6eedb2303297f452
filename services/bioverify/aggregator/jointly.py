"""Small calls that come together ask a verifier as one.

One item costs a call to each verifier, a look into the cache and a dozen tasks; thirty cost hardly more. So callers who
ask about few items each, in the same way and with like time left, are asked for together: who comes while others are
asked for waits for a lull, a lone caller for nobody. What is told of each, what fails and when it ends stay his own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import frexp

import structlog
from structlog.contextvars import bound_contextvars

from bioverify.aggregator import metrics
from bioverify.aggregator.cache import OutcomeCache
from bioverify.aggregator.fanout import VerifierReply, ask_verifier, failed, fault_of_our_own
from bioverify.aggregator.faults import DEADLINE_EXCEEDED, OVERLOADED, RETRYABLE, UpstreamError
from bioverify.aggregator.policy.lull import Lull
from bioverify.aggregator.policy.together import Together
from bioverify.aggregator.questions import Questions
from bioverify.aggregator.replica import Usage
from bioverify.aggregator.upstream import Upstream
from bioverify.core.answers import ParseMode
from bioverify.core.verifier import Item
from bioverify.runtime import cancellation
from bioverify.transport.headers import MOST_TOGETHER, current_request_id, request_id_from

FEW_ITEMS = 32
"""A call of more is worth one of its own."""

log = structlog.stdlib.get_logger("bioverify.aggregator.jointly")


@dataclass(frozen=True, slots=True)
class _Way:
    """How items are asked about; what differs in it cannot share a call."""

    mode: ParseMode
    with_evidence: bool
    time_class: int


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """What one caller asks, and his request's id, which stands in the verifier's log."""

    items: list[Item]
    request_id: str


_Asked = Together[_Share, None, dict[_Share, VerifierReply]]


class Jointly:
    """To be made inside the running event loop."""

    def __init__(self, cache: OutcomeCache | None) -> None:
        self._cache = cache
        self._lull = Lull()
        self._asked: dict[str, dict[_Way, _Asked]] = {}
        self._callers: Counter[str] = Counter()

    def somebody_came(self) -> None:
        self._lull.somebody_came()

    def waiting(self, verifier: str) -> int:
        """Items that this verifier is about to be asked about."""
        return sum(len(share.items) for one in self._asked.get(verifier, {}).values() for share in one.waiting)

    async def ask(
        self,
        upstream: Upstream,
        questions: Questions,
        positions: Sequence[int],
        deadline: float,
        *,
        with_evidence: bool,
    ) -> VerifierReply:
        """What the verifier says of the items at ``positions``: as `ask_verifier`, in a call that others may share."""
        left_s = deadline - time.monotonic()
        # Who has 2 s left and who has 30 s do not wait for the same call.
        way = _Way(questions.mode, with_evidence, frexp(left_s)[1])
        asked = self._asked.setdefault(upstream.name, {})
        if way not in asked:
            when = partial(self._at_its_time, upstream.name)
            asked[way] = Together(partial(self._ask, upstream, way), when=when)
        together = asked[way]
        share = _Share([questions.items[position] for position in positions], current_request_id())
        self._callers[upstream.name] += 1
        try:
            replies = await together.join({share: None}, deadline, left_s)
            if replies is None:
                late = UpstreamError(DEADLINE_EXCEEDED, f"{upstream.name} did not answer in time")
                return failed(upstream, late, len(positions))
            if share in replies:
                return replies[share]
            return await ask_verifier(
                upstream, self._cache, questions, positions, deadline, with_evidence=with_evidence
            )
        except (Exception, asyncio.CancelledError) as error:
            if cancellation.is_wanted(error):
                raise
            return fault_of_our_own(upstream, error, len(positions))
        finally:
            self._callers[upstream.name] -= 1
            if together.is_idle and asked.get(way) is together:
                del asked[way]

    def _at_its_time(self, verifier: str, start: Callable[[], None]) -> None:
        if self._callers[verifier] > 1 or self._lull.brought_others:
            self._lull.call(start)
        else:
            asyncio.get_running_loop().call_soon(start)

    async def _ask(
        self, upstream: Upstream, way: _Way, shares: Mapping[_Share, None], deadline: float
    ) -> dict[_Share, VerifierReply]:
        """What is told of each; those who are not in it ask for themselves."""
        if len(shares) == 1:
            return {}
        try:
            await upstream.account(deadline)
        except UpstreamError as error:
            if upstream.last_account is None:
                return {share: failed(upstream, error, len(share.items)) for share in shares}
        account = upstream.last_account
        # Two who ask a verifier that is not deterministic have asked two questions, whatever their keys.
        if account is None or not account.message.deterministic:
            return {}
        request_ids = list(dict.fromkeys(share.request_id for share in shares))
        together = ",".join(request_ids)
        if len(request_ids) > MOST_TOGETHER:
            together = request_id_from(None)
            log.info(
                "several requests ask as one", verifier=upstream.name, as_request=together, request_ids=request_ids
            )
        questions = Questions([item for share in shares for item in share.items], way.mode)
        with bound_contextvars(request_id=together):
            reply = await ask_verifier(
                upstream,
                self._cache,
                questions,
                range(len(questions.items)),
                deadline,
                with_evidence=way.with_evidence,
            )
        replies = _divided(upstream, reply, shares)
        # What the verifier blames the call for may be the fault of one of those who share it; and a queue that has no
        # room for all of them may have some for each.
        if any(error.reason == OVERLOADED or error.reason not in RETRYABLE for error in reply.errors):
            return {share: own for share, own in replies.items() if not any(one.failed for one in own.outcomes)}
        return replies


def _divided(upstream: Upstream, reply: VerifierReply, shares: Mapping[_Share, None]) -> dict[_Share, VerifierReply]:
    """To each his part. A question that several ask was asked by the first and is shared by the others."""
    replies: dict[_Share, VerifierReply] = {}
    asked: set[bytes] = set()
    start = 0
    for share in shares:
        stop = start + len(share.items)
        outcomes, keys = reply.outcomes[start:stop], reply.keys[start:stop]
        known = {key for key, outcome in zip(keys, outcomes, strict=False) if outcome.from_cache}
        repeated = asked.intersection(keys) - known
        metrics.SHARED.labels(upstream.name).inc(len(repeated))
        shared = repeated.union(reply.shared_keys).intersection(keys)
        own = set(keys) - shared - known
        # No call was made for one who asked nothing of his own.
        usage = reply.usage if own else Usage()
        replies[share] = replace(reply, outcomes=outcomes, keys=keys, shared_keys=shared, usage=usage)
        asked.update(keys)
        start = stop
    return replies
