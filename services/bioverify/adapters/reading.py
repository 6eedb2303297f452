"""A rollout of any framework as an item: text and reasoning out of its messages, and what its dataset says beside them.

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


def read_rollout(
    completion: Any,
    prompt: Any,
    beside: Mapping[str, Any] | str | None = None,
    item_id: str = "0",
    *,
    prefix: str = "",
) -> ScoreItem:
    """``completion``, ``prompt``: text or messages; ``beside``: the row's field ``bioverify``. Raises ValueError for
    anything else, with the field.

    ``prefix``: what the rendered prompt ended with (`bioverify.core.conversation.opened_thought`).
    """
    try:
        fields = orjson.loads(beside) if isinstance(beside, str) else beside or {}
        if not isinstance(fields, Mapping):
            raise ValueError(f"bioverify: an object with task, source …, not {fields!r}")  # noqa: TRY004 - as below
        fields = {"prefix": prefix, **without_nulls(fields), "prompt": prompt, "completion": completion}
        item = StrictItem.model_validate(fields)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"bioverify: not JSON ({error})") from error
    except ValidationError as error:
        raise ValueError(first_problem(error, StrictItem, "bioverify")) from error
    rollout = item.score_item(item_id, "" if item.group_id is None else str(item.group_id))
    # One that breaks the contract would take the others of its call along.
    checked(rollout)
    return rollout
