"""NeMo Gym's own web server with our verifier, over its HTTP form."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient
from nemo_gym.server_utils import ServerClient

from bioverify.adapters.nemo_gym import BioverifyConfig, BioverifyResourcesServer
from tests.frameworks.rollouts import KNOWN, PATIENCE_S, QUESTION, RECIPE, TARGET, UNKNOWN, task_of, tell

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
    missing = verified(http, QUESTION.format(UNKNOWN[0]), message(UNKNOWN[1]))
tell(
    rewards=[one["reward"] for one in scored],
    masked=[one["mask_sample"] for one in scored],
    by_field=by_field["reward"],
    unscorable={name: missing[name] for name in ("reward", "mask_sample", "failure_kind", "failure_reason")},
)
