"""From what the verifiers told to the reply: core composes the rewards, and every part says where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from bioverify.aggregator import metrics
from bioverify.aggregator.answers import Answered
from bioverify.aggregator.fanout import Told
from bioverify.aggregator.policy.breaker import State
from bioverify.aggregator.requests import ReadRequest
from bioverify.core.consensus import CONSENSUS, Consensus
from bioverify.core.outcomes import Failed, NotApplicable
from bioverify.core.rewards import Reward, Row, compose
from bioverify.core.verifier import Item
from bioverify.v1 import reward_pb2, verifier_pb2
from bioverify.wire.outcomes import failure_to_wire, outcome_to_wire
from bioverify.wire.rewards import term_to_wire
from bioverify.wire.tasks import answer_to_wire, task_to_wire

_BREAKER_STATES = {
    State.CLOSED: reward_pb2.BREAKER_STATE_CLOSED,
    State.OPEN: reward_pb2.BREAKER_STATE_OPEN,
    State.HALF_OPEN: reward_pb2.BREAKER_STATE_HALF_OPEN,
}


def reply_to(
    request: reward_pb2.RewardServiceScoreBatchRequest,
    read: ReadRequest,
    told: Mapping[str, Told],
    states: Mapping[str, State],
    consensus: Consensus | None,
) -> reward_pb2.RewardServiceScoreBatchResponse:
    """The rewards, in order, and a report per verifier that was asked."""
    by_item: list[dict[str, Answered]] = [{} for _ in read.items]
    for verifier, positions in read.positions.items():
        for position, answer in zip(positions, told[verifier].answers, strict=True):
            by_item[position][verifier] = answer
    if consensus is not None:
        fingerprints = {verifier: said.fingerprint for verifier, said in told.items()}
        for item, answers in zip(read.items, by_item, strict=True):
            if consensus.members.keys() <= answers.keys():
                answers[CONSENSUS] = _agreed(consensus, item, answers, fingerprints, not request.omit_evidence)
    rows = [
        Row(
            message.group_id,
            message.source,
            item.task.kind if item.task else None,
            {verifier: answer.outcome for verifier, answer in answers.items()},
        )
        for message, item, answers in zip(request.items, read.items, by_item, strict=True)
    ]
    rewards = compose(read.recipe, rows)

    # By identity: to hash a term anew for every part takes longer than to write the part.
    terms = {id(term): term_to_wire(term) for term in read.recipe.all_terms}
    response = reward_pb2.RewardServiceScoreBatchResponse(
        verifiers=[
            _report(verifier, read.positions[verifier], told[verifier], states[verifier]) for verifier in read.positions
        ]
    )
    for message, item, answers, reward in zip(request.items, read.items, by_item, rewards, strict=True):
        item_id = message.id
        rewarded = response.rewards.add(
            item_id=item_id,
            reward=reward.reward,
            unscorable_because=reward.unscorable_because,
            task=None if item.task is None else task_to_wire(item.task),
            answer=None if item.answer is None else answer_to_wire(item.answer),
        )
        if CONSENSUS in answers:
            rewarded.consensus.CopyFrom(answers[CONSENSUS].message)
            rewarded.consensus.item_id = item_id
        for part in reward.parts:
            answer = answers[part.term.verifier]
            # Field by field: by the constructor it takes half as long again.
            written = rewarded.parts.add()
            written.term.CopyFrom(terms[id(part.term)])
            outcome = written.outcome
            outcome.CopyFrom(answer.message)
            outcome.item_id = item_id
            if part.contribution is not None:
                written.contribution = part.contribution
            if part.dropped_because:
                written.dropped_because = part.dropped_because
            if answer.from_cache:
                written.from_cache = True
    _count(read, rewards, told)
    return response


def _agreed(
    consensus: Consensus,
    item: Item,
    answers: Mapping[str, Answered],
    fingerprints: Mapping[str, str],
    with_evidence: bool,
) -> Answered:
    told = {name: answers[name].outcome for name in consensus.members}
    outcome = consensus.outcome(item.task, item.answer, told, fingerprints, with_evidence=with_evidence)
    return Answered(outcome, outcome_to_wire("", outcome))


def _report(verifier: str, positions: list[int], told: Told, state: State) -> reward_pb2.VerifierReport:
    failures = [answer.outcome for answer in told.answers if isinstance(answer.outcome, Failed)]
    return reward_pb2.VerifierReport(
        verifier=verifier,
        fingerprint=told.fingerprint,
        items=len(positions),
        distinct=told.distinct,
        cache_hits=told.cache_hits,
        failed=len(failures),
        not_applicable=sum(isinstance(answer.outcome, NotApplicable) for answer in told.answers),
        calls=told.usage.calls,
        wall_seconds=told.usage.wall_s,
        timing=verifier_pb2.Timing(queue_seconds=told.usage.queue_s, work_seconds=told.usage.work_s),
        first_failure=failure_to_wire(failures[0]) if failures else None,
        retries=told.usage.retries,
        hedges=told.usage.hedges,
        shared=told.usage.shared,
        waited_seconds=told.usage.waited_s,
        breaker=_BREAKER_STATES[state],
    )


def _count(read: ReadRequest, rewards: list[Reward], told: Mapping[str, Told]) -> None:
    unscorable = sum(reward.reward is None for reward in rewards)
    metrics.REWARDS.labels("rewarded").inc(len(rewards) - unscorable)
    metrics.REWARDS.labels("unscorable").inc(unscorable)
    for verifier, said in told.items():
        for kind, count in Counter(answer.message.WhichOneof("result") for answer in said.answers).items():
            metrics.OUTCOMES.labels(verifier, kind).inc(count)
        metrics.VERIFIER_SECONDS.labels(verifier).observe(said.usage.wall_s)
