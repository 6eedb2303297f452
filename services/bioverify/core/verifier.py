"""The door that every verifier is written through: plain items in, plain outcomes out.

A verifier is a class with a `Description` and a `score` method. Hosting, limits, metrics and the mapping of errors
live in `bioverify.runtime`, once.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bioverify.core.answers import Answer, AnswerProblem, ParseMode
from bioverify.core.completions import PromptForm
from bioverify.core.outcomes import Evidence, NotApplicable, Outcome, Scored
from bioverify.core.tasks import Task, TaskKind


class Reads(enum.Flag):
    """The fields of an item that a verifier's result depends on; they make its cache key."""

    TASK = enum.auto()
    ANSWER = enum.auto()
    COMPLETION = enum.auto()


@dataclass(frozen=True, slots=True)
class Item:
    """One completion, read once. Fields that the verifier does not read may be empty.

    ``task`` is None if the question has no known form. ``answer`` is None if the question has no yes or no.
    """

    task: Task | None
    answer: Answer | None = None
    completion: str = ""
    parse_mode: ParseMode = ParseMode.WHOLE_WORDS
    prompt_form: PromptForm = PromptForm.ANSWER


Canary = tuple[Item, Outcome]
"""An item, and the outcome that it must have."""


def _no_problem() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class ArtifactIdentity:
    """The versioned input that a verifier opened. ``digest`` is "sha256:" and 64 hexadecimal digits.

    ``figures``: what was counted and measured when it was made, for people.
    """

    name: str
    digest: str
    license: str
    sources: tuple[str, ...]
    simulated: bool = False
    figures: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class WatchedArtifact(ArtifactIdentity):
    """One whose files are watched while they are in use.

    ``build_id``: empty, unless the artifact took the place of a damaged one of the same digest.
    ``canaries``: computed when it was made, checked at the start and every ten seconds. ``problem``: what is wrong with
    its bytes since they were opened; empty if nothing is. It is asked after every batch, so it has to be cheap.
    """

    build_id: str = ""
    canaries: tuple[Canary, ...] = field(default=(), compare=False, repr=False)
    problem: Callable[[], str] = field(default=_no_problem, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Description:
    """Who a verifier is. ``parameters`` are whatever else changes its results; they enter the fingerprint."""

    name: str
    version: str
    summary: str
    task_kinds: tuple[TaskKind, ...]
    reads: Reads
    holds_belief: bool
    components: Mapping[str, str]
    artifacts: tuple[ArtifactIdentity, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Changes whenever a result may change: hash of name, code version, artifact digests and parameters.

        Artifacts that took the place of damaged ones add a hash of their build ids behind it: what was remembered of
        the damaged ones is not used, and `without_builds` is as before.
        """
        identity = [self.name, self.version, [a.digest for a in self.artifacts], dict(sorted(self.parameters.items()))]
        fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        builds = [artifact.build_id for artifact in self._watched()]
        if not any(builds):
            return fingerprint
        return f"{fingerprint}{_BUILDS}{hashlib.sha256(json.dumps(builds).encode()).hexdigest()[:16]}"

    @property
    def canaries(self) -> tuple[Canary, ...]:
        return tuple(canary for artifact in self._watched() for canary in artifact.canaries)

    def problem(self) -> str:
        """What is wrong with the bytes of what was opened; empty if nothing is."""
        return next(filter(None, (artifact.problem() for artifact in self._watched())), "")

    def _watched(self) -> Iterator[WatchedArtifact]:
        return (artifact for artifact in self.artifacts if isinstance(artifact, WatchedArtifact))


_BUILDS = "+build."


def without_builds(fingerprint: str) -> str:
    """The part of a fingerprint that is the same for artifacts of the same content, repaired or not."""
    return fingerprint.partition(_BUILDS)[0]


class Verifier(Protocol):
    """Deterministic and safe to ask twice. `score` may be called from any one thread at a time."""

    @property
    def description(self) -> Description: ...

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Bad items give outcomes, not exceptions."""
        ...

    def canary(self) -> tuple[Item, Outcome]:
        """An item and the outcome that it must have, taken from the artifact itself."""
        ...


class HasCanaryItems(Verifier, Protocol):
    """A verifier over an artifact, which names questions all over it."""

    def canary_items(self) -> Sequence[Item]: ...


def canaries_of(verifier: HasCanaryItems) -> list[Canary]:
    """What the verifier says to its questions now: to be kept with the artifact when it is made."""
    items = verifier.canary_items()
    return list(zip(items, verifier.score(items, with_evidence=False), strict=True))


def spread(count: int, among: int) -> list[int]:
    """``count`` positions from the first to the last of ``among``, at equal distances; each once."""
    return sorted({step * (among - 1) // max(1, count - 1) for step in range(count)}) if among else []


UNRECOGNISED_QUESTION = NotApplicable(
    "unrecognised_question", "The item has no task, and its prompt asks no question of a known form."
)


def refuse(task: Task | None, supported: Sequence[TaskKind]) -> NotApplicable:
    """Why a verifier of ``supported`` kinds has nothing to say of ``task``, which is none of these."""
    if task is None:
        return UNRECOGNISED_QUESTION
    kinds = ", ".join(supported)
    return NotApplicable("other_task_kind", f"The question is about {task.kind}; this verifier answers {kinds}.")


LIFT = "lift"


def lift(belief: float, usual: float, answer: Answer | None) -> float:
    """What a belief says beyond how often the measured gene responds anyway, as a score of the answer.

    q = σ(logit(belief) − logit(usual)): .5 if this perturbation is believed to do what others do, above if more. Like
    the answer term: q for "yes", 1 − q for "no", 0 for no answer. ``usual``: the gene's rate, strictly between 0 and 1.
    """
    more, less = belief * (1.0 - usual), (1.0 - belief) * usual
    if answer is True:
        return more / (more + less)
    return less / (more + less) if answer is False else 0.0


def score_by_belief(
    belief: float, answer: Answer | None, evidence: tuple[Evidence, ...], components: Mapping[str, float]
) -> Scored:
    """The answer term of the published reward: p for "yes", 1 − p for "no", 0 for no answer.

    Why there is no answer is kept as a component ``no_answer.<problem>`` = 1.
    """
    if answer is True:
        return Scored(belief, components, evidence, belief)
    if answer is False:
        return Scored(1.0 - belief, components, evidence, belief)
    problem = answer if isinstance(answer, AnswerProblem) else AnswerProblem.NO_ANSWER_WORD
    return Scored(0.0, {**components, f"no_answer.{problem}": 1.0}, evidence, belief)
