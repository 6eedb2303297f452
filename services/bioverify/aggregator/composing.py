"""From what the verifiers told to the reply: core composes the rewards, and every part says where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bioverify import tracing
from bioverify.aggregator import metrics
from bioverify.aggregator.encoded import Answered, answered
from bioverify.aggregator.fanout import Told
from bioverify.aggregator.policy.breaker import State
from bioverify.aggregator.reading import ReadRequest
from bioverify.aggregator.writing import name_field, part_field, reward_field, term_field
from bioverify.core.consensus import CONSENSUS, Consensus
from bioverify.core.rewards import Weighed, is_lost_to_a_fault, weigh
from bioverify.v1 import reward_pb2, types_pb2, verifier_pb2
from bioverify.wire.outcomes import outcome_to_wire

_BREAKER_STATES = {
    State.CLOSED: reward_pb2.BREAKER_STATE_CLOSED,
    State.OPEN: reward_pb2.BREAKER_STATE_OPEN,
    State.HALF_OPEN: reward_pb2.BREAKER_STATE_HALF_OPEN,
}


@dataclass(frozen=True, slots=True)
class _Summand:
    """A term, ready for all items: its verifier's answers by position, and itself as the reply writes it."""

    component: str
    answers: Mapping[int, Answered]
    field: bytes


def reply_to(
    request: reward_pb2.RewardServiceScoreBatchRequest,
    read: ReadRequest,
    told: Mapping[str, Told],
    states: Mapping[str, State],
    consensus: Consensus | None,
) -> reward_pb2.RewardServiceScoreBatchResponse:
    """The rewards, in order, and a report per verifier that was asked."""
    answers: dict[str, dict[int, Answered]] = {
        verifier: dict(zip(positions, told[verifier].answers, strict=True))
        for verifier, positions in read.positions.items()
    }
    if consensus is not None:
        answers[CONSENSUS] = _agreed(consensus, read, told, answers, with_evidence=not request.omit_evidence)
    summands = _summands(read, answers)
    values = [
        [
            one.answers[row].number(one.component) if one.component else one.answers[row].value
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
        lambda row, verifier: answers[verifier][row].outcome,
    )
    agreed = answers.get(CONSENSUS, {})
    fields = []
    for row, (message, item, terms, reward) in enumerate(
        zip(request.items, read.items, read.terms, weighed, strict=True)
    ):
        item_id = message.id.encode()
        name = name_field(item_id)
        parts = []
        for one, number, dropped in zip(summands[id(terms)], reward.contributions, reward.dropped_because, strict=True):
            answer = one.answers[row]
            parts.append(part_field(one.field, name, answer.message, number, dropped, answer.from_cache))
        consensual = name + agreed[row].message if row in agreed else None
        fields.append(
            reward_field(item_id, reward.reward, reward.unscorable_because, parts, item.task, item.answer, consensual)
        )
    response = reward_pb2.RewardServiceScoreBatchResponse.FromString(b"".join(fields))
    response.verifiers.extend(
        _report(verifier, read.positions[verifier], told[verifier], states[verifier]) for verifier in read.positions
    )
    lost = sum(
        is_lost_to_a_fault(
            read.terms[row] or (),
            values[row],
            {name for name, own in answers.items() if row in own and own[row].failed},
        )
        for row, reward in enumerate(weighed)
        if reward.reward is None
    )
    _count(weighed, lost, told)
    return response


def _summands(read: ReadRequest, answers: Mapping[str, Mapping[int, Answered]]) -> dict[int, list[_Summand]]:
    """For each combination of terms, by its identity: items share theirs, and to hash terms takes longer than to use
    them."""
    return {
        key: [_Summand(term.component, answers.get(term.verifier, {}), term_field(term)) for term in terms or ()]
        for key, terms in {id(terms): terms for terms in read.terms}.items()
    }


def _agreed(
    consensus: Consensus,
    read: ReadRequest,
    told: Mapping[str, Told],
    answers: Mapping[str, Mapping[int, Answered]],
    *,
    with_evidence: bool,
) -> dict[int, Answered]:
    """What the members of the consensus amount to together, for the items that all of them were asked about."""
    if not consensus.members.keys() <= answers.keys():
        return {}
    fingerprints = {verifier: said.fingerprint for verifier, said in told.items()}
    members = {name: answers[name] for name in consensus.members}
    agreed = {}
    for row, item in enumerate(read.items):
        if all(row in own for own in members.values()):
            outcomes = {name: own[row].outcome for name, own in members.items()}
            outcome = consensus.outcome(item.task, item.answer, outcomes, fingerprints, with_evidence=with_evidence)
            agreed[row] = answered(outcome_to_wire("", outcome))
    return agreed


def _report(verifier: str, positions: list[int], told: Told, state: State) -> reward_pb2.VerifierReport:
    kinds = Counter([answer.kind for answer in told.answers])
    first_failure = next((answer for answer in told.answers if answer.failed), None) if kinds["failure"] else None
    return reward_pb2.VerifierReport(
        verifier=verifier,
        fingerprint=told.fingerprint,
        items=len(positions),
        distinct=told.distinct,
        cache_hits=told.cache_hits,
        failed=kinds["failure"],
        not_applicable=kinds["not_applicable"],
        calls=told.usage.calls,
        wall_seconds=told.usage.wall_s,
        timing=verifier_pb2.Timing(queue_seconds=told.usage.queue_s, work_seconds=told.usage.work_s),
        first_failure=types_pb2.Outcome.FromString(first_failure.message).failure if first_failure else None,
        retries=told.usage.retries,
        hedges=told.usage.hedges,
        shared=told.usage.shared,
        waited_seconds=told.usage.waited_s,
        breaker=_BREAKER_STATES[state],
    )


def _count(weighed: Sequence[Weighed], lost: int, told: Mapping[str, Told]) -> None:
    """``lost``: rewards that there are not because of a fault."""
    unscorable = sum(reward.reward is None for reward in weighed)
    metrics.REWARDS.labels("rewarded", "").inc(len(weighed) - unscorable)
    metrics.REWARDS.labels("unscorable", "fact").inc(unscorable - lost)
    metrics.REWARDS.labels("unscorable", "fault").inc(lost)
    tracing.note(unscorable=unscorable, lost_to_faults=lost)
    for verifier, said in told.items():
        for kind, count in Counter([answer.kind for answer in said.answers]).items():
            # In the contract the fault is a noun; in every label it is "failed".
            metrics.OUTCOMES.labels(verifier, "failed" if kind == "failure" else kind).inc(count)
        metrics.VERIFIER_SECONDS.labels(verifier).observe(said.usage.wall_s, tracing.exemplar())
