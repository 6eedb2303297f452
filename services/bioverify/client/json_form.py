"""The JSON of the client's values: one form for files, HTTP and stored results.

In: an item, ``{"completion": "…" | messages, "prompt": "…" | messages, "task"?, "group_id"?, "source"?, "prompt_form"?,
"id"?, "reasoning"?, "prefix"?}``; ``messages`` in place of ``prompt`` is a conversation, whose last turns of the
assistant are the completion if the item has no other. What messages may look like: `bioverify.core.conversation`.

Out: a reward with its parts and their evidence. Null stands for what there is not, never for zero. A task is an object
with one key, its kind: ``{"co_expression": {"gene_a": "CD3D", "gene_b": "CD3E"}}``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bioverify.client.values import ItemReward, ListedVerifier, RewardPart, ScoreItem, VerifierReport, prompt_of
from bioverify.core.answers import answer_word
from bioverify.core.completions import PromptForm
from bioverify.core.conversation import Completion, ConversationError, read_completion, read_prompt
from bioverify.core.conversation import Turn as CoreTurn
from bioverify.core.outcomes import Evidence, Failed, NotApplicable, Outcome, Quote, Scored, Verdict
from bioverify.core.tasks import TASKS, Task, TaskKind, make_task
from bioverify.core.verifier import Reads

GeneName = Annotated[str, Field(min_length=1, max_length=64, examples=["AARS1"])]
CellLine = Annotated[str, Field(min_length=1, max_length=64, examples=["k562"])]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


_JSON_TYPES: dict[Any, Any] = {
    str: GeneName,
    tuple[str, ...]: Annotated[list[GeneName], Field(min_length=1, max_length=64)],
}


def _model_of(make: type[Task]) -> type[BaseModel]:
    """A kind's class as JSON: its fields, in their order."""
    types = get_type_hints(make)
    asked: dict[str, Any] = {
        field.name: (CellLine if field.name == "cell_line" else _JSON_TYPES[types[field.name]], ...)
        for field in fields(make)
    }
    return create_model(make.__name__, __base__=_Strict, __doc__=make.about("{A}", "{B}", "{line}").question, **asked)


def _exactly_one(schema: dict[str, Any]) -> None:
    """A JSON schema's way to say it: one property, and not null."""
    schema["minProperties"] = schema["maxProperties"] = 1
    for name, kind in schema["properties"].items():
        schema["properties"][name] = kind["anyOf"][0]


_OneFieldPerKind: Any = create_model(
    "_OneFieldPerKind",
    __base__=_Strict,
    **{kind.value: (_model_of(make) | None, None) for kind, make in TASKS.items()},  # type: ignore[call-overload]
)


class TaskJson(_OneFieldPerKind):  # type: ignore[misc]
    """What a question asks: exactly one of the kinds."""

    model_config = ConfigDict(json_schema_extra=_exactly_one)

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if len(self.model_fields_set) != 1 or self._given() is None:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self

    def task(self) -> Task:
        [kind] = self.model_fields_set
        return make_task(TaskKind(kind), [value for _, value in self._given()])

    def _given(self) -> Any:
        [kind] = self.model_fields_set
        return getattr(self, kind)


