"""What a verifier said to one question: as core composes it, and as it goes on the wire."""

from __future__ import annotations

from dataclasses import dataclass

from bioverify.core.outcomes import Failed, Outcome
from bioverify.v1 import types_pb2
from bioverify.wire.outcomes import outcome_from_wire, outcome_to_wire


@dataclass(frozen=True, slots=True)
class Answered:
    """``message`` names no item: one answer may serve many."""

    outcome: Outcome
    message: types_pb2.Outcome
    from_cache: bool = False

    @property
    def failed(self) -> bool:
        return isinstance(self.outcome, Failed)


def answered(message: types_pb2.Outcome, *, from_cache: bool = False) -> Answered:
    """Takes the message over. Raises ValueError where it holds no outcome, or a value outside [0, 1]."""
    outcome = outcome_from_wire(message)
    message.item_id = ""
    return Answered(outcome, message, from_cache)


def failure(reason: str, detail: str, *, retryable: bool = True) -> Answered:
    outcome = Failed(reason, detail, retryable)
    return Answered(outcome, outcome_to_wire("", outcome))


def strip_evidence(message: types_pb2.Outcome) -> None:
    """Leave the outcome without its evidence, as it comes to callers who asked for none."""
    if message.HasField("scored"):
        message.scored.ClearField("evidence")
