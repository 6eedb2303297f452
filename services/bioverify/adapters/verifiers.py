"""PrimeIntellect's verifiers: a reward function, to be plugged into any taskset or to stand in a task.

```python
# my_rewards.py, plugged in by: --env.taskset.task.rewards.bioverify.fn my_rewards:bioverify
from bioverify.adapters.verifiers import make_reward
bioverify = make_reward("127.0.0.1:15050", "rbio1-exp")
```

The task's data may have a field ``bioverify`` (`bioverify.adapters.reading`). Without a reward the function raises:
verifiers records a TaskError on the trace, whose reward is unset, and its trainers leave such a rollout out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bioverify.adapters.alone import PATIENCE_S, Alone
from bioverify.adapters.reading import read_rollout
from bioverify.client import ScoreItem


def make_reward(target: str, recipe: str, *, patience_s: float = PATIENCE_S) -> Callable[[Any, Any], Awaitable[float]]:
    """A reward of verifiers, by the names ``task`` (its data) and ``trace``. It raises NoRewardError."""
    alone = Alone(target, recipe, patience_s)

    async def bioverify(task: Any, trace: Any) -> float:
        return await asyncio.to_thread(alone.reward, _read(task, trace))

    return bioverify


def _read(task: Any, trace: Any) -> ScoreItem:
    data = task.model_dump(mode="json", exclude_none=True)
    prompt = data.get("prompt", "")
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if system := data.get("system_prompt"):
        turns = [{"role": "system", "content": system}, *turns]
    # A reply that only calls a tool has no text; what it thought comes in front of what was said later.
    replies = [
        {"role": "assistant", "content": reply.content, "reasoning_content": reply.reasoning_content}
        for reply in trace.assistant_messages
    ]
    return read_rollout(replies, turns, data.get("bioverify"))
