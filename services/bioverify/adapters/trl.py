"""TRL: a reward function for the ``reward_funcs`` of a `GRPOTrainer` of one's own, and what it shares with our trainer.

The members of a group may sit on several processes, and a term that is missing for one of them has to be dropped for
all. So the items of all processes are brought together, the main process asks once for everything, and every process
takes its own rows out of the same reply. Rows with the same prompt are a group.

A row that cannot be scored comes back as None, which TRL leaves out of the group's mean and gives no advantage; so does
every row of a call that failed, because an exception would end the run and a number would be a lie.

```python
trainer = GRPOTrainer(model, reward_funcs=make_reward("127.0.0.1:15050", "rbio1-exp"), train_dataset=questions, …)
```

`GroupReward` is the same for TRL's `AsyncGRPOTrainer`. The dataset may have a column ``bioverify``
(`bioverify.adapters.reading`). ``bioverify train`` does more: it waits for services that are away, keeps samples with
their evidence and logs every verifier.
"""

from __future__ import annotations

import hashlib
import logging
import threading
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


@dataclass(frozen=True, slots=True)
class _Rollouts:
    """What TRL gives a reward function, as items. ``decode``: of tokens, if TRL's own decoding loses tags."""

    tokenizer: Any
    template_arguments: Mapping[str, Any]
    decode: Callable[[Sequence[int]], str] | None

    @classmethod
    def of(cls, tokenizer: Any, template_arguments: Mapping[str, Any] | None) -> _Rollouts:
        needs_own = tokenizer is not None and special_tags(tokenizer)
        return cls(tokenizer, template_arguments or {}, decoder(tokenizer) if needs_own else None)

    def items(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        beside: Sequence[Any] | None,
        *,
        first: int = 0,
    ) -> list[ScoreItem]:
        """``beside``: the dataset's column of facts; ``first``: the first row's number among those of all processes."""
        prefix = ""
        if self.tokenizer is not None and prompts:
            prefix = template_prefix(self.tokenizer, prompts[0], self.template_arguments)
        found = []
        for row, completion in enumerate(completions):
            if self.decode is not None and completion_ids is not None and _is_one_text(completion):
                completion = self.decode(completion_ids[row])
            item = replace(
                read_rollout("", prompts[row], beside[row] if beside else None, str(first + row), prefix=prefix),
                # One that cannot be read costs no other its reward.
                completion=completion,
            )
            found.append(item if item.group_id else replace(item, group_id=_group_of(prompts[row])))
        return found


def _rewards(reply: ScoredBatch | LostCall, n: int) -> list[float | None]:
    """One per item; all None after a call that brought nothing, but ValueError for one that was asked wrongly."""
    if not isinstance(reply, LostCall):
        return [reward.reward for reward in reply.rewards]
    # A recipe that does not exist, or a call that is too large, would train on nothing for ever.
    if reply.is_callers_mistake:
        raise ValueError(reply.why)
    logger.warning("%d completions have no reward, %s", n, reply.why)
    return [None] * n


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
    rollouts = _Rollouts.of(tokenizer, template_arguments)
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
        here = rollouts.items(prompts, completions, completion_ids, bioverify, first=first)
        items: list[ScoreItem] = gather_object(here)
        # Every process sees the same reply.
        reply = on_main_process(lambda: ask(client, items, recipe, deadline_s=deadline_s))
        rewards = _rewards(reply, len(items))
        log_metric("bioverify/unscorable", rewards.count(None) / max(1, len(rewards)))
        return rewards[first : first + len(here)]

    return bioverify_reward


class GroupReward:
    """The reward function for TRL's `AsyncGRPOTrainer`, which asks for the rewards of one group at a time.

    It does so in a process of its own, to which the function is sent by pickle: so this one connects at its first call,
    and talks to no other process of the trainer. The arguments are those of `make_reward`.
    """

    def __init__(
        self,
        target: str,
        recipe: str | Recipe,
        *,
        deadline_s: float = 60,
        tokenizer: Any = None,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._target = target
        self._recipe = recipe
        self._deadline_s = deadline_s
        self._tokenizer = tokenizer
        self._template_arguments = template_arguments
        self._opened: tuple[Client, _Rollouts] | None = None
        # TRL calls from threads, one group each.
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_opened": None, "_lock": threading.Lock()}

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        completion_ids: Sequence[Sequence[int]] | None = None,
        bioverify: Sequence[Any] | None = None,
        **_other_columns: Any,
    ) -> list[float | None]:
        with self._lock:
            if self._opened is None:
                client = Client(self._target, tls=TlsIdentity.from_environment())
                self._opened = client, _Rollouts.of(self._tokenizer, self._template_arguments)
        client, rollouts = self._opened
        items = rollouts.items(prompts, completions, completion_ids, bioverify)
        return _rewards(ask(client, items, self._recipe, deadline_s=self._deadline_s), len(items))


def _is_one_text(completion: Any) -> bool:
    """Whether all tokens are the assistant's final text: no tool spoke, and TRL has split no reasoning off."""
    if isinstance(completion, str):
        return True
    return len(completion) == 1 and not any(completion[0].get(key) for key in REASONING_KEYS)


def _group_of(prompt: Any) -> str:
    return hashlib.sha256(orjson.dumps(prompt)).hexdigest()