class Turn(BaseModel):
    """One turn of a conversation. ``reasoning_content``, ``reasoning`` and ``thinking`` are read beside ``content``."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[str | dict[str, Any]] | None = None


_TextOrTurns = str | list[Turn]


def _read(read: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    """``read`` as a validator of the field, whose errors say the place within it."""

    def validate(given: Any) -> Any:
        try:
            return read(given)
        except ConversationError as error:
            # "completion[0].role: one of …" of any field that holds messages.
            within, _, problem = str(error).partition(": ")
            raise PydanticCustomError(
                "conversation", "{problem}", {"within": within.removeprefix(name), "problem": problem}
            ) from error

    return validate


def _prompt(given: Any) -> list[CoreTurn]:
    return [] if given is None else read_prompt(given)


def _name(given: Any) -> Any:
    """1.0, which pandas makes of 1, and Decimal, which databases give, as the whole numbers that they are."""
    if given is None or isinstance(given, str) or (isinstance(given, int) and not isinstance(given, bool)):
        return given
    if isinstance(given, float | Decimal) and math.isfinite(given) and given % 1 == 0:
        return int(given)
    raise PydanticCustomError("name", "a text or a whole number, not {given}", {"given": repr(given)[:60]})


Name = Annotated[str | int | None, PlainValidator(_name, json_schema_input_type=str | int | None)]
_Reasoning = Annotated[str | None, Field(description="What a server split off the completion; or one of its names.")]


class ItemJson(BaseModel):
    """One completion to be scored."""

    completion: Annotated[
        Completion,
        PlainValidator(_read(read_completion, "completion"), json_schema_input_type=_TextOrTurns),
        Field(description="What the model wrote: a text, or the messages that followed the prompt."),
    ]
    prompt: Annotated[
        list[CoreTurn],
        PlainValidator(_read(_prompt, "prompt"), json_schema_input_type=_TextOrTurns | None),
        Field(description="The question, or the conversation; left out if task is given."),
    ] = Field(default_factory=list)
    id: Annotated[Name, Field(description="Comes back on the reward. Left out: the item's position.")] = None
    group_id: Annotated[Name, Field(description="Completions that are compared with each other (a GRPO group).")] = None
    task: Annotated[
        TaskJson | None, Field(description="What was asked; left out: read off the prompt's last question.")
    ] = None
    source: Annotated[
        str | None, Field(max_length=256, description="The recipe's source that the prompt was drawn from.")
    ] = None
    prompt_form: PromptForm | None = None
    reasoning: _Reasoning = None
    reasoning_content: _Reasoning = None
    thinking: _Reasoning = None
    messages: Annotated[
        list[Turn] | None,
        Field(
            description="In place of prompt: the conversation. Without a completion, the assistant's last turns are it."
        ),
    ] = None
    prefix: Annotated[
        str | None, Field(description="What the rendered prompt ended with, if its template opens the thought.")
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _reads_messages(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("messages") is None:
            return given
        given = dict(given)
        turns = given.pop("messages")
        if given.get("prompt") not in (None, "", []):
            raise ValueError("give prompt or messages, not both")
        if not isinstance(turns, Sequence) or isinstance(turns, str | bytes):
            # pydantic turns a ValueError alone into a refusal of the item.
            raise ValueError("messages is a list of messages with role and content; a text belongs in prompt")  # noqa: TRY004
        if given.get("completion") is None:
            n_prompt = _end_of_prompt(turns)
            given["completion"] = turns[n_prompt:]
            turns = turns[:n_prompt]
        return given | {"prompt": turns}

    def score_item(self, item_id: str, group_id: str) -> ScoreItem:
        beside = (self.reasoning_content, self.reasoning, self.thinking)
        # Some servers give the same reasoning under two names.
        reasoning = "\n".join(dict.fromkeys(text for text in (*beside, self.completion.reasoning) if text))
        return ScoreItem(
            id=item_id,
            completion=self.completion.final,
            prompt=prompt_of(self.prompt),
            task=self.task.task() if self.task else None,
            group_id=group_id,
            source=self.source or "",
            prompt_form=self.prompt_form,
            reasoning=reasoning,
            prefix=self.prefix or "",
        )


def _end_of_prompt(turns: Sequence[Any]) -> int:
    """How many of the turns led to the completion: all up to the last one of somebody who asks."""
    asking = [n for n, turn in enumerate(turns) if isinstance(turn, Mapping) and turn.get("role") in _WHO_ASKS]
    return asking[-1] + 1 if asking else 0


_WHO_ASKS = ("user", "system", "developer")


class StrictItem(ItemJson):
    """One completion to be scored. A key that is not one of these is refused: a misspelt group_id would be lost."""

    model_config = ConfigDict(extra="forbid")


def reward_json(reward: ItemReward, item_id: str | None = None) -> dict[str, Any]:
    """A reward with its parts. ``item_id``: the caller's own name for the item, where it travelled under another."""
    return {
        "id": reward.id if item_id is None else item_id,
        "verdict": reward.verdict,
        "reward": reward.reward,
        "highest": reward.highest,
        "unscorable_because": reward.unscorable_because,
        "answer": answer_word(reward.answer, reward.task),
        "task": _task_json(reward.task) if reward.task else None,
        "unread_question": reward.unread_question,
        "thought_problem": reward.thought_problem,
        "parts": [_part_json(part) for part in reward.parts],
        "consensus": None if reward.consensus is None else outcome_json(reward.consensus),
    }


