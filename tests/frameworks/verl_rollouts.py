"""verl's own loaders of reward managers and functions, its rollouts, and its advantages over what they give."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager

from bioverify.adapters.alone import NoRewardError
from tests.frameworks.rollouts import (
    KNOWN,
    PATIENCE_S,
    QUESTION,
    RECIPE,
    TARGET,
    UNKNOWN,
    cases,
    error_of,
    is_written,
    task_of,
    tell,
)

KWARGS = {"target": TARGET, "recipe": RECIPE, "patience_s": PATIENCE_S}
MODULE = "pkg://bioverify.adapters.verl"
WIDTH = 600
"""Tokens of a prompt and of a response, with their padding."""


class Characters:
    """A tokenizer with a token for every character."""

    def decode(self, tokens: Any, **_options: Any) -> str:
        return "".join(map(chr, tokens.tolist()))


def config(**function: Any) -> Any:
    manager = {"source": "importlib", "name": "BioverifyRewardManager", "module": {"path": MODULE}}
    chosen = {"reward_manager": manager, "custom_reward_function": {"path": None, "reward_kwargs": KWARGS} | function}
    return OmegaConf.create({"reward": chosen})


def rollouts(pairs: list[tuple[str, str]], raw_prompt: Any = None) -> DataProto:
    """Prompts are padded on the left, responses on the right. ``raw_prompt``: messages, if the row has them."""
    prompts, responses, masks = [], [], []
    for asked, completion in pairs:
        prompt, response = [*map(ord, asked)], [*map(ord, completion)]
        prompts.append([0] * (WIDTH - len(prompt)) + prompt)
        responses.append(response + [0] * (WIDTH - len(response)))
        mask = [0] * (WIDTH - len(prompt)) + [1] * len(prompt) + [1] * len(response) + [0] * (WIDTH - len(response))
        masks.append(mask)
    tensors = {"prompts": prompts, "responses": responses, "attention_mask": masks}
    beside = {}
    if raw_prompt is not None:
        kept = np.empty(len(pairs), dtype=object)
        kept[:] = [np.array(raw_prompt, dtype=object)] * len(pairs)
        beside = {"raw_prompt": kept}
    return DataProto.from_dict({name: torch.tensor(rows) for name, rows in tensors.items()}, beside)


def function_s(gene: str, completion: str) -> float:
    compute_score = get_custom_reward_fn(config(path=MODULE, name="compute_score"))
    return compute_score("bioverify", completion, None, extra_info={"bioverify": task_of(gene)})["score"]


async def manager_s(data: DataProto) -> list[float]:
    manager = load_reward_manager(config(), Characters())
    return [(await manager.run_single(data[index : index + 1]))["reward_score"] for index in range(len(data))]


def case_s(case: dict[str, Any]) -> float | None:
    """The manager's reward of what somebody sent, or none."""
    prompt, messages = case["prompt"], None
    if not isinstance(prompt, str):
        messages = prompt
        prompt = "".join(f"{turn['role']}: {turn['content']}\n" for turn in messages) + "assistant: "
    try:
        return asyncio.run(manager_s(rollouts([(prompt, case["completion"])], messages)))[0]
    except (NoRewardError, ValueError):
        return None


def asked(rollout: tuple[str, str]) -> tuple[str, str]:
    return QUESTION.format(rollout[0]), rollout[1]


data = rollouts([*map(asked, KNOWN)])
scores = asyncio.run(manager_s(data))
manager_class = type(load_reward_manager(config(), Characters()))
token_rewards = manager_class.assemble_rm_scores(data, scores)
mask = data.batch["attention_mask"][:, WIDTH:]
advantages, _ = compute_grpo_outcome_advantage(token_rewards, mask, np.array(["one", "one"]))
tell(
    manager=scores,
    function=[function_s(*rollout) for rollout in KNOWN],
    doors={name: case_s(case) for name, case in cases().items() if is_written(case["completion"])},
    advantages=advantages[:, 0].tolist(),
    unscorable=[
        error_of(lambda: asyncio.run(manager_s(rollouts([asked(UNKNOWN)])))),
        error_of(lambda: function_s(*UNKNOWN)),
    ],
)
