"""From the verifiers' replies to the reward service's own: core composes the rewards, and every part says where it
comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bioverify import tracing
from bioverify.aggregator import metrics
from bioverify.aggregator.encoded import EncodedOutcome, encode_outcome, strip_evidence
from bioverify.aggregator.fanout import VerifierReply
from bioverify.aggregator.policy.breaker import State
from bioverify.aggregator.reading import ReadRequest
from bioverify.core.answers import AnswerProblem
from bioverify.core.consensus import CONSENSUS, Consensus
from bioverify.core.readings import Readable
from bioverify.core.rewards import Weighed, is_lost_to_a_fault, weigh
from bioverify.core.tasks import GeneAnnotation
from bioverify.core.verifier import UNRECOGNISED_QUESTION
from bioverify.runtime.errors import over_limit
from bioverify.transport.channels import MAX_MESSAGE_BYTES
from bioverify.v1 import reward_pb2, types_pb2, verifier_pb2
from bioverify.wire.outcomes import outcome_to_wire
from bioverify.wire.rewards import term_to_wire
from bioverify.wire.tasks import THOUGHT_PROBLEMS, UNREAD_REASONS, answer_to_wire, task_to_wire

_BREAKER_STATES = {
    State.CLOSED: reward_pb2.BREAKER_STATE_CLOSED,
    State.OPEN: reward_pb2.BREAKER_STATE_OPEN,
    State.HALF_OPEN: reward_pb2.BREAKER_STATE_HALF_OPEN,
}


MAX_REPLY_BYTES = MAX_MESSAGE_BYTES - 2**20
"""Of rewards and parts; the rest is for the reports."""
_LEFT_OUT = "left out: the reply would be larger than 64 MiB; ask for fewer items in a call"
_SHORT_BYTES = 384
"""The most that a shortened outcome takes, with what stands around it and its term. There is room for so much of each
from the beginning; whatever else it holds (evidence, components, a long reason) is kept as long as there is room."""
_TASK_BYTES = 1024
"""The most that a task takes that is not a list of genes."""


@dataclass(frozen=True, slots=True)
class _Summand:
    """A term, ready for all items: its verifier's outcomes by position, and itself as a message."""

    component: str
    outcomes: Mapping[int, EncodedOutcome]
    part: bytes
    is_first: bool
    """Of the terms that ask its verifier."""


def least_bytes(request: reward_pb2.RewardServiceScoreBatchRequest, read: ReadRequest) -> int:
    """What the reply takes if all is left out of it that may be. Raises Refused if that is too much for a message."""
    of_terms = {
        key: sum(term_to_wire(term).ByteSize() + _SHORT_BYTES for term in terms or ())
        for key, terms in {id(terms): terms for terms in read.terms}.items()
    }
    total = 0
    for message, item, terms in zip(request.items, read.items, read.terms, strict=True):
        task_bytes = task_to_wire(item.task).ByteSize() if isinstance(item.task, GeneAnnotation) else _TASK_BYTES
        # The id stands on the reward, the consensus and each part; one id is at most 1,024 bytes.
        named_bytes = len(message.id.encode()) * (len(terms or ()) + 2)
        total += of_terms[id(terms)] + named_bytes + task_bytes + 3 * _SHORT_BYTES
    if total > MAX_REPLY_BYTES:
        parts = sum(len(terms or ()) for terms in read.terms)
        raise over_limit(
            f"{len(request.items):,} items with {parts:,} parts are more than one reply can hold "
            f"({MAX_MESSAGE_BYTES:,} bytes); split the call, or name fewer terms"
        )
    return total


