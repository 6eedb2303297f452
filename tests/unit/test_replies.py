"""A reply is written as bytes and composed on numbers; here it is held to messages filled field by field."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from bioverify.aggregator.cache import pack, unpack
from bioverify.aggregator.composing import reply_to
from bioverify.aggregator.encoded import encode_outcome
from bioverify.aggregator.fanout import VerifierReply
from bioverify.aggregator.policy.breaker import State
from bioverify.aggregator.reading import read_request
from bioverify.aggregator.replica import Usage
from bioverify.core.answers import AnswerProblem
from bioverify.core.consensus import Consensus, Stack
from bioverify.core.outcomes import Evidence, Failed, NotApplicable, Outcome, Scored
from bioverify.core.recipes import Recipe, Requirement, Source, Term
from bioverify.core.rewards import Row, compose
from bioverify.core.tasks import DifferentialExpression, GeneAnnotation, TaskKind
from bioverify.v1 import reward_pb2, types_pb2
from bioverify.wire.outcomes import outcome_from_wire, outcome_to_wire
from bioverify.wire.rewards import term_to_wire
from bioverify.wire.tasks import answer_to_wire, task_to_wire

SHARES = st.floats(0, 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
SCORED = st.builds(
    Scored,
    SHARES,
    st.dictionaries(st.sampled_from(["C", "mention", "ü"]), NUMBERS),
    st.lists(st.builds(Evidence, TEXTS, TEXTS, st.booleans()), max_size=2).map(tuple),
    st.none() | SHARES,
)
OUTCOMES = SCORED | st.builds(NotApplicable, TEXTS, TEXTS) | st.builds(Failed, TEXTS, TEXTS, st.booleans())
TERMS = [
    Term(verifier="a", weight=2.0, requirement=Requirement.REQUIRED),
    Term(verifier="a", component="C", weight=-0.5, requirement=Requirement.OPTIONAL),
    Term(verifier="b", weight=1.0, requirement=Requirement.OPTIONAL),
]
RECIPE = Recipe(
    name="r",
    sources=(
        Source(name="de", share=0.5, task_kind=TaskKind.DIFFERENTIAL_EXPRESSION, terms=tuple(TERMS)),
        Source(name="go", share=0.5, task_kind=TaskKind.GENE_ANNOTATION, terms=(TERMS[1],)),
    ),
)
TASKS = st.sampled_from([None, DifferentialExpression("A", "B", "k562"), GeneAnnotation(("A",))])
ANSWERS = st.booleans() | st.sampled_from(AnswerProblem)
# A name of two bytes and one of more than a length of one byte can say.
GROUPS = st.sampled_from(["", "g", "ü", "g" * 250])
THOUGHTS = {
    "<think>So.</think> <answer>yes</answer>": types_pb2.THOUGHT_PROBLEM_UNSPECIFIED,
    "<answer>yes</answer>": types_pb2.THOUGHT_PROBLEM_NO_THOUGHT,
    "<think>So, and": types_pb2.THOUGHT_PROBLEM_THOUGHT_NOT_CLOSED,
}
ROWS = st.lists(
    st.tuples(GROUPS, TASKS, ANSWERS, OUTCOMES, OUTCOMES, st.booleans(), st.sampled_from(list(THOUGHTS))), max_size=8
)


def messages_filled_field_by_field(request, read, replies) -> list[reward_pb2.Reward]:
    by_row = [{} for _ in read.items]
    for verifier, positions in read.positions.items():
        for position, outcome in zip(positions, replies[verifier].outcomes, strict=True):
            by_row[position][verifier] = outcome
    rows = [
        Row(
            message.group_id,
            message.source,
            item.task.kind if item.task else None,
            {k: a.outcome for k, a in own.items()},
        )
        for message, item, own in zip(request.items, read.items, by_row, strict=True)
    ]
    rewards = []
    for message, item, own, reward in zip(request.items, read.items, by_row, compose(RECIPE, rows), strict=True):
        written = reward_pb2.Reward(
            item_id=message.id,
            reward=reward.reward,
            unscorable_because=reward.unscorable_because,
            task=None if item.task is None else task_to_wire(item.task),
            answer=None if item.answer is None else answer_to_wire(item.answer),
            unread_question=(
                types_pb2.UNREAD_REASON_NOTHING_ASKED if item.task is None else types_pb2.UNREAD_REASON_UNSPECIFIED
            ),
            thought_problem=THOUGHTS[message.completion],
        )
        for part in reward.parts:
            written.parts.add(
                term=term_to_wire(part.term),
                outcome=outcome_to_wire(message.id, part.outcome),
                contribution=part.contribution,
                dropped_because=part.dropped_because,
                from_cache=own[part.term.verifier].from_cache,
            )
        rewards.append(written)
    return rewards


@given(ROWS)
def test_a_reply_says_what_messages_filled_field_by_field_say(rows) -> None:
    request = reward_pb2.RewardServiceScoreBatchRequest()
    for number, (group, task, answer, *_) in enumerate(rows):
        one = request.items.add(id=f"{group}-{number}", group_id=group, completion=rows[number][6])
        if task is not None:
            one.task.CopyFrom(task_to_wire(task))
        one.answer.CopyFrom(answer_to_wire(answer))
    read = read_request(request, RECIPE, (), ())
    replies = {}
    for at, verifier in enumerate(("a", "b")):
        positions = read.positions.get(verifier, [])
        answers = [
            encode_outcome(outcome_to_wire("", rows[n][3 + at]))._replace(from_cache=rows[n][5]) for n in positions
        ]
        replies[verifier] = VerifierReply(answers)
    reply = reply_to(request, read, replies, dict.fromkeys(replies, State.CLOSED), None)
    assert list(reply.rewards) == messages_filled_field_by_field(request, read, replies)


@given(OUTCOMES, st.sampled_from(["", "C", "mention", "none"]))
def test_what_is_kept_as_bytes_gives_the_numbers_of_the_outcome(outcome: Outcome, component: str) -> None:
    kept = encode_outcome(outcome_to_wire("an item", outcome))
    assert kept.outcome == outcome
    assert kept.failed == isinstance(outcome, Failed)
    assert (kept.value, kept.belief) == (
        (outcome.value, outcome.belief) if isinstance(outcome, Scored) else (None, None)
    )
    expected = None
    if isinstance(outcome, Scored):
        expected = outcome.components.get(component) if component else outcome.value
    assert kept.number(component) == expected


@given(OUTCOMES, st.booleans(), st.booleans())
def test_what_comes_out_of_the_cache_is_what_went_in(outcome: Outcome, kept_evidence: bool, wanted: bool) -> None:
    answer = encode_outcome(outcome_to_wire("", outcome))
    if answer.failed:
        return
    found = unpack(b"key", pack(b"key", answer, with_evidence=kept_evidence), with_evidence=wanted)
    if wanted and not kept_evidence:
        assert found is None
    else:
        assert found is not None
        assert found.from_cache
        bare = outcome
        if isinstance(outcome, Scored) and kept_evidence and not wanted:
            bare = Scored(outcome.value, outcome.components, (), outcome.belief)
        assert found.outcome == bare
        assert found[2:4] == answer[2:4]


@given(st.floats(), st.none() | st.floats(), st.dictionaries(st.sampled_from("CF"), st.floats()))
def test_a_reply_is_refused_exactly_where_its_numbers_are_no_score(value, belief, components) -> None:
    message = types_pb2.Outcome(scored=types_pb2.Scored(value=value, belief=belief, components=components))
    is_score = 0 <= value <= 1 and (belief is None or 0 <= belief <= 1) and all(map(math.isfinite, components.values()))
    if is_score:
        assert encode_outcome(message).outcome == outcome_from_wire(message)
    else:
        with pytest.raises(ValueError, match=r"score lies in|finite"):
            encode_outcome(message)


def test_an_outcome_without_a_result_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no result"):
        encode_outcome(types_pb2.Outcome(item_id="a"))


OF_TWO = Consensus(
    members={"a": "1", "b": "1"},
    stacks=(
        Stack(cell_line="k562", task_kind=TaskKind.DIFFERENTIAL_EXPRESSION, weights={"a": 1.0, "b": 1.0}, offset=0.0),
    ),
)
MIXED = Recipe(
    name="mixed",
    sources=(
        Source(
            name="both",
            share=0.5,
            task_kind=TaskKind.DIFFERENTIAL_EXPRESSION,
            terms=(Term(verifier="consensus", weight=2.0, requirement=Requirement.REQUIRED),),
        ),
        Source(name="one", share=0.5, task_kind=TaskKind.DIFFERENTIAL_EXPRESSION, terms=(TERMS[0],)),
    ),
)


def replied(
    *outcomes: Outcome, consensus: Consensus | None = OF_TWO, fingerprint: str = "1", omit_evidence: bool = False
) -> reward_pb2.RewardServiceScoreBatchResponse:
    """Two items, of which the second is b's business neither; ``outcomes``: a's of both, and b's of the first."""
    request = reward_pb2.RewardServiceScoreBatchRequest(omit_evidence=omit_evidence)
    for source in ("both", "one"):
        one = request.items.add(id=source, source=source)
        one.task.CopyFrom(task_to_wire(DifferentialExpression("A", "B", "k562")))
        one.answer.CopyFrom(answer_to_wire(True))
    read = read_request(request, MIXED, ("a", "b"), ())
    assert read.positions == {"a": [0, 1], "b": [0]}
    a1, a2, b1 = (encode_outcome(outcome_to_wire("", one)) for one in outcomes)
    replies = {
        "a": VerifierReply(
            [a1._replace(from_cache=True), a2],
            [b"1", b"2"],
            [b"2"],
            "1",
            Usage(calls=3, retries=1, hedges=2, started=1.0, ended=1.5),
        ),
        "b": VerifierReply([b1], [b"1"], fingerprint=fingerprint, usage=Usage(waited_s=0.25, queue_s=0.5, work_s=0.75)),
    }
    return reply_to(request, read, replies, {"a": State.HALF_OPEN, "b": State.OPEN}, consensus)


