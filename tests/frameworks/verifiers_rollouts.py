"""A task of PrimeIntellect's verifiers with our reward plugged in by its configuration, scoring traces."""

from __future__ import annotations

import asyncio
import sys
import types
from typing import Any

import verifiers.v1 as vf
from verifiers.v1.graph import MessageNode
from verifiers.v1.trace import Trace, TraceTask
from verifiers.v1.types import AssistantMessage

from bioverify.adapters.verifiers import make_reward
from tests.frameworks.rollouts import KNOWN, PATIENCE_S, QUESTION, RECIPE, TARGET, UNKNOWN, error_of, task_of, tell

# What a user's own module would hold.
plugged = types.ModuleType("plugged_rewards")
plugged.bioverify = make_reward(TARGET, RECIPE, patience_s=PATIENCE_S)  # type: ignore[attr-defined]
sys.modules["plugged_rewards"] = plugged
CONFIG = vf.TaskConfig(rewards={"bioverify": {"fn": "plugged_rewards:bioverify", "weight": 0.5}})


class Question(vf.TaskData):
    bioverify: dict[str, Any] | None = None


def scored(data: vf.TaskData, message: AssistantMessage) -> Trace:
    task = vf.Task(data, CONFIG)
    trace = Trace.model_construct(
        task=TraceTask(type="Question", data=data),
        nodes=[MessageNode(message=message, sampled=True)],
        rewards={},
        metrics={},
        root_reply=None,
    )
    traces.append(trace)
    asyncio.run(task.score(trace))
    return trace


traces: list[Trace] = []
by_prompt = [
    scored(Question(prompt=QUESTION.format(gene), system_prompt="Think."), AssistantMessage(content=text))
    for gene, text in KNOWN
]
# A server that parses reasoning gives it apart from the text.
apart = AssistantMessage(content=" <answer>yes</answer>", reasoning_content="So.")
by_field = scored(Question(prompt="Which?", bioverify=task_of("A")), apart)
failure = error_of(lambda: scored(Question(prompt=QUESTION.format(UNKNOWN[0])), AssistantMessage(content=UNKNOWN[1])))
tell(
    rewards=[trace.rewards["bioverify"].score for trace in by_prompt],
    weighted=[trace.reward for trace in by_prompt],
    by_field=by_field.rewards["bioverify"].score,
    unscorable=failure,
    left_unset=traces[-1].rewards["bioverify"] is None,
)
