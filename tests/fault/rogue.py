"""A verifier that lies: the real one's replies, spoilt on the way.

It passes every call on to the real verifier, so that it describes itself as that one does, and breaks a share of the
score replies in one of the ways that a bad deploy, a wrong build or a broken proxy does.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from bioverify.transport.channels import CHANNEL_OPTIONS
from bioverify.v1 import types_pb2, verifier_pb2, verifier_pb2_grpc
from tests.fixtures.servers import free_port

Reply = verifier_pb2.VerifierServiceScoreBatchResponse
_OVERSIZED_BYTES = 80 * 2**20
_UNKNOWN_FIELD = 99


def _scored(reply: Reply) -> types_pb2.Scored:
    """The first scored outcome; one that is made up where there is none."""
    return next((o.scored for o in reply.outcomes if o.HasField("scored")), reply.outcomes[0].scored)


def _wrong_ids(reply: Reply) -> None:
    reply.outcomes[0].item_id = "somebody-else"


def _swapped(reply: Reply) -> None:
    first, last = types_pb2.Outcome(), types_pb2.Outcome()
    first.CopyFrom(reply.outcomes[0])
    last.CopyFrom(reply.outcomes[-1])
    reply.outcomes[0].CopyFrom(last)
    reply.outcomes[-1].CopyFrom(first)
    if len(reply.outcomes) == 1:
        _wrong_ids(reply)


def _one_missing(reply: Reply) -> None:
    del reply.outcomes[-1]


def _one_too_many(reply: Reply) -> None:
    reply.outcomes.add().CopyFrom(reply.outcomes[0])


def _no_result(reply: Reply) -> None:
    reply.outcomes[0].ClearField("result")


def _nothing(reply: Reply) -> None:
    del reply.outcomes[:]


def _nan(reply: Reply) -> None:
    _scored(reply).value = math.nan


def _two(reply: Reply) -> None:
    _scored(reply).value = 2.0


def _nan_belief(reply: Reply) -> None:
    _scored(reply).belief = math.nan


def _nan_components(reply: Reply) -> None:
    for outcome in reply.outcomes:
        if outcome.HasField("scored"):
            for name in list(outcome.scored.components) or ["made_up"]:
                outcome.scored.components[name] = math.nan


def _infinite_components(reply: Reply) -> None:
    for outcome in reply.outcomes:
        if outcome.HasField("scored"):
            for name in list(outcome.scored.components) or ["made_up"]:
                outcome.scored.components[name] = math.inf


def _oversized(reply: Reply) -> None:
    _scored(reply).evidence.add().text = "x" * _OVERSIZED_BYTES


LIES: dict[str, Callable[[Reply], None]] = {
    lie.__name__.strip("_"): lie
    for lie in (
        _wrong_ids,
        _swapped,
        _one_missing,
        _one_too_many,
        _no_result,
        _nothing,
        _nan,
        _two,
        _nan_belief,
        _nan_components,
        _infinite_components,
        _oversized,
    )
}


class RogueVerifier(verifier_pb2_grpc.VerifierServiceServicer):
    """``told``: how often it told which lie. ``is_newer``: it says that it reads a field that nobody here knows."""

    def __init__(self, honest: str, *, share: float, seed: int, is_newer: bool = False) -> None:
        self._stub = verifier_pb2_grpc.VerifierServiceStub(grpc.insecure_channel(honest, options=CHANNEL_OPTIONS))
        self._share = share
        self._random = random.Random(seed)
        self._is_newer = is_newer
        self.told: Counter[str] = Counter()
        self.described = 0

    def Describe(  # noqa: N802
        self, request: verifier_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> verifier_pb2.DescribeResponse:
        described = self._stub.Describe(request, timeout=5)
        self.described += 1
        if self._is_newer:
            # proto3 keeps numbers of an enumeration that it has no name for.
            described.reads.append(_UNKNOWN_FIELD)
        return described

    def ScoreBatch(  # noqa: N802
        self, request: verifier_pb2.VerifierServiceScoreBatchRequest, context: grpc.ServicerContext
    ) -> Reply:
        reply = self._stub.ScoreBatch(request, timeout=context.time_remaining())
        if self._share and (not self.told or self._random.random() < self._share):
            # Each lie is told before one is told again.
            fewest = min(self.told[lie] for lie in LIES)
            lie = self._random.choice([lie for lie in LIES if self.told[lie] == fewest])
            self.told[lie] += 1
            LIES[lie](reply)
        return reply


@contextlib.contextmanager
def rogue(honest: str, *, share: float, seed: int, is_newer: bool = False) -> Iterator[tuple[str, RogueVerifier]]:
    """Its target, and itself."""
    servicer = RogueVerifier(honest, share=share, seed=seed, is_newer=is_newer)
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    verifier_pb2_grpc.add_VerifierServiceServicer_to_server(servicer, server)
    target = f"127.0.0.1:{free_port()}"
    server.add_insecure_port(target)
    server.start()
    try:
        yield target, servicer
    finally:
        server.stop(0)
