"""What a verifier holds to be true of one item: a score, nothing to say, or a fault. A fault is never a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SIMULATED_REMARK = "simulated screen, not an experiment"
"""What every sentence of evidence from a generator says."""
BASE_RATE = "base_rate"
"""The component that is 1 if a belief rests on no training row of the gene asked about."""


class Verdict(StrEnum):
    """What the sources hold of one statement."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNSUPPORTED = "unsupported"
    """Not known to our sources, which are not complete."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A statement of the completion as it is scored: its first character, the one behind its last, and its verdict."""

    start: int
    end: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Evidence:
    """One sentence that a person can read, where it comes from, and whether the measurement is simulated.

    ``quote``: what of the completion it judges, if it judges a piece of it.
    """

    text: str
    source: str = ""
    simulated: bool = False
    quote: Quote | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """``value`` and ``belief`` in [0, 1]; belief is P("yes") or P("increase"), whatever the answer was.

    ``components`` are finite numbers, each in the unit that its verifier's description names.
    """

    value: float
    components: Mapping[str, float] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    belief: float | None = None

    def __post_init__(self) -> None:
        # NaN fails both comparisons' negation, so it is refused as well.
        if not 0.0 <= self.value <= 1.0 or (self.belief is not None and not 0.0 <= self.belief <= 1.0):
            raise ValueError(f"a score lies in [0, 1], not value={self.value!r}, belief={self.belief!r}")
        # A component may be a term of the reward, where NaN would spread to the whole group.
        if not all(map(math.isfinite, self.components.values())):
            raise ValueError(f"components are finite numbers, not {dict(self.components)}")


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A permanent fact of the artifact: gene unknown, pair not measured. ``reason`` is a stable word."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A fault: no statement about the item. ``reason`` is a stable word; never cached."""

    reason: str
    detail: str
    retryable: bool


Outcome = Scored | NotApplicable | Failed
