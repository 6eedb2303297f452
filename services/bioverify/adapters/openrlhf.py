"""OpenRLHF: a reward function for ``--reward.remote_url FILE.py``, and how its remote reward model's form is read.

A request holds ``query`` (prompt and completion as one text, special tokens and all), ``prompts`` and ``labels``, all
equally long. A label that begins with ``{`` is the row's `bioverify` field (`bioverify.adapters.reading`); another one
is not read. The gateway serves the same form over HTTP.

OpenRLHF logs an error of the function or of the endpoint and continues without the reward, and then ends training,
because it has no sample without one. So faults are waited for here.

```python
# rewards.py
from bioverify.adapters.openrlhf import make_reward_func
reward_func = make_reward_func("127.0.0.1:15050", "rbio1-exp")
```
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bioverify.adapters.alone import PATIENCE_S, Alone
from bioverify.adapters.reading import read_rollout
from bioverify.client import ScoreItem
from bioverify.core.conversation import without_tail_marks


def read_items(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> list[ScoreItem]:
    """Raises ValueError with the path of what does not fit."""
    if not len(queries) == len(prompts) == len(labels):
        lengths = f"{len(queries)}, {len(prompts)}, {len(labels)}"
        raise ValueError(f"query, prompts and labels are not equally long: {lengths}")
    items = []
    for index, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True)):
        if not query.startswith(prompt):
            raise ValueError(f"query[{index}] does not begin with prompts[{index}]; was the prompt cut to fit?")
        completion = without_tail_marks(query[len(prompt) :])
        beside = label if isinstance(label, str) and label.lstrip().startswith("{") else None
        try:
            items.append(read_rollout(completion, prompt, beside, str(index)))
        except ValueError as error:
            raise ValueError(f"labels[{index}]: {error}") from error
    return items


def make_reward_func(
    target: str, recipe: str, *, patience_s: float = PATIENCE_S
) -> Callable[[Sequence[str], Sequence[str], Sequence[Any]], dict[str, Any]]:
    """The ``reward_func`` of such a file. It raises NoRewardError if there is no reward."""
    import torch

    alone = Alone(target, recipe, patience_s)

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        rewards = torch.tensor(alone.rewards(read_items(queries, prompts, labels)))
        # "scores" are what OpenRLHF's dynamic filtering goes by.
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}

    return reward_func
