"""One request at one verifier: what is asked once, what is remembered, what is asked anew.

Items are reduced to questions (what the verifier reads), equal questions are one, known ones come out of the cache with
one MGET, and the rest goes to the verifier. While a verifier does not answer, what it last said of itself still names
the keys of what it said before, so known questions keep their answers and only the others fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bioverify.aggregator.answers import Answered, failure
from bioverify.aggregator.cache import OutcomeCache
from bioverify.aggregator.keys import cache_key, item_for_verifier, question_of
from bioverify.aggregator.upstream import Account, Replies, Upstream, UpstreamError, Usage
from bioverify.core.answers import ParseMode
from bioverify.core.verifier import Item


@dataclass(frozen=True, slots=True)
class Told:
    """What a verifier told of some items. ``answers``: one per item, in order. ``distinct``: different questions."""

    answers: list[Answered]
    distinct: int = 0
    cache_hits: int = 0
    fingerprint: str = ""
    usage: Usage = field(default_factory=Usage)


async def ask_verifier(
    upstream: Upstream,
    cache: OutcomeCache | None,
    items: Sequence[Item],
    mode: ParseMode,
    deadline: float,
    *,
    with_evidence: bool,
) -> Told:
    """Never raises for a fault of the verifier or of Redis; ends by ``deadline`` (time.monotonic)."""
    usage = Usage()
    unreachable: UpstreamError | None = None
    try:
        account = await upstream.account(deadline)
    except UpstreamError as error:
        if upstream.last_account is None:
            return Told([error.failed] * len(items), usage=usage)
        account, unreachable = upstream.last_account, error

    for _ in range(2):
        questions = [question_of(item, account.reads) for item in items]
        first_with = {question: position for position, question in reversed(list(enumerate(questions)))}
        keys = {question: cache_key(upstream.name, account.fingerprint, question) for question in first_with}
        known = await _known(cache, upstream.name, account, list(keys.values()), deadline, with_evidence=with_evidence)
        open_questions = [question for question, key in keys.items() if key not in known]
        answers = {question: known[key] for question, key in keys.items() if key in known}
        if unreachable is not None:
            answers.update(dict.fromkeys(open_questions, unreachable.failed))
            replies = Replies()
        else:
            messages = [
                item_for_verifier(position, items[first_with[question]], account.reads)
                for position, question in enumerate(open_questions)
            ]
            replies = await upstream.ask(messages, account, mode, deadline, usage, with_evidence=with_evidence)
            answers.update((open_questions[position], answer) for position, answer in replies.answers.items())
        if replies.fingerprints <= {account.fingerprint}:
            if cache is not None and account.message.deterministic:
                fresh = {keys[question]: answers[question] for question in open_questions}
                await cache.put(fresh, deadline, with_evidence=with_evidence)
            return Told(
                [answers[question] for question in questions], len(keys), len(known), account.fingerprint, usage
            )
        # Another version has taken over in between: what was known is about the old one.
        try:
            account = await upstream.account(deadline, refresh=True)
        except UpstreamError as error:
            return Told([error.failed] * len(items), len(keys), usage=usage)

    changed = failure("version_changed", f"{upstream.name} answers with several versions at once")
    return Told([changed] * len(items), len(keys), usage=usage)


async def _known(
    cache: OutcomeCache | None,
    verifier: str,
    account: Account,
    keys: list[bytes],
    deadline: float,
    *,
    with_evidence: bool,
) -> dict[bytes, Answered]:
    if cache is None or not account.message.deterministic:
        return {}
    return await cache.get(verifier, keys, deadline, with_evidence=with_evidence)
