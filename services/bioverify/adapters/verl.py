"""verl: a custom reward function, and a reward manager that also sees the prompt.

Either is named in the configuration, with where to ask in ``reward_kwargs``:

```console
$ … reward.reward_manager.source=importlib reward.reward_manager.name=BioverifyRewardManager \\
    reward.reward_manager.module.path=pkg://bioverify.adapters.verl \\
    +reward.custom_reward_function.reward_kwargs.target=127.0.0.1:15050 \\
    +reward.custom_reward_function.reward_kwargs.recipe=rbio1-exp
$ … reward.custom_reward_function.path=pkg://bioverify.adapters.verl     # and the two reward_kwargs
```

The function is not shown the prompt, so its rows need ``extra_info.bioverify`` with the task
(`bioverify.adapters.reading`); the manager's rows may have it. verl has no sample without a reward, and a NaN would
spread over its group: faults are waited for, and what stays missing ends training with NoRewardError.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from bioverify.adapters.alone import PATIENCE_S, Alone
from bioverify.adapters.reading import read_rollout
from bioverify.core import DEFAULT_RECIPE
from bioverify.core.conversation import opened_thought, without_tail_marks

if TYPE_CHECKING:
    from verl import DataProto


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    *,
    target: str,
    recipe: str = DEFAULT_RECIPE,
    patience_s: float = PATIENCE_S,
    **_of_reward_models: Any,
) -> dict[str, float]:
    """The reward of one rollout. Raises NoRewardError, ValueError if ``extra_info.bioverify`` is not of the form."""
    beside = (extra_info or {}).get("bioverify")
    return {"score": _alone(target, recipe, patience_s).reward(read_rollout(solution_str, "", beside))}


class BioverifyRewardManager(RewardManagerBase):  # type: ignore[misc]
    """Reads prompt and response out of the rollout, and asks without holding verl's event loop up."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **_of_reward_models: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        kwargs = config.reward.custom_reward_function.reward_kwargs
        self._alone = _alone(kwargs.target, kwargs.get("recipe", DEFAULT_RECIPE), kwargs.get("patience_s", PATIENCE_S))

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """The reward of the last sequence, as the managers of verl have it. Raises NoRewardError, ValueError."""
        # Decoding takes longer than asking.
        reward = await self.loop.run_in_executor(None, self._reward, data[-1:][0])
        return {"reward_score": reward, "reward_extra_info": {"score": reward}}

    def _reward(self, row: Any) -> float:
        prompts, responses = row.batch["prompts"], row.batch["responses"]
        attended = row.batch["attention_mask"]
        n_prompt = prompts.shape[-1]
        # <think> is a special token of some models, so special ones are kept and the marks at the end taken off.
        completion = without_tail_marks(self._text(responses[: attended[n_prompt:].sum()]))
        rendered = self._text(prompts[attended[:n_prompt].bool()])
        messages = row.non_tensor_batch.get("raw_prompt")
        # verl keeps them in an array of objects.
        prompt = rendered if messages is None else list(messages)
        beside = (row.non_tensor_batch.get("extra_info") or {}).get("bioverify")
        return self._alone.reward(read_rollout(completion, prompt, beside, prefix=opened_thought(rendered)))

    def _text(self, tokens: Any) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False)
        return text


@lru_cache
def _alone(target: str, recipe: str, patience_s: float) -> Alone:
    """One client for the many rewards of a worker."""
    return Alone(target, recipe, patience_s)