def report_json(report: VerifierReport) -> dict[str, Any]:
    """How one verifier fared in a call."""
    return asdict(report)


def listed_verifier_json(verifier: ListedVerifier) -> dict[str, Any]:
    """One configured verifier, as it describes itself."""
    reads = [flag.name.lower() for flag in Reads if flag in verifier.reads and flag.name]
    return {**asdict(verifier), "components": dict(verifier.components), "reads": reads}


def outcome_from_json(part: Mapping[str, Any]) -> Outcome:
    """The outcome of a part of a reward's JSON.

    The part of a component does not hold the verifier's value; what is given for it here may serve that component only.
    """
    if part["outcome"] == "scored":
        evidence = tuple(map(_evidence_from_json, part["evidence"]))
        value = 0.0 if part["component"] else part["value"]
        return Scored(value, part["components"], evidence, part["belief"])
    if part["outcome"] == "not_applicable":
        return NotApplicable(part["reason"], part["detail"])
    # Whether it may pass is not kept.
    return Failed(part["reason"], part["detail"], retryable=True)


def _evidence_from_json(written: Mapping[str, Any]) -> Evidence:
    # Results that were stored when evidence had no quotes are read as well.
    quote = written.get("quote")
    read = quote and Quote(quote["start"], quote["end"], Verdict(quote["verdict"]))
    return Evidence(written["text"], written["source"], written["simulated"], read)


def outcome_word(outcome: Outcome) -> str:
    """scored, not_applicable or failed."""
    return _OUTCOME_WORDS[type(outcome)]


_OUTCOME_WORDS: dict[type[Outcome], str] = {Scored: "scored", NotApplicable: "not_applicable", Failed: "failed"}


def _part_json(part: RewardPart) -> dict[str, Any]:
    return {
        "verifier": part.term.verifier,
        "component": part.term.component,
        "weight": part.term.weight,
        "value": part.value,
        "contribution": part.contribution,
        "dropped_because": part.dropped_because,
        **outcome_json(part.outcome),
        "from_cache": part.from_cache,
    }


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """A score with its components and evidence, or why there is none."""
    scored = outcome if isinstance(outcome, Scored) else None
    return {
        "outcome": outcome_word(outcome),
        "reason": "" if isinstance(outcome, Scored) else outcome.reason,
        "detail": "" if isinstance(outcome, Scored) else outcome.detail,
        "belief": scored.belief if scored else None,
        "components": dict(scored.components) if scored else {},
        "evidence": [_evidence_json(evidence) for evidence in scored.evidence] if scored else [],
    }


# A reply has thousands of these, and `asdict` takes twenty times as long (6 against 0.2 µs each).
def _evidence_json(evidence: Evidence) -> dict[str, Any]:
    return {
        "text": evidence.text,
        "source": evidence.source,
        "simulated": evidence.simulated,
        "quote": None if evidence.quote is None else asdict(evidence.quote),
    }


def _task_json(task: Task) -> dict[str, Any]:
    return {task.kind.value: {name: getattr(task, name) for name in task.__match_args__}}
