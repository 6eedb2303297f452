"""What goes into a client and what comes out of it: plain values, in core's types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from bioverify.core.answers import Answer
from bioverify.core.completions import PromptForm, ThoughtProblem
from bioverify.core.conversation import ConversationError, Turn, read_completion, read_prompt
from bioverify.core.outcomes import Failed, Outcome
from bioverify.core.questions import UnreadReason
from bioverify.core.readings import Readings
from bioverify.core.recipes import Term
from bioverify.core.rewards import decisive, highest, is_lost_to_a_fault, term_value
from bioverify.core.tasks import Task, TaskKind
from bioverify.core.verdicts import SCREEN, verdict
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

    ``id``: unique within a call, not empty. ``completion``: a text, or the messages that followed the prompt;
    ``prompt``: a text or messages. Messages are read when the item is made (`bioverify.core.conversation`), so it holds
    a text and turns; what is neither is kept as it is, and that item alone has no reward.

    ``task`` may be left out if the prompt asks a question of a known form. ``group_id``: items that are compared with
    each other (a GRPO group); empty: a group of its own. ``source``: the recipe's source that the prompt comes from.
    ``prompt_form``: read off the system turn if left out. ``reasoning``: what a server split off the completion.
    ``prefix``: what the rendered prompt ended with ("<think>\\n"), for a template that opens the thought itself.
    """

    id: str
    completion: str
    prompt: Sequence[Message] = ()
    task: Task | None = None
    group_id: str = ""
    source: str = ""
    prompt_form: PromptForm | None = None
    reasoning: str = ""
    prefix: str = ""

    if TYPE_CHECKING:

        def __init__(
            self,
            id: str,  # noqa: A002 - the field's name everywhere
            completion: str | Sequence[Mapping[str, Any]],
            prompt: str | Sequence[Message] | Sequence[Mapping[str, Any]] = (),
            task: Task | None = None,
            group_id: str = "",
            source: str = "",
            prompt_form: PromptForm | None = None,
            reasoning: str = "",
            prefix: str = "",
        ) -> None:
            """What may be given is more than what is held."""

    def __post_init__(self) -> None:
        # What cannot be read is told at the sending, for this item alone.
        with suppress(ConversationError):
            if not isinstance(self.completion, str):
                read = read_completion(self.completion)
                reasoning = "\n".join(filter(None, (self.reasoning, read.reasoning)))
                object.__setattr__(self, "reasoning", reasoning)
                object.__setattr__(self, "completion", read.final)
        with suppress(ConversationError):
            if not all(isinstance(turn, Message) for turn in self.prompt or ()):
                object.__setattr__(self, "prompt", prompt_of(read_prompt(self.prompt)))


