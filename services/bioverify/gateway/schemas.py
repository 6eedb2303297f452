"""The shapes of what the gateway answers, for its OpenAPI description. Replies are written without them, for speed;
the tests hold the two against each other."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bioverify.core.completions import ThoughtProblem
from bioverify.core.questions import UnreadReason
from bioverify.core.recipes import Recipe
from bioverify.gateway.jobs import Job

Share = Annotated[float, Field(ge=0, le=1)]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QuoteReply(_Reply):
    """A statement of the completion, from its character ``start`` to before ``end`` (Unicode code points, from 0; an
    opened thought or a reasoning that came apart stands before the completion)."""

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    verdict: Literal["supported", "contradicted", "unsupported"]


class EvidenceReply(_Reply):
    """A reason that a person can read; ``simulated`` if the measurement is no experiment. ``quote``: what of the
    completion it judges, null if it judges no piece of it."""

    text: str
    source: str
    simulated: bool
    quote: QuoteReply | None


class OutcomeReply(_Reply):
    """What a verifier holds to be true. ``reason`` and ``detail`` say why there is no score."""

    outcome: Literal["scored", "not_applicable", "failed"]
    reason: str
    detail: str
    belief: Share | None
    components: dict[str, float]
    evidence: list[EvidenceReply]


class PartReply(OutcomeReply):
    """One summand: what the verifier said, and what it became. ``contribution`` null: it is not in the reward."""

    verifier: str
    component: str
    weight: float
    value: float | None
    contribution: float | None
    dropped_because: str
    from_cache: bool


class RewardReply(_Reply):
    """``verdict``: one sentence, for people. ``reward`` null: the item is unscorable, which is not a zero.

    ``highest``: out of how much the reward is, the sum of the positive weights that entered it. ``unread_question``:
    why the item has no task, ``thought_problem``: why the completion has no thought; null if it has.
    """

    id: str
    verdict: str
    reward: float | None
    highest: float | None
    unscorable_because: str
    answer: str | None
    task: dict[str, dict[str, Any]] | None
    unread_question: UnreadReason | None
    thought_problem: ThoughtProblem | None
    parts: list[PartReply]
    consensus: OutcomeReply | None


class FailureReply(_Reply):
    """A fault: no statement about any item."""

    reason: str
    detail: str
    retryable: bool


class VerifierReportReply(_Reply):
    """How one verifier fared in a call."""

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
    first_failure: FailureReply | None
    retries: int
    hedges: int
    shared: int
    waited_s: float
    breaker: Literal["closed", "half_open", "open"]


class ScoreReply(_Reply):
    """One reward per item, in order."""

    rewards: list[RewardReply]
    verifiers: list[VerifierReportReply]
    wall_s: float


class ClaimsReply(_Reply):
    """What the verifier claims says of each text, in order: figures in ``components``, claims in ``evidence``."""

    texts: list[OutcomeReply]
    wall_s: float


class ArtifactReply(_Reply):
    """What a verifier opened. ``figures``: counts, coverage and quality as they were when it was made."""

    name: str
    digest: str
    license: str
    sources: list[str]
    simulated: bool
    figures: dict[str, float]


class VerifierReply(_Reply):
    """A configured verifier as it describes itself; empty fields if it does not answer."""

    name: str
    target: str
    is_ready: bool
    failure: FailureReply | None
    version: str
    fingerprint: str
    summary: str
    task_kinds: list[str]
    reads: list[str]
    holds_belief: bool
    components: dict[str, str]
    artifacts: list[ArtifactReply]


class VerifiersReply(_Reply):
    """In the order of the configuration."""

    verifiers: list[VerifierReply]


class RecipesReply(_Reply):
    """By name."""

    recipes: list[Recipe]


class JobsReply(_Reply):
    """Latest first."""

    jobs: list[Job]


class JobItemReply(_Reply):
    """What was asked and answered in one line of a job's file, as it is scored. ``line``: its number, from 1."""

    line: int
    id: str
    prompt: str
    completion: str
    recipe: str


class ReadyReply(_Reply):
    """Whether rewards can be had."""

    ready: bool
