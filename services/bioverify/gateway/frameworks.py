"""Other frameworks' forms of a scoring request: OpenRLHF's remote reward model, OpenAI's grader run.

Both expect a number for every completion, and take a zero for one. So if there is none the request is refused: 503
with retry-after for a fault that may pass, 422 for a fact.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from bioverify.adapters.alone import NoRewardError, reward_alone
from bioverify.adapters.openrlhf import read_items
from bioverify.adapters.reading import read_rollout
from bioverify.client import ItemReward, ScoredBatch
from bioverify.core import DEFAULT_RECIPE
from bioverify.gateway.problems import ProblemError
from bioverify.gateway.scoring import EXAMPLE_ITEM, Asked, Limits, read_body

# OpenRLHF waits 180 s for an answer.
OPENRLHF_DEADLINE_S = 150.0
GRADER_DEADLINE_S = 30.0
_EXAMPLE_QUERY = f"{EXAMPLE_ITEM['prompt']}{EXAMPLE_ITEM['completion']}"


class OpenRLHFRequest(BaseModel):
    """Equally long lists. A label may be the row's `bioverify` field as JSON; another one is not read."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": [_EXAMPLE_QUERY], "prompts": [EXAMPLE_ITEM["prompt"]], "labels": [None]}]
        }
    )

    query: Annotated[list[str], Field(min_length=1, description="Prompt and completion as one text.")]
    prompts: list[str]
    labels: list[str | None]


class OpenRLHFReply(BaseModel):
    """One reward for each query, in order."""

    model_config = ConfigDict(extra="forbid")

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


class BioverifyGrader(BaseModel):
    """This service as a grader: the reward is that of a recipe, so its range is the recipe's."""

    type: Literal["bioverify"]
    name: str = "bioverify"
    recipe: Annotated[str, Field(max_length=256)] = DEFAULT_RECIPE


class GraderRequest(BaseModel):
    """What OpenAI's clients send to run a grader."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "grader": {"type": "bioverify", "recipe": "all"},
                    "item": {"prompt": EXAMPLE_ITEM["prompt"]},
                    "model_sample": EXAMPLE_ITEM["completion"],
                }
            ]
        }
    )

    grader: BioverifyGrader
    model_sample: Annotated[
        Any,
        PlainValidator(lambda given: given, json_schema_input_type=str | list[dict[str, Any]]),
        Field(description="What the model wrote: a text, or messages."),
    ]
    item: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="The dataset's row: `messages` or `prompt`; `bioverify` with task, source … if wanted.",
        ),
    ]


class GraderErrorsReply(BaseModel):
    """All false: a grader that fails here is no answer but a problem."""

    model_config = ConfigDict(extra="forbid")

    formula_parse_error: bool
    invalid_variable_error: bool
    model_grader_parse_error: bool
    model_grader_refusal_error: bool
    model_grader_server_error: bool
    other_error: bool
    python_grader_runtime_error: bool
    python_grader_server_error: bool
    sample_parse_error: bool
    truncated_observation_error: bool
    unresponsive_reward_error: bool


class GraderMetadataReply(BaseModel):
    """``scores``: the value of each term, if it has one."""

    model_config = ConfigDict(extra="forbid")

    name: str
    type: str
    errors: GraderErrorsReply
    execution_time: float
    scores: dict[str, float | None]
    token_usage: int | None
    sampled_model_name: str | None


class GraderReply(BaseModel):
    """``sub_rewards``: what each term adds to the reward, where it does."""

    model_config = ConfigDict(extra="forbid")

    reward: float
    sub_rewards: dict[str, float | None]
    metadata: GraderMetadataReply
    model_grader_token_usage_per_model: dict[str, int]


def read_openrlhf(body: bytes, recipe: str, limits: Limits) -> Asked:
    """Raises ProblemError."""
    request = read_body(OpenRLHFRequest, body)
    limits.admit(len(request.query))
    try:
        items = read_items(request.query, request.prompts, request.labels)
    except ValueError as error:
        raise ProblemError(422, "invalid_request", str(error)) from error
    return Asked(items, recipe, min(OPENRLHF_DEADLINE_S, limits.max_deadline_s))


def write_openrlhf(batch: ScoredBatch) -> bytes:
    """The reply's JSON. Raises ProblemError."""
    rewards = [_reward(reward, f"query[{index}]") for index, reward in enumerate(batch.rewards)]
    # "scores" are what OpenRLHF's dynamic filtering goes by.
    return orjson.dumps({"rewards": rewards, "scores": rewards, "extra_logs": {}})


def read_grader(body: bytes, limits: Limits) -> tuple[Asked, BioverifyGrader]:
    """Raises ProblemError."""
    request = read_body(GraderRequest, body)
    limits.admit(1)
    prompt = request.item.get("messages") or request.item.get("prompt") or ""
    if not prompt and not request.item.get("bioverify"):
        problem = f"no messages, prompt or bioverify; it has: {', '.join(map(str, request.item)) or 'nothing'}"
        raise ProblemError(422, "invalid_request", f"item: {problem}", [("item", problem)])
    try:
        item = read_rollout(request.model_sample, prompt, request.item.get("bioverify"))
    except ValueError as error:
        # The item's reader calls it completion.
        own = str(error).startswith("completion")
        said = f"model_sample{str(error).removeprefix('completion')}" if own else f"item: {error}"
        raise ProblemError(422, "invalid_request", said) from error
    return Asked([item], request.grader.recipe, min(GRADER_DEADLINE_S, limits.max_deadline_s)), request.grader


def write_grader(grader: BioverifyGrader, batch: ScoredBatch) -> bytes:
    """The reply's JSON. Raises ProblemError."""
    [scored] = batch.rewards
    reward = _reward(scored, "model_sample")
    return orjson.dumps(
        {
            "reward": reward,
            "sub_rewards": {part.term.label: part.contribution for part in scored.parts},
            "metadata": {
                "name": grader.name,
                "type": grader.type,
                "errors": dict.fromkeys(GraderErrorsReply.model_fields, False),
                "execution_time": batch.wall_s,
                "scores": {part.term.label: part.value for part in scored.parts},
                "token_usage": None,
                "sampled_model_name": None,
            },
            "model_grader_token_usage_per_model": {},
        }
    )


def _reward(scored: ItemReward, where: str) -> float:
    try:
        return reward_alone(scored)
    except NoRewardError as error:
        if error.may_pass:
            raise ProblemError(503, "reward_failed", f"{where}: {error}", headers={"retry-after": "1"}) from error
        raise ProblemError(422, "no_reward", f"{where}: {error}") from error