def prompt_of(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """The turns as they are sent: what a tool said asks and instructs nothing."""
    return tuple(Message(turn.role, turn.text) for turn in turns if turn.role != "tool")


@dataclass(frozen=True, slots=True)
class RewardPart:
    """One summand of a reward: ``contribution`` is weight × value, or None with the reason in ``dropped_because``."""

    term: Term
    outcome: Outcome
    contribution: float | None
    dropped_because: str
    from_cache: bool

    @property
    def value(self) -> float | None:
        """What the outcome gives to the term; None if it gives nothing."""
        return term_value(self.term, self.outcome)


class RewardDetails(NamedTuple):
    """What stands behind a reward; its fields are those of `ItemReward`."""

    parts: tuple[RewardPart, ...] = ()
    task: Task | None = None
    answer: Answer | None = None
    consensus: Outcome | None = None
    unread_question: UnreadReason | None = None
    thought_problem: ThoughtProblem | None = None


_NO_DETAILS = RewardDetails()


class ItemReward:
    """``reward`` is None if the item is unscorable, which is not a zero. ``parts`` in the recipe's order.

    ``consensus``: what the beliefs of several verifiers amount to together; None if there is no such thing.
    ``unread_question``: why the item has no task, ``thought_problem``: why its completion has no thought; None if it
    has.
    ``is_lost``: the request that held the item brought nothing, so nothing is known about it; ``is_refused``: and the
    same request would be refused again.

    ``details`` may be a function that reads them, which is called when one of them is first asked for: to read them
    takes nine tenths of the time of a reply, and a trainer may want the reward alone.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the field's name everywhere
        reward: float | None,
        unscorable_because: str = "",
        details: RewardDetails | Callable[[], RewardDetails] = _NO_DETAILS,
        *,
        is_lost: bool = False,
        is_refused: bool = False,
    ) -> None:
        self.id = id
        self.reward = reward
        self.unscorable_because = unscorable_because
        self.is_lost = is_lost
        self.is_refused = is_refused
        self._unread = details

    @cached_property
    def details(self) -> RewardDetails:
        return self._unread() if callable(self._unread) else self._unread

    @property
    def parts(self) -> tuple[RewardPart, ...]:
        return self.details.parts

    @property
    def task(self) -> Task | None:
        return self.details.task

    @property
    def answer(self) -> Answer | None:
        return self.details.answer

    @property
    def consensus(self) -> Outcome | None:
        return self.details.consensus

    @property
    def unread_question(self) -> UnreadReason | None:
        return self.details.unread_question

    @property
    def thought_problem(self) -> ThoughtProblem | None:
        return self.details.thought_problem

    @property
    def highest(self) -> float | None:
        """Out of how much the reward is (`bioverify.core.rewards.highest`); None if there is none."""
        if self.reward is None:
            return None
        return highest([part.term for part in self.parts], [part.contribution for part in self.parts])

    @property
    def verdict(self) -> str:
        """What the screen says and what the answer says, in one sentence (`bioverify.core.verdicts`)."""
        if self.is_lost:
            return "No verifier was asked."
        screen = next((part.outcome for part in self.parts if part.term.verifier == SCREEN), None)
        return verdict(self.task, self.answer, screen)

    @property
    def may_come_back(self) -> bool:
        """Whether asking again later may bring a reward: there is none, because of faults that may pass."""
        if self.reward is not None:
            return False
        if self.is_lost:
            return not self.is_refused
        passing = [part for part in self.parts if isinstance(part.outcome, Failed) and part.outcome.retryable]
        terms, values = [part.term for part in self.parts], [part.value for part in self.parts]
        return is_lost_to_a_fault(terms, values, {part.term.verifier for part in passing})

    @property
    def lacking(self) -> frozenset[str]:
        """The verifiers, by name, without whose answers there is no reward."""
        if self.reward is not None:
            return frozenset()
        missing = decisive([part.term for part in self.parts], [part.value for part in self.parts])
        return frozenset(term.verifier for term in missing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ItemReward) and self._fields == other._fields

    def __hash__(self) -> int:
        return hash((self.id, self.reward))

    def __repr__(self) -> str:
        values = {"id": self.id, "reward": self.reward, "unscorable_because": self.unscorable_because}
        shown = values | self.details._asdict() | {"is_lost": self.is_lost, "is_refused": self.is_refused}
        return f"ItemReward({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __reduce__(self) -> tuple[object, ...]:
        # A message that is not read yet cannot be sent to another process.
        return partial(ItemReward, is_lost=self.is_lost, is_refused=self.is_refused), self._fields[:4]

    @property
    def _fields(self) -> tuple[str, float | None, str, RewardDetails, bool, bool]:
        return self.id, self.reward, self.unscorable_because, self.details, self.is_lost, self.is_refused


def readings_of(rewards: Iterable[ItemReward]) -> Readings:
    """What could not be read of the items, counted. An item whose request was lost was not looked at."""
    readings = Readings()
    for reward in rewards:
        if not reward.is_lost:
            readings.add(reward.unread_question, reward.thought_problem, reward.answer)
    return readings


@dataclass(frozen=True, slots=True)
class VerifierReport:
    """How one verifier fared in a call.

    ``items``: items that its terms applied to; ``distinct``: different questions among them; ``cache_hits``: of these,
    answered by the cache; ``failed`` and ``not_applicable``: items. ``wall_s``: seconds from the first call to the
    last reply; ``queue_s`` and ``work_s``: the verifier's own account, summed over its calls.

    ``calls``: attempts, of which ``retries`` followed an unavailable verifier and ``hedges`` a slow one; ``shared``:
    different questions answered by a call that another request had under way; ``waited_s``: seconds that calls waited
    in the aggregator, summed. ``breaker``: "open" if the verifier is not asked for now, "half_open" if it is
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
    """``rewards``: one per item, in order. ``verifiers``: one report per verifier that was asked.

    ``request_id``: under which the services log the call.
    """

    rewards: list[ItemReward]
    verifiers: list[VerifierReport]
    wall_s: float
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class ListedVerifier:
    """One configured verifier. The fields from ``version`` on are empty if it does not answer."""

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
