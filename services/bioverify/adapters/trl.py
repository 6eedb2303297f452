"""TRL: a reward function for the ``reward_funcs`` of a `GRPOTrainer` of one's own, and what it shares with our trainer.

The members of a group may sit on several processes, and a term that is missing for one of them has to be dropped for
all. So the items of all processes are brought together, the main process asks once for everything, and every process
takes its own rows out of the same reply. Rows with the same prompt are a group.

A row that cannot be scored comes back as None, which TRL leaves out of the group's mean and gives no advantage; so does
every row of a call that failed, because an exception would end the run and a number would be a lie.

```python
trainer = GRPOTrainer(model, reward_funcs=make_reward("127.0.0.1:15050", "rbio1-exp"), train_dataset=questions, …)
```

The dataset may have a column ``bioverify`` (`bioverify.adapters.reading`). ``bioverify train`` does more: it waits
for services that are away, keeps samples with their evidence and logs every verifier.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from accelerate import PartialState  # type: ignore[import-untyped]
from accelerate.utils import broadcast_object_list, gather_object  # type: ignore[import-untyped]

from bioverify.adapters.decoding import decoder, special_tags
from bioverify.adapters.reading import read_rollout
from bioverify.client import Client, ClientError, ScoredBatch, ScoreItem, TlsIdentity
from bioverify.core.conversation import REASONING_KEYS, opened_thought
from bioverify.core.recipes import Recipe

logger = logging.getLogger(__name__)

RewardFunction = Callable[..., list[float | None]]


@dataclass(frozen=True, slots=True)
class LostCall:
    """A call that brought nothing, whether asking again may, and whether it was asked wrongly."""

    why: str
    may_pass: bool
    is_callers_mistake: bool


def ask(
    client: Client, items: Sequence[ScoreItem], recipe: str | Recipe, *, deadline_s: float, with_evidence: bool = False
) -> ScoredBatch | LostCall:
    """The rewards. A call that fails says nothing about the completions: they have no reward, and the run continues.

    Any other exception is a fault of our own code, and is raised.
    """
    try:
        return client.score(items, recipe, deadline_s=deadline_s, with_evidence=with_evidence)
    except ClientError as error:
        return LostCall(f"the call failed: {error}", error.may_pass, error.refusal.is_callers_mistake)


def on_main_process(ask: Callable[[], ScoredBatch | LostCall]) -> ScoredBatch | LostCall:
    """What the main process was answered, on every process."""
    reply: list[ScoredBatch | LostCall | None] = [ask() if PartialState().is_main_process else None]
    broadcast_object_list(reply)
    assert reply[0] is not None
    return reply[0]


def template_prefix(tokenizer: Any, prompt: Any, template_arguments: Mapping[str, Any]) -> str:
    """The thought that the tokenizer's chat template opens behind the prompt; empty if it opens none."""
    if isinstance(prompt, str):
        return opened_thought(prompt)
    rendered = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False, **template_arguments)
    return opened_thought(rendered)


def make_reward(
    target: str,
    recipe: str | Recipe,
    *,
    deadline_s: float = 60,
    tokenizer: Any = None,
    template_arguments: Mapping[str, Any] | None = None,
) -> RewardFunction:
    """The reward function. ``recipe``: a name, or a recipe of one's own. It raises ValueError for a wrong question.

    ``tokenizer``: the trainer's, if its chat template ends by opening a thought, which is then no part of completions,
    or if tags are special tokens of it, which TRL's decoding loses; ``template_arguments``: the trainer's
    ``chat_template_kwargs``.
    """
    decode = decoder(tokenizer) if tokenizer is not None and special_tags(tokenizer) else None
    client = Client(target, tls=TlsIdentity.from_environment())

    def bioverify_reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        completion_ids: Sequence[Sequence[int]] | None = None,
        bioverify: Sequence[Any] | None = None,
        log_metric: Callable[[str, float], None],
        **_other_columns: Any,
    ) -> list[float | None]:
        first = PartialState().process_index * len(completions)
        prefix = (
            template_prefix(tokenizer, prompts[0], template_arguments or {})
            if tokenizer is not None and prompts
            else ""
        )
        here = []
        for row, completion in enumerate(completions):
            beside = bioverify[row] if bioverify else None
            if decode is not None and completion_ids is not None and _is_one_text(completion):
                completion = decode(completion_ids[row])
            item = replace(
                read_rollout("", prompts[row], beside, str(first + row), prefix=prefix),
                # One that cannot be read costs no other its reward.
                completion=completion,
            )
            here.append(item if item.group_id else replace(item, group_id=_group_of(prompts[row])))
        items: list[ScoreItem] = gather_object(here)
        reply = on_main_process(lambda: ask(client, items, recipe, deadline_s=deadline_s))
        if isinstance(reply, LostCall):
            # A recipe that does not exist, or a call that is too large, would train on nothing for ever. Every process
            # sees the same reply.
            if reply.is_callers_mistake:
                raise ValueError(reply.why)
            logger.warning("%d completions have no reward, %s", len(items), reply.why)
            rewards: list[float | None] = [None] * len(items)
        else:
            rewards = [reward.reward for reward in reply.rewards]
        log_metric("bioverify/unscorable", rewards.count(None) / max(1, len(rewards)))
        return rewards[first : first + len(here)]

    return bioverify_reward


def _is_one_text(completion: Any) -> bool:
    """Whether all tokens are the assistant's final text: no tool spoke, and TRL has split no reasoning off."""
    if isinstance(completion, str):
        return True
    return len(completion) == 1 and not any(completion[0].get(key) for key in REASONING_KEYS)


def _group_of(prompt: Any) -> str:
    return hashlib.sha256(orjson.dumps(prompt)).hexdigest()
