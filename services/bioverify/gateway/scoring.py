"""A scoring request: JSON in, rewards out.

Reading the body and writing the reply are work for a thread; between them the event loop waits for the aggregator, so
that no call holds a thread while it waits. The call's deadline counts from the moment in which its body has come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from bioverify.client import AsyncClient, ClientError, ScoredBatch, ScoreItem
from bioverify.client.json_form import StrictItem, outcome_json, report_json, reward_json
from bioverify.core import DEFAULT_RECIPE
from bioverify.core.recipes import MAX_TERMS, MAX_WEIGHT, Recipe, Requirement, Term, one_verifier
from bioverify.core.tasks import PROSE
from bioverify.gateway.problems import ProblemError, of_client_error, of_validation

# About a kilobyte of memory each, so a quarter of a gigabyte; braces in formulas of the completions count as well.
_MOST_BRACKETS = 2**18

AnyRequest = TypeVar("AnyRequest", bound=BaseModel)
Weights = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_.-]+)?$", max_length=256)],
        Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False)],
    ],
    Field(
        min_length=1,
        max_length=MAX_TERMS,
        description="verifier, or verifier.component → weight",
        examples=[{"experimental": 2}],
    ),
]
EXAMPLE_ITEM: dict[str, JsonValue] = {
    "id": "reasoned",
    "prompt": "Is a knockdown of AARS1 in k562 cells likely to result in differential expression of TRIB3? "
    "The answer is either yes or no.",
    "completion": "<think>AARS1 charges tRNA with alanine; without it ATF4 is made, and TRIB3 is its target.</think> "
    "<answer>yes</answer>",
}


class _Items(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"items": [EXAMPLE_ITEM]}]})

    items: Annotated[list[StrictItem], Field(min_length=1)]
    evidence: Annotated[
        bool, Field(strict=True, description="Whether reasons are wanted; leaving them out is faster.")
    ] = True
    deadline_s: Annotated[float, Field(ge=0.05, allow_inf_nan=False, description="Seconds for the whole call.")] = 30


class VerifierScoreRequest(_Items):
    """Completions for one verifier."""


class ClaimsRequest(BaseModel):
    """Texts whose claims about genes are wanted, without a question: prose, an abstract, a model's thoughts."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"texts": ["AARS1 encodes alanyl-tRNA synthetase."]}]}
    )

    texts: Annotated[list[str], Field(min_length=1)]
    deadline_s: Annotated[float, Field(ge=0.05, allow_inf_nan=False, description="Seconds for the whole call.")] = 30


class ScoreRequest(_Items):
    """Completions, and what to reward them by: a recipe's name, a recipe of one's own, or weights. Without: "all"."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [EXAMPLE_ITEM], "recipe": "all"}]},
    )

    recipe: Annotated[str | Recipe | None, Field(description="A name out of /v1/recipes, or a whole recipe.")] = None
    weights: Weights | None = None

    @model_validator(mode="after")
    def _has_one_measure(self) -> Self:
        if self.recipe is not None and self.weights is not None:
            raise ValueError("give recipe or weights, not both")
        return self

    @property
    def measure(self) -> str | Recipe:
        if self.weights is None:
            return DEFAULT_RECIPE if self.recipe is None else self.recipe
        return weighted(self.weights)


def weighted(weights: dict[str, float]) -> Recipe:
    """Σ weight × value, where each term is left out for a group in which it is missing."""
    terms = []
    for label, weight in weights.items():
        verifier, _, component = label.partition(".")
        terms.append(Term(verifier=verifier, component=component, weight=weight, requirement=Requirement.OPTIONAL))
    return Recipe(name="weights", terms=tuple(terms))


@dataclass(frozen=True)
class Limits:
    """Of one call. ``charge`` hears how many items there are before they are scored."""

    max_items: int
    max_deadline_s: float
    charge: Callable[[int], None]

    def admit(self, items: int, field: str = "items") -> None:
        """Raises ProblemError if there are too many, or more than the caller's quota has left."""
        if items > self.max_items:
            detail = f"{field}: {items:,} of them; at most {self.max_items:,} a call. Send a file to /v1/jobs"
            raise ProblemError(413, "too_many_items", detail, [(field, f"more than {self.max_items:,}")])
        self.charge(items)

    def admit_deadline(self, deadline_s: float) -> None:
        """Raises ProblemError if it is later than a call may take."""
        if deadline_s > self.max_deadline_s:
            problem = f"at most {self.max_deadline_s:g} here"
            raise ProblemError(422, "invalid_request", f"deadline_s: {problem}", [("deadline_s", problem)])


