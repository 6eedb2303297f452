"""A rollout of any framework as an item: text out of its messages, and what its dataset says beside them.

A row of the dataset may have a field ``bioverify``: a JSON object, or its text, with ``task``, ``source``,
``prompt_form`` or ``group_id`` (`bioverify.client.json_form`). Without it the task is read off the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import ValidationError

from bioverify.client import ScoreItem
from bioverify.client.json_form import StrictItem
from bioverify.client.messages import checked
from bioverify.client.rows import without_nulls
from bioverify.settings import first_problem

_ROLES = {"developer": "system"}
"""OpenAI's newer name for it."""


def read_rollout(
    completion: str,
    prompt: Any,
    beside: Mapping[str, Any] | str | None = None,
    item_id: str = "0",
) -> ScoreItem:
    """``prompt``: text or messages; ``beside``: the row's field ``bioverify``. Raises ValueError for anything else."""
    turns = [_turn(message) for message in prompt] if isinstance(prompt, list | tuple) else prompt
    try:
        fields = orjson.loads(beside) if isinstance(beside, str) else beside or {}
        if not isinstance(fields, Mapping):
            raise ValueError(f"bioverify: an object with task, source …, not {fields!r}")  # noqa: TRY004 - as below
        item = StrictItem.model_validate({**without_nulls(fields), "prompt": turns, "completion": completion})
    except orjson.JSONDecodeError as error:
        raise ValueError(f"bioverify: not JSON ({error})") from error
    except ValidationError as error:
        raise ValueError(first_problem(error, StrictItem, "bioverify")) from error
    rollout = item.score_item(item_id, "" if item.group_id is None else str(item.group_id))
    # One that breaks the contract would take the others of its call along.
    checked(rollout)
    return rollout


def text_of(content: Any) -> Any:
    """A message's text, also if it comes in parts. Parts that are no text (images) are left out."""
    if not isinstance(content, list):
        return content
    return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def with_reasoning(reasoning: str | None, text: str) -> str:
    """The completion as the model wrote it, if a server has cut the reasoning out of it."""
    return f"<think>{reasoning}</think>{text}" if reasoning else text


def _turn(message: Any) -> Any:
    # What is no message is left for the check of the whole item, which says so.
    if not isinstance(message, dict):
        return message
    role = message.get("role")
    return {"role": _ROLES.get(str(role), role), "content": text_of(message.get("content"))}
