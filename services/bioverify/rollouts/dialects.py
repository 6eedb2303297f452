"""Records of other tools as items: whoever wrote the file, its prompt and its completion stand somewhere.

A record is read if it holds both and one completion; otherwise `DialectError` says what it is, and how to convert it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bioverify.errors import BioverifyError

WANTED = "prompt (or messages, or task) and completion"
MOST_KEYS = 12


class DialectError(BioverifyError, ValueError):
    """The record is no item. The text names the keys found, the keys wanted, and the line that converts."""


def as_item(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record with the keys of an item. Raises DialectError."""
    if "completion" in record or "messages" in record:
        return record
    for reads in (_lm_eval, _verl, _vllm, _openai_batch, _chat_completion):
        if (read := reads(record)) is not None:
            return read
    raise DialectError(_missing(record))


def _lm_eval(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """lm-evaluation-harness, --log_samples."""
    if not record.keys() >= {"doc", "arguments", "resps"}:
        return None
    asked = record["arguments"]
    # A list of requests, or (newer) "gen_args_0": {"arg_0": …, "arg_1": …}.
    first = next(iter(asked.values() if isinstance(asked, Mapping) else asked), None)
    prompt = first.get("arg_0") if isinstance(first, Mapping) else first[0] if isinstance(first, list) else None
    completions = [text for texts in record["resps"] for text in (texts if isinstance(texts, list) else [texts])]
    if not isinstance(prompt, str):
        raise DialectError("a sample of lm-eval whose first request is no text; only generate_until has completions")
    return {
        "id": record.get("doc_id"),
        "prompt": prompt,
        "completion": _only(completions, "a sample of lm-eval", "resps"),
    }


def _verl(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """verl, trainer.rollout_data_dir."""
    if not record.keys() >= {"input", "output", "score", "step"}:
        return None
    group = f"{record['step']}/{record['input']}"
    return {"prompt": record["input"], "completion": record["output"], "group_id": group}


def _vllm(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """vLLM's RequestOutput as JSON."""
    if not record.keys() >= {"prompt", "outputs"} or not isinstance(record["outputs"], list):
        return None
    texts = [output.get("text") if isinstance(output, Mapping) else output for output in record["outputs"]]
    return {"id": record.get("request_id"), "prompt": record["prompt"], "completion": _only(texts, "vLLM's", "outputs")}


def _openai_batch(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not record.keys() >= {"custom_id", "response"}:
        return None
    raise DialectError(
        "a line of OpenAI's batch output, which does not hold the question. Join it with the batch's input: "
        "jq -cn --slurpfile asked INPUT.jsonl 'INDEX($asked[]; .custom_id) as $q | inputs | {id: .custom_id, "
        "messages: $q[.custom_id].body.messages, completion: [.response.body.choices[0].message]}' OUTPUT.jsonl"
    )


def _chat_completion(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if "choices" not in record:
        return None
    raise DialectError(
        "a reply of a chat endpoint, which does not hold the question. Keep it beside: "
        '{"messages": [what was sent], "completion": [choices[0].message]}'
    )


def _only(completions: list[Any], what: str, key: str) -> Any:
    if len(completions) == 1:
        return completions[0]
    raise DialectError(f"{what} record with {len(completions)} completions in {key}; write one line for each of them")


_QUESTIONS = ("question", "query", "instruction", "input", "problem")
_ANSWERS = ("response", "output", "generation", "generated_text", "answer", "text", "prediction", "outputs")


def _missing(record: Mapping[str, Any]) -> str:
    found = [str(key)[:40] for key in record]
    more = f" and {len(found) - MOST_KEYS} more" if len(found) > MOST_KEYS else ""
    question = next((key for key in ("prompt", *_QUESTIONS) if key in record), "QUESTION")
    answer = next((key for key in _ANSWERS if key in record), "ANSWER")
    return (
        f"completion is missing; found: {', '.join(found[:MOST_KEYS]) or 'no key'}{more}; wanted: {WANTED}. "
        f"Convert: jq -c '{{prompt: .{question}, completion: .{answer}}}' FILE"
    )
