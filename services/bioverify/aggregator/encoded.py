"""What a verifier said to one question, carried from the verifier or the cache to the reply as the bytes that came.

Hardly anything in an outcome is looked at on the way: rewards need its value or a component, the consensus its belief.
So value and belief are read once, when an outcome arrives and is checked, and travel beside the message; the rest stays
bytes, which the reply repeats as they are.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from bioverify.core.outcomes import Failed, Outcome
from bioverify.v1 import types_pb2
from bioverify.wire.outcomes import (
    MAX_EVIDENCE,
    MAX_OUTCOME_BYTES,
    bound_outcome,
    outcome_from_wire,
    outcome_to_wire,
)

Kind = Literal["scored", "not_applicable", "failure"]


class EncodedOutcome(NamedTuple):
    """``message``: the contract's Outcome without an item's name, because one may serve many items.

    ``value``: None unless ``kind`` is scored. ``belief``: None if there is none. (A tuple, because five are made for
    every completion and no other immutable value is made as fast.)
    """

    kind: Kind
    message: bytes
    value: float | None = None
    belief: float | None = None
    from_cache: bool = False

    @property
    def failed(self) -> bool:
        return self.kind == "failure"

    @property
    def outcome(self) -> Outcome:
        """All of it, as core sees it. Read again at each call."""
        return outcome_from_wire(types_pb2.Outcome.FromString(self.message))

    def number(self, component: str) -> float | None:
        """The value, or the component of this name; None if there is no such number."""
        if not component or self.value is None:
            return self.value
        return types_pb2.Outcome.FromString(self.message).scored.components.get(component)


def read_numbers(message: types_pb2.Outcome) -> tuple[Kind, float | None, float | None]:
    """Kind, value and belief. Raises ValueError if the message holds no outcome, a value outside [0, 1] or a component
    that is not finite: the rules of `core.outcomes.Scored`, without making one.
    """
    kind = message.WhichOneof("result")
    if kind is None:
        raise ValueError(f"the outcome of item {message.item_id!r} holds no result")
    if kind != "scored":
        return kind, None, None
    scored = message.scored
    value = scored.value
    belief = scored.belief if scored.HasField("belief") else None
    # NaN fails both comparisons' negation, so it is refused as well.
    if not 0.0 <= value <= 1.0 or (belief is not None and not 0.0 <= belief <= 1.0):
        raise ValueError(f"a score lies in [0, 1], not value={value!r}, belief={belief!r}")
    components = scored.components
    # Of the ways to go through a map this is the fastest. A component may be a term, where NaN would spread to a group.
    if not all([math.isfinite(components[name]) for name in components]):  # noqa: C419
        raise ValueError(f"components are finite numbers, not {dict(components)}")
    return kind, value, belief


def encode_outcome(message: types_pb2.Outcome) -> EncodedOutcome:
    """Takes the message over, and cuts texts that are too long. Raises ValueError as `read_numbers` does, or if there
    are too many components (`bound_outcome`).
    """
    kind, value, belief = read_numbers(message)
    message.ClearField("item_id")
    return EncodedOutcome(kind, _bounded(message), value, belief)


def _bounded(message: types_pb2.Outcome) -> bytes:
    encoded = message.SerializeToString()
    if len(encoded) <= MAX_OUTCOME_BYTES and len(message.scored.evidence) <= MAX_EVIDENCE:
        return encoded
    bound_outcome(message)
    return message.SerializeToString()


def failure(reason: str, detail: str, *, retryable: bool = True) -> EncodedOutcome:
    return encode_outcome(outcome_to_wire("", Failed(reason, detail, retryable)))


def strip_evidence(message: types_pb2.Outcome) -> None:
    if message.HasField("scored"):
        message.scored.ClearField("evidence")
