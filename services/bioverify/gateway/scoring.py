"""A scoring request: JSON in, rewards out. Pure work for a worker thread; the event loop only moves the bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from bioverify.client import Client, ClientError
from bioverify.client.json_form import StrictItem, report_json, reward_json
from bioverify.core.recipes import Recipe, Requirement, Term
from bioverify.gateway.problems import ProblemError, of_client_error, of_validation

# About a kilobyte of memory each, so a quarter of a gigabyte; braces in formulas of the completions count as well.
_MOST_BRACKETS = 2**18

AnyRequest = TypeVar("AnyRequest", bound=BaseModel)
Weights = Annotated[
    dict[str, Annotated[float, Field(allow_inf_nan=False)]],
    Field(min_length=1, description="verifier, or verifier.component → weight", examples=[{"experimental": 2}]),
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
            return "all" if self.recipe is None else self.recipe
        return weighted(self.weights)


def weighted(weights: dict[str, float]) -> Recipe:
    """Σ weight × value, where each term is left out for a group in which it is missing."""
    terms = []
    for label, weight in weights.items():
        verifier, _, component = label.partition(".")
        terms.append(Term(verifier=verifier, component=component, weight=weight, requirement=Requirement.OPTIONAL))
    return Recipe(name="weights", terms=tuple(terms))


def one_verifier(name: str) -> Recipe:
    """The verifier's value as the reward; without a score there is none."""
    return Recipe(name=name, terms=(Term(verifier=name, weight=1.0, requirement=Requirement.REQUIRED),))


@dataclass(frozen=True)
class Limits:
    """Of one call. ``charge`` hears how many items there are before they are scored."""

    max_items: int
    max_deadline_s: float
    charge: Callable[[int], None]

    def admit(self, items: int) -> None:
        """Raises ProblemError where there are too many, or more than the caller's quota has left."""
        if items > self.max_items:
            detail = f"items: {items:,} of them; at most {self.max_items:,} a call. Send a file to /v1/jobs"
            raise ProblemError(413, "too_many_items", detail, [("items", f"more than {self.max_items:,}")])
        self.charge(items)


def score(body: bytes, verifier: str | None, client: Client, limits: Limits) -> bytes:
    """The reply's JSON. Raises ProblemError."""
    request: _Items
    if verifier is None:
        request = by_recipe = read_body(ScoreRequest, body)
        measure = by_recipe.measure
    else:
        request = read_body(VerifierScoreRequest, body)
        measure = one_verifier(verifier)
    if request.deadline_s > limits.max_deadline_s:
        problem = f"at most {limits.max_deadline_s:g} here"
        raise ProblemError(422, "invalid_request", f"deadline_s: {problem}", [("deadline_s", problem)])
    limits.admit(len(request.items))
    items = [
        item.score_item(
            str(index) if item.id is None else str(item.id), "" if item.group_id is None else str(item.group_id)
        )
        for index, item in enumerate(request.items)
    ]
    try:
        batch = client.score(items, measure, deadline_s=request.deadline_s, with_evidence=request.evidence)
    except ClientError as error:
        raise of_client_error(error) from error
    reply: dict[str, Any] = {
        "rewards": [reward_json(reward) for reward in batch.rewards],
        "verifiers": [report_json(report) for report in batch.verifiers],
        "wall_s": batch.wall_s,
    }
    return orjson.dumps(reply)


def read_body(model: type[AnyRequest], body: bytes) -> AnyRequest:
    """Raises ProblemError with every field that does not fit."""
    # Parsed JSON is many times the size of its text where it is all structure, so structure is counted first.
    if (found := body.count(b"{") + body.count(b"[")) > _MOST_BRACKETS:
        detail = f"the body has {found:,} opening brackets; at most {_MOST_BRACKETS:,} a call. Send a file to /v1/jobs"
        raise ProblemError(413, "too_many_items", detail, [("items", "too many")])
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise of_validation(error, model) from error