@dataclass(frozen=True)
class Asked:
    """What a body asks for. ``ids``: the items' own names, under which their rewards go back."""

    items: list[ScoreItem]
    measure: str | Recipe
    deadline_s: float
    with_evidence: bool = False
    ids: Sequence[str] = ()


def read_request(body: bytes, verifier: str | None, limits: Limits) -> Asked:
    """Raises ProblemError."""
    request: _Items
    if verifier is None:
        request = by_recipe = read_body(ScoreRequest, body)
        measure = by_recipe.measure
    else:
        request = read_body(VerifierScoreRequest, body)
        measure = one_verifier(verifier)
    limits.admit_deadline(request.deadline_s)
    ids = _ids(request.items)
    limits.admit(len(request.items))
    items = [
        item.score_item(str(index), "" if item.group_id is None else str(item.group_id))
        for index, item in enumerate(request.items)
    ]
    return Asked(items, measure, request.deadline_s, request.evidence, ids)


def read_claims(body: bytes, limits: Limits) -> Asked:
    """Raises ProblemError."""
    request = read_body(ClaimsRequest, body)
    limits.admit_deadline(request.deadline_s)
    limits.admit(len(request.texts), "texts")
    items = [ScoreItem(str(index), text, task=PROSE) for index, text in enumerate(request.texts)]
    return Asked(items, one_verifier("claims"), request.deadline_s, with_evidence=True)


def write_claims(batch: ScoredBatch) -> bytes:
    """The reply's JSON: of each text what the verifier says."""
    texts = [outcome_json(reward.parts[0].outcome) for reward in batch.rewards]
    return orjson.dumps({"texts": texts, "wall_s": batch.wall_s})


def _ids(items: Sequence[StrictItem]) -> list[str]:
    """Each item's own id, or its position. Raises ProblemError if two are the same."""
    ids = [str(index) if item.id is None else str(item.id) for index, item in enumerate(items)]
    first: dict[str, int] = {}
    for index, item_id in enumerate(ids):
        earlier = first.setdefault(item_id, index)
        if earlier == index:
            continue
        field = f"items[{index}].id"
        if items[index].id is not None and items[earlier].id is not None:
            problem = f'duplicate of items[{earlier}].id ("{item_id}")'
        else:
            unnamed = index if items[index].id is None else earlier
            problem = f'"{item_id}" is also the place of items[{unnamed}], which has no id: give all items one, or none'
        raise ProblemError(422, "invalid_request", f"{field}: {problem}", [(field, problem)])
    return ids


async def scored(client: AsyncClient, asked: Asked, arrived: float) -> ScoredBatch:
    """The rewards, within what is left of the deadline. ``arrived``: time.monotonic. Raises ProblemError."""
    left_s = asked.deadline_s - (time.monotonic() - arrived)
    if left_s <= 0:
        detail = f"the deadline of {asked.deadline_s:g} s was over before the call was made: the gateway is busy"
        raise ProblemError(504, "deadline_exceeded", detail)
    try:
        return await client.score(
            asked.items, asked.measure, deadline_s=left_s, with_evidence=asked.with_evidence, evidence_once=False
        )
    except ClientError as error:
        raise of_client_error(error) from error


def write_reply(asked: Asked, batch: ScoredBatch) -> bytes:
    """The reply's JSON."""
    rewards = zip(batch.rewards, asked.ids, strict=True)
    reply: dict[str, Any] = {
        "rewards": [reward_json(reward, item_id) for reward, item_id in rewards],
        "verifiers": [report_json(report) for report in batch.verifiers],
        "wall_s": batch.wall_s,
    }
    return orjson.dumps(reply)


def read_body(model: type[AnyRequest], body: bytes) -> AnyRequest:
    """Raises ProblemError with every field that does not fit."""
    # Parsed JSON is many times the size of its text if it is all structure, so structure is counted first.
    if (found := body.count(b"{") + body.count(b"[")) > _MOST_BRACKETS:
        detail = f"the body has {found:,} opening brackets; at most {_MOST_BRACKETS:,} a call. Send a file to /v1/jobs"
        raise ProblemError(413, "too_many_items", detail, [("items", "too many")])
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise of_validation(error, model) from error
