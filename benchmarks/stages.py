"""Where the CPU time of a completion goes, stage by stage, from the client's items to the client's rewards.

All stages of a 256-item call run in this one process, in order, each on what the one before made; nothing waits.
"""

from __future__ import annotations

from typing import Any

from benchmarks.items import Questions
from benchmarks.measuring import cpu_us
from benchmarks.rivals import RECIPE
from bioverify.aggregator import cache, keys, replies, requests, upstream
from bioverify.aggregator.fanout import Told
from bioverify.aggregator.policy.breaker import State
from bioverify.client import messages
from bioverify.core.verifier import Verifier
from bioverify.runtime.validation import check_items
from bioverify.runtime.verifier_service import score_request
from bioverify.v1 import reward_pb2, verifier_pb2

N = 256
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
    [(_, wire_items)] = requests_cut = timed("client: items to messages", lambda: messages.cut(items))
    sent = timed(
        "client: request to bytes",
        lambda: messages.score_request(wire_items, RECIPE, with_evidence=False).SerializeToString(),
    )
    request = timed("aggregator: bytes to request", lambda: RewardRequest.FromString(sent))
    timed("aggregator: contract's rules", lambda: check_items(request, request.items, 4096))
    read = timed("aggregator: read task and answer", lambda: requests.read_request(request, recipe, ()))
    told = {}
    for name, verifier in verifiers.items():
        own = [read.items[position] for position in read.positions[name]]
        reads, fingerprint = verifier.description.reads, verifier.description.fingerprint

        def keyed(own: Any = own, reads: Any = reads, name: str = name, fingerprint: str = fingerprint) -> Any:
            questions_of = [keys.question_of(item, reads) for item in own]
            return questions_of, {one: keys.cache_key(name, fingerprint, one) for one in set(questions_of)}

        asked, key_of = timed("aggregator: cache keys", keyed)
        first_with = dict(reversed(list(zip(asked, own, strict=True))))

        def to_send(first_with: Any = first_with, reads: Any = reads) -> Any:
            return ScoreRequest(
                items=[keys.item_for_verifier(at, item, reads) for at, item in enumerate(first_with.values())],
                parse_mode=1,
                omit_evidence=True,
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
        said = dict(zip(first_with, answers, strict=True))

        def packed(said: Any = said, key_of: Any = key_of) -> Any:
            return {key_of[one]: cache.pack(key_of[one], answer, with_evidence=False) for one, answer in said.items()}

        values = timed("aggregator: values for the cache", packed)
        timed(
            "aggregator: values from the cache (warm)",
            lambda: [cache.unpack(key, value, with_evidence=False) for key, value in values.items()],  # noqa: B023
        )
        told[name] = Told([said[one] for one in asked], len(said))
    states = dict.fromkeys(told, State.CLOSED)
    composed = timed("aggregator: compose and write", lambda: replies.reply_to(request, read, told, states, None))
    returned = timed("aggregator: reply to bytes", composed.SerializeToString)
    answered = timed("client: bytes to reply", lambda: RewardReply.FromString(returned))
    timed("client: reply to values", lambda: messages.assemble(items, requests_cut, [answered], 0.0))
    return table
