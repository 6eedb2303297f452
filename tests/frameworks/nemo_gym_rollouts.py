"""NeMo Gym's own web server with our verifier, over its HTTP form."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient
from nemo_gym.server_utils import ServerClient

from bioverify.adapters.nemo_gym import BioverifyConfig, BioverifyResourcesServer
from tests.frameworks.rollouts import (
    KNOWN,
    PATIENCE_S,
    QUESTION,
    RECIPE,
    TARGET,
    UNKNOWN,
    cases,
    is_written,
    task_of,
    tell,
)

config = BioverifyConfig(
    host="127.0.0.1", port=1, entrypoint="app.py", name="bioverify", target=TARGET, recipe=RECIPE, patience_s=PATIENCE_S
)
server = BioverifyResourcesServer(config=config, server_client=ServerClient.model_construct())


def message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}


def response(*output: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "r", "created_at": 0, "model": "policy", "object": "response", "output": list(output),
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def output_of(completion: Any) -> list[dict[str, Any]]:
    """A completion's text or messages as items of the responses form."""
    if isinstance(completion, str):
        return [message(completion)]
    items: list[dict[str, Any]] = []
    for turn in completion:
        if turn["role"] == "tool":
            items.append({"type": "function_call_output", "call_id": "c", "output": turn["content"]})
        if thought := turn.get("reasoning_content"):
            content = [{"type": "reasoning_text", "text": thought}]
            items.append({"type": "reasoning", "id": "t", "summary": [], "content": content})
        if turn["role"] == "assistant" and isinstance(turn["content"], str):
            items.append(message(turn["content"]))
    return items


def case_s(http: TestClient, case: dict[str, Any]) -> float | None:
    told = verified(http, case["prompt"], *output_of(case["completion"]))
    return None if told["mask_sample"] else told["reward"]


def has_items(completion: Any) -> bool:
    """Whether the responses form can hold it: it has texts and the turns of assistant and tool."""
    return is_written(completion) or (
        isinstance(completion, list)
        and all(
            turn["role"] in ("assistant", "tool") and (turn["content"] is None or isinstance(turn["content"], str))
            for turn in completion
        )
    )


def verified(http: TestClient, asked: Any, *output: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"responses_create_params": {"input": asked}, "response": response(*output), **more}
    answer = http.post("/verify", json=body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


with TestClient(server.setup_webserver()) as http:
    turns = [{"role": "developer", "content": "Think."}, {"role": "user", "content": QUESTION.format("A")}]
    scored = [verified(http, turns, message(text)) for _, text in KNOWN]
    summary = [{"type": "summary_text", "text": "So."}]
    apart = {"type": "reasoning", "id": "t", "summary": summary}
    by_field = verified(http, "Which?", apart, message(" <answer>yes</answer>"), bioverify=task_of("A"))
    doors = {name: case_s(http, case) for name, case in cases().items() if has_items(case["completion"])}
    missing = verified(http, QUESTION.format(UNKNOWN[0]), message(UNKNOWN[1]))
tell(
    doors=doors,
    rewards=[one["reward"] for one in scored],
    masked=[one["mask_sample"] for one in scored],
    by_field=by_field["reward"],
    unscorable={name: missing[name] for name in ("reward", "mask_sample", "failure_kind", "failure_reason")},
)
