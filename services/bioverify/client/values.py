"""What goes into a client and what comes out of it: plain values, in core's types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self

from bioverify.core.answers import Answer
from bioverify.core.completions import PromptForm
from bioverify.core.outcomes import Failed, Outcome
from bioverify.core.recipes import Term
from bioverify.core.tasks import Task, TaskKind
from bioverify.core.verifier import ArtifactIdentity, Reads

Progress = Callable[[int, int], None]
"""Hears how many items are dealt with, and of how many."""


class ArrowStream(Protocol):
    """A table of any library that speaks Arrow's PyCapsule interface: pandas, polars, pyarrow, duckdb, datasets."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the prompt. ``role``: "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """One completion to be scored.

    ``id``: unique within a call, not empty. ``task`` may be left out where the prompt asks a question of a known form.
    ``group_id``: items that are compared with each other (a GRPO group); empty: a group of its own. ``source``: the
    recipe's source that the prompt was drawn from. ``prompt_form``: read off the system turn where left out.
    """

    id: str
    completion: str
    prompt: Sequence[Message] = ()
    task: Task | None = None
    group_id: str = ""
    source: str = ""
    prompt_form: PromptForm | None = None


@dataclass(frozen=True, slots=True)
class RewardPart:
    """One summand of a reward: ``contribution`` is weight × value, or None with the reason in ``dropped_because``."""

    term: Term
    outcome: Outcome
    contribution: float | None
    dropped_because: str
    from_cache: bool


class _Unread:
    """Where a reward keeps what it was not asked for yet; no field of it."""

    __slots__ = ("_rest",)


@dataclass(frozen=True, slots=True)
class ItemReward(_Unread):
    """``reward`` is None where the item is unscorable, which is not a zero. ``parts`` in the recipe's order.

    ``consensus``: what the beliefs of several verifiers amount to together; None where there is no such thing.
    ``is_lost``: the request that held the item brought nothing, so nothing is known about it.
    """

    id: str
    reward: float | None
    unscorable_because: str
    parts: tuple[RewardPart, ...]
    task: Task | None
    answer: Answer | None
    consensus: Outcome | None = None
    is_lost: bool = False

    @classmethod
    def received(
        cls,
        item_id: str,
        reward: float | None,
        unscorable_because: str,
        rest: Callable[[], tuple[tuple[RewardPart, ...], Task | None, Answer | None, Outcome | None]],
    ) -> Self:
        """A reward whose other fields are read by ``rest`` when one of them is first asked for.

        To read them takes nine tenths of the time of a reply, and a trainer may want the reward alone.
        """
        one = object.__new__(cls)
        for name, value in (
            ("id", item_id),
            ("reward", reward),
            ("unscorable_because", unscorable_because),
            ("is_lost", False),
        ):
            object.__setattr__(one, name, value)
        object.__setattr__(one, "_rest", rest)
        return one

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            # Python asks this where a slot is still empty.
            if name not in _READ_LATER:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            # None where another thread has just read it; then the slots are full.
            if (rest := self._rest) is not None:
                for field, value in zip(_READ_LATER, rest(), strict=True):
                    object.__setattr__(self, field, value)
                object.__setattr__(self, "_rest", None)
            return object.__getattribute__(self, name)


_READ_LATER = ("parts", "task", "answer", "consensus")


@dataclass(frozen=True, slots=True)
class VerifierReport:
    """How one verifier fared in a call.

    ``items``: items that its terms applied to; ``distinct``: different questions among them; ``cache_hits``: of these,
    answered by the cache; ``failed`` and ``not_applicable``: items. ``wall_s``: seconds from the first call to the
    last reply; ``queue_s`` and ``work_s``: the verifier's own account, summed over its calls.

    ``calls``: attempts, of which ``retries`` followed an unavailable verifier and ``hedges`` a slow one; ``shared``:
    different questions answered by a call that another request had under way; ``waited_s``: seconds that calls waited
    in the aggregator, summed. ``breaker``: "open" where the verifier is not asked for now, "half_open" where it is
    tried, else "closed".
    """

    verifier: str
    fingerprint: str
    items: int
    distinct: int
    cache_hits: int
    failed: int
    not_applicable: int
    calls: int
    wall_s: float
    queue_s: float
    work_s: float
    first_failure: Failed | None
    retries: int = 0
    hedges: int = 0
    shared: int = 0
    waited_s: float = 0.0
    breaker: Literal["closed", "half_open", "open"] = "closed"


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """``rewards``: one per item, in order. ``verifiers``: one report per verifier that was asked."""

    rewards: list[ItemReward]
    verifiers: list[VerifierReport]
    wall_s: float


@dataclass(frozen=True, slots=True)
class ListedVerifier:
    """One configured verifier. The fields from ``version`` on are empty where it does not answer."""

    name: str
    target: str
    is_ready: bool
    failure: Failed | None
    version: str
    fingerprint: str
    summary: str
    task_kinds: tuple[TaskKind, ...]
    reads: Reads
    holds_belief: bool
    components: Mapping[str, str]
    artifacts: tuple[ArtifactIdentity, ...]