def reply_to(
    request: reward_pb2.RewardServiceScoreBatchRequest,
    read: ReadRequest,
    replies: Mapping[str, VerifierReply],
    states: Mapping[str, State],
    consensus: Consensus | None,
) -> reward_pb2.RewardServiceScoreBatchResponse:
    """The rewards, in order, and a report per verifier that was asked."""
    outcomes: dict[str, dict[int, EncodedOutcome]] = {
        verifier: dict(zip(positions, replies[verifier].outcomes, strict=True))
        for verifier, positions in read.positions.items()
    }
    if consensus is not None:
        outcomes[CONSENSUS] = _agreed(consensus, read, replies, outcomes, with_evidence=not request.omit_evidence)
    summands = _summands(read, outcomes)
    values = [
        [
            one.outcomes[row].number(one.component) if one.component else one.outcomes[row].value
            for one in summands[id(terms)]
        ]
        for row, terms in enumerate(read.terms)
    ]
    weighed = weigh(
        read.recipe,
        [message.group_id for message in request.items],
        [item.task.kind if item.task else None for item in read.items],
        read.terms,
        values,
        lambda row, verifier: outcomes[verifier][row].outcome,
    )
    agreed = outcomes.get(CONSENSUS, {})
    room_bytes = MAX_REPLY_BYTES - least_bytes(request, read)
    response = reward_pb2.RewardServiceScoreBatchResponse(
        verifiers=[
            _report(verifier, read.positions[verifier], replies[verifier], states[verifier])
            for verifier in read.positions
        ]
    )
    for row, (message, item, terms, reward) in enumerate(
        zip(request.items, read.items, read.terms, weighed, strict=True)
    ):
        item_id = message.id
        written = response.rewards.add(item_id=item_id, unscorable_because=reward.unscorable_because)
        question = read.unread.get(row)
        if reward.reward is not None:
            written.reward = reward.reward
        elif question is not None:
            written.unscorable_because += question.beside_the_reason
        if (more_bytes := len(written.unscorable_because.encode()) - _SHORT_BYTES) > 0:
            if more_bytes > room_bytes:
                written.unscorable_because = f"{written.unscorable_because[: _SHORT_BYTES // 5]}…"
            else:
                room_bytes -= more_bytes
        if item.task is not None:
            written.task.CopyFrom(task_to_wire(item.task))
        if item.answer is not None:
            written.answer.CopyFrom(answer_to_wire(item.answer))
        if row in read.unread_reasons:
            written.unread_question = UNREAD_REASONS[read.unread_reasons[row]]
        if row in read.thought_problems:
            written.thought_problem = THOUGHT_PROBLEMS[read.thought_problems[row]]
        for one, number, dropped in zip(summands[id(terms)], reward.contributions, reward.dropped_because, strict=True):
            outcome = one.outcomes[row]
            part = written.parts.add()
            part.MergeFromString(one.part)
            part.outcome.MergeFromString(outcome.message)
            if request.evidence_once and not one.is_first:
                strip_evidence(part.outcome)
            if question is not None and part.outcome.not_applicable.reason == UNRECOGNISED_QUESTION.reason:
                # Verifiers are not shown the prompt, so the sentence is put in here.
                part.outcome.not_applicable.detail = question.detail
            if question is not None or len(outcome.message) > _SHORT_BYTES:
                room_bytes -= _fit(part.outcome, room_bytes)
            part.outcome.item_id = item_id
            if number is not None:
                part.contribution = number
            if dropped:
                part.dropped_because = dropped
            if outcome.from_cache:
                part.from_cache = True
        if row in agreed:
            written.consensus.MergeFromString(agreed[row].message)
            room_bytes -= _fit(written.consensus, room_bytes)
            written.consensus.item_id = item_id
    lost = sum(
        is_lost_to_a_fault(
            read.terms[row] or (),
            values[row],
            {name for name, own in outcomes.items() if row in own and own[row].failed},
        )
        for row, reward in enumerate(weighed)
        if reward.reward is None
    )
    _count(weighed, lost, replies)
    _count_unread(read)
    return response


def _fit(outcome: types_pb2.Outcome, room_bytes: int) -> int:
    """Shorten the outcome if it is larger than what is kept for it and ``room_bytes`` more, and say so in it. Value and
    belief stay. Returns how much of the room it takes.
    """
    more_bytes = outcome.ByteSize() - _SHORT_BYTES
    if more_bytes <= room_bytes:
        return max(0, more_bytes)
    kind = outcome.WhichOneof("result")
    if kind == "scored":
        strip_evidence(outcome)
        outcome.scored.evidence.add(text=_LEFT_OUT)
        more_bytes = outcome.ByteSize() - _SHORT_BYTES
        if more_bytes <= room_bytes:
            return max(0, more_bytes)
        outcome.scored.ClearField("components")
    elif kind == "not_applicable":
        outcome.not_applicable.detail = _LEFT_OUT
    elif kind == "failure":
        outcome.failure.detail = _LEFT_OUT
    return 0


