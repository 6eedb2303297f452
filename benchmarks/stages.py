"""Where the CPU time of a completion goes, stage by stage, from the client's items to the client's rewards.

All stages of a 256-item call run in this one process, in order, each on what the one before made; nothing waits.
"""

from __future__ import annotations

from typing import Any

from benchmarks.items import Questions
from benchmarks.measuring import cpu_us
from benchmarks.rivals import RECIPE
from bioverify.aggregator import cache, composing, reading, upstream
from bioverify.aggregator import questions as asked_questions
from bioverify.aggregator.fanout import VerifierReply
from bioverify.aggregator.policy.breaker import State
from bioverify.client import messages
from bioverify.core.verifier import Reads, Verifier
from bioverify.runtime.validation import check_items
from bioverify.runtime.verifier_service import score_request
from bioverify.v1 import reward_pb2, types_pb2, verifier_pb2

N = 256
# A reward's parts are read when they are asked for. The stage that makes the values was one with this before.
PARTS_STAGE = "client: parts, if they are asked for"
RewardRequest = reward_pb2.RewardServiceScoreBatchRequest
RewardReply = reward_pb2.RewardServiceScoreBatchResponse
ScoreRequest = verifier_pb2.VerifierServiceScoreBatchRequest
ScoreReply = verifier_pb2.VerifierServiceScoreBatchResponse


def stage_table(questions: Questions, verifiers: dict[str, Verifier]) -> dict[str, float]:
    """Stage → microseconds of CPU per completion. Those of verifiers are divided by all completions of the call."""
    table: dict[str, float] = {}

    def timed(stage: str, work: Any) -> Any:
        table[stage] = round(table.get(stage, 0.0) + cpu_us(N, work, 7), 2)
        return work()

    items = questions.draw(N, seed=2000)
    recipe = RECIPE
    [(_, wire_items)] = requests_cut = timed(
        "client: items to messages",
        lambda: messages.cut(items, max_items=messages.MAX_ITEMS, max_bytes=messages.MAX_BYTES),
    )
    sent = timed(
        "client: request to bytes",
        lambda: messages.score_request(wire_items, RECIPE, with_evidence=False).SerializeToString(),
    )
    request = timed("aggregator: bytes to request", lambda: RewardRequest.FromString(sent))
    timed("aggregator: contract's rules", lambda: check_items(request, request.items, 4096))
    every_reads = {verifier.description.reads for verifier in verifiers.values()}
    read = timed("aggregator: read task and answer", lambda: reading.read_request(request, recipe, (), ()))
    timed("aggregator: cache keys", lambda: _hashed(read, every_reads))
    timed("aggregator: questions to bytes", lambda: _written(read, every_reads))
    verifier_replies = {}
    for name, verifier in verifiers.items():
        positions = read.positions[name]
        reads, fingerprint = verifier.description.reads, verifier.description.fingerprint

        def keyed(reads: Any = reads, name: str = name, fingerprint: str = fingerprint) -> Any:
            return [asked_questions.cache_key(name, fingerprint, one) for one in read.questions.hashes(reads)]

        asked = timed("aggregator: cache keys", keyed)
        asked_by = dict(zip(asked, positions, strict=True))

        def to_send(asked_by: Any = asked_by, reads: Any = reads) -> Any:
            messages = read.questions.messages(asked_by.values(), reads)
            return ScoreRequest(
                items=messages, parse_mode=types_pb2.PARSE_MODE_WHOLE_WORDS, omit_evidence=True
            ).SerializeToString()

        bytes_sent = timed("aggregator: questions to bytes", to_send)
        message = ScoreRequest.FromString(bytes_sent)
        timed("verifiers: bytes, contract's rules", lambda: check_items(ScoreRequest.FromString(bytes_sent), (), 4096))  # noqa: B023
        outcomes = timed(
            f"verifiers: {name}",
            lambda: score_request(verifier, verifier.description, message),  # noqa: B023
        )
        reply = timed("verifiers: reply to bytes", lambda: ScoreReply(outcomes=outcomes).SerializeToString())  # noqa: B023
        answers = timed("aggregator: replies checked", lambda: upstream._checked(message, ScoreReply.FromString(reply)))  # noqa: B023, SLF001
        said = dict(zip(asked_by, answers, strict=True))

        def packed(said: Any = said) -> Any:
            return {key: cache.pack(key, answer, with_evidence=False) for key, answer in said.items()}

        values = timed("aggregator: values for the cache", packed)
        timed(
            "aggregator: values from the cache (warm)",
            lambda: [cache.unpack(key, value, with_evidence=False) for key, value in values.items()],  # noqa: B023
        )
        verifier_replies[name] = VerifierReply([said[one] for one in asked], asked)
    states = dict.fromkeys(verifier_replies, State.CLOSED)
    composed = timed(
        "aggregator: compose and write", lambda: composing.reply_to(request, read, verifier_replies, states, None)
    )
    returned = timed("aggregator: reply to bytes", composed.SerializeToString)
    answered = timed("client: bytes to reply", lambda: RewardReply.FromString(returned))
    timed("client: reply to values", lambda: messages.assemble(items, requests_cut, [answered], 0.0, ""))
    timed(PARTS_STAGE, lambda: [messages.item_reward(reward).parts for reward in answered.rewards])
    return table


def _hashed(read: reading.ReadRequest, every_reads: set[Reads]) -> None:
    questions = asked_questions.Questions(read.items, read.recipe.parse_mode)
    for reads in every_reads:
        questions.hashes(reads)


def _written(read: reading.ReadRequest, every_reads: set[Reads]) -> None:
    questions = asked_questions.Questions(read.items, read.recipe.parse_mode)
    for reads in every_reads:
        questions.messages(range(len(read.items)), reads)