def test_the_consensus_is_told_of_what_all_its_members_were_asked_about_and_of_nothing_else() -> None:
    both, one = replied(Scored(0.5, belief=0.5), Scored(0.25, belief=0.25), Scored(0.8, belief=0.8)).rewards
    assert both.consensus.item_id == "both"
    assert both.consensus.scored.belief == both.consensus.scored.value == pytest.approx(0.8)
    assert len(both.consensus.scored.evidence) == 1
    assert (both.reward, both.parts[0].contribution) == (pytest.approx(1.6), pytest.approx(1.6))
    assert not one.HasField("consensus")
    assert one.reward == 0.5
    bare = replied(*[Scored(0.5, belief=0.5)] * 3, omit_evidence=True).rewards[0]
    assert not bare.consensus.scored.evidence


def test_a_member_of_another_version_costs_the_consensus_its_number() -> None:
    both, one = replied(*[Scored(0.5, belief=0.5)] * 3, fingerprint="2").rewards
    assert both.consensus.failure.reason == "outdated_weights"
    assert not both.HasField("reward")
    assert both.unscorable_because == "consensus failed: outdated_weights"
    assert one.HasField("reward")


def test_a_report_says_what_each_verifier_cost_and_its_first_fault() -> None:
    fault = Failed("away", "Gone.", True)
    a, b = replied(NotApplicable("unknown_gene", ""), fault, Scored(0.5, belief=0.5)).verifiers
    assert (a.verifier, a.fingerprint, a.items, a.distinct, a.cache_hits) == ("a", "1", 2, 2, 1)
    assert (a.failed, a.not_applicable, a.first_failure.reason, a.first_failure.detail) == (1, 1, "away", "Gone.")
    assert (a.calls, a.retries, a.hedges, a.shared, a.wall_seconds) == (3, 1, 2, 1, 0.5)
    assert (a.breaker, b.breaker) == (reward_pb2.BREAKER_STATE_HALF_OPEN, reward_pb2.BREAKER_STATE_OPEN)
    assert (b.items, b.failed, b.not_applicable, b.HasField("first_failure")) == (1, 0, 0, False)
    assert (b.waited_seconds, b.timing.queue_seconds, b.timing.work_seconds, b.wall_seconds) == (0.25, 0.5, 0.75, 0.0)


def test_rewards_and_outcomes_are_counted_and_faults_apart_from_facts() -> None:
    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"bioverify_{name}_total", labels) or 0.0

    kinds = [("rewarded", ""), ("unscorable", "fact"), ("unscorable", "fault")]

    def figures() -> list[float]:
        rewards = [counted("rewards", result=result, cause=cause) for result, cause in kinds]
        said = [
            counted("aggregator_outcomes", verifier="a", outcome=kind)
            for kind in ("scored", "not_applicable", "failed")
        ]
        return [*rewards, *said]

    for outcomes, grown in (
        ([Scored(0.5, belief=0.5)] * 3, [2, 0, 0, 2, 0, 0]),
        ([NotApplicable("x", ""), Scored(0.5), Scored(0.5, belief=0.5)], [1, 1, 0, 1, 1, 0]),
        ([Failed("x", "", True), Failed("x", "", True), Scored(0.5, belief=0.5)], [0, 0, 2, 0, 0, 2]),
    ):
        before = figures()
        replied(*outcomes)
        assert [now - then for now, then in zip(figures(), before, strict=True)] == grown