def _summands(read: ReadRequest, outcomes: Mapping[str, Mapping[int, EncodedOutcome]]) -> dict[int, list[_Summand]]:
    """For each combination of terms, by its identity: items share theirs, and to hash terms takes longer than to use
    them."""
    return {
        key: [
            _Summand(
                term.component,
                outcomes.get(term.verifier, {}),
                reward_pb2.Part(term=term_to_wire(term)).SerializeToString(),
                is_first=all(other.verifier != term.verifier for other in (terms or ())[:number]),
            )
            for number, term in enumerate(terms or ())
        ]
        for key, terms in {id(terms): terms for terms in read.terms}.items()
    }


def _agreed(
    consensus: Consensus,
    read: ReadRequest,
    replies: Mapping[str, VerifierReply],
    outcomes: Mapping[str, Mapping[int, EncodedOutcome]],
    *,
    with_evidence: bool,
) -> dict[int, EncodedOutcome]:
    """What the members of the consensus amount to together, for the items that all of them were asked about."""
    if not consensus.members.keys() <= outcomes.keys():
        return {}
    fingerprints = {verifier: reply.fingerprint for verifier, reply in replies.items()}
    members = {name: outcomes[name] for name in consensus.members}
    agreed = {}
    for row, item in enumerate(read.items):
        if all(row in own for own in members.values()):
            held = {name: own[row].outcome for name, own in members.items()}
            agreed_outcome = consensus.outcome(item.task, item.answer, held, fingerprints, with_evidence=with_evidence)
            agreed[row] = encode_outcome(outcome_to_wire("", agreed_outcome))
    return agreed


def _report(verifier: str, positions: list[int], reply: VerifierReply, state: State) -> reward_pb2.VerifierReport:
    kinds = Counter([outcome.kind for outcome in reply.outcomes])
    first_failure = next((outcome for outcome in reply.outcomes if outcome.failed), None) if kinds["failure"] else None
    return reward_pb2.VerifierReport(
        verifier=verifier,
        fingerprint=reply.fingerprint,
        items=len(positions),
        distinct=reply.distinct,
        cache_hits=reply.cache_hits,
        failed=kinds["failure"],
        not_applicable=kinds["not_applicable"],
        calls=reply.usage.calls,
        wall_seconds=reply.usage.wall_s,
        timing=verifier_pb2.Timing(queue_seconds=reply.usage.queue_s, work_seconds=reply.usage.work_s),
        first_failure=types_pb2.Outcome.FromString(first_failure.message).failure if first_failure else None,
        retries=reply.usage.retries,
        hedges=reply.usage.hedges,
        shared=reply.shared,
        waited_seconds=reply.usage.waited_s,
        breaker=_BREAKER_STATES[state],
    )


def _count(weighed: Sequence[Weighed], lost: int, replies: Mapping[str, VerifierReply]) -> None:
    """``lost``: rewards that there are not because of a fault."""
    unscorable = sum(reward.reward is None for reward in weighed)
    metrics.REWARDS.labels("rewarded", "").inc(len(weighed) - unscorable)
    metrics.REWARDS.labels("unscorable", "fact").inc(unscorable - lost)
    metrics.REWARDS.labels("unscorable", "fault").inc(lost)
    tracing.note(unscorable=unscorable, lost_to_faults=lost)
    for verifier, reply in replies.items():
        for kind, count in Counter([outcome.kind for outcome in reply.outcomes]).items():
            # In the contract the fault is a noun; in every label it is "failed".
            metrics.OUTCOMES.labels(verifier, "failed" if kind == "failure" else kind).inc(count)
        metrics.VERIFIER_SECONDS.labels(verifier).observe(reply.usage.wall_s, tracing.exemplar())


def _count_unread(read: ReadRequest) -> None:
    answers = [item.answer for item in read.items if isinstance(item.answer, AnswerProblem)]
    for what, reasons in (
        (Readable.QUESTION, read.unread_reasons.values()),
        (Readable.THOUGHT, read.thought_problems.values()),
        (Readable.ANSWER, answers),
    ):
        for reason, count in Counter(reasons).items():
            metrics.NOT_READ.labels(what, reason).inc(count)
