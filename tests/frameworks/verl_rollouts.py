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

from tests.frameworks.rollouts import KNOWN, PATIENCE_S, QUESTION, RECIPE, TARGET, UNKNOWN, error_of, task_of, tell

KWARGS = {"target": TARGET, "recipe": RECIPE, "patience_s": PATIENCE_S}
MODULE = "pkg://bioverify.adapters.verl"
WIDTH = 200


class Characters:
    """A tokenizer with a token for every character."""

    def decode(self, tokens: Any, **_options: Any) -> str:
        return "".join(map(chr, tokens.tolist()))


def config(**function: Any) -> Any:
    manager = {"source": "importlib", "name": "BioverifyRewardManager", "module": {"path": MODULE}}
    chosen = {"reward_manager": manager, "custom_reward_function": {"path": None, "reward_kwargs": KWARGS} | function}
    return OmegaConf.create({"reward": chosen})


def rollouts(pairs: list[tuple[str, str]]) -> DataProto:
    """Prompts are padded on the left, responses on the right."""
    prompts, responses, masks = [], [], []
    for gene, completion in pairs:
        prompt, response = [*map(ord, QUESTION.format(gene))], [*map(ord, completion)]
        prompts.append([0] * (WIDTH - len(prompt)) + prompt)
        responses.append(response + [0] * (WIDTH - len(response)))
        mask = [0] * (WIDTH - len(prompt)) + [1] * len(prompt) + [1] * len(response) + [0] * (WIDTH - len(response))
        masks.append(mask)
    tensors = {"prompts": prompts, "responses": responses, "attention_mask": masks}
    return DataProto.from_dict(tensors={name: torch.tensor(rows) for name, rows in tensors.items()})


def function_s(gene: str, completion: str) -> float:
    compute_score = get_custom_reward_fn(config(path=MODULE, name="compute_score"))
    return compute_score("bioverify", completion, None, extra_info={"bioverify": task_of(gene)})["score"]


async def manager_s(data: DataProto) -> list[float]:
    manager = load_reward_manager(config(), Characters())
    return [(await manager.run_single(data[index : index + 1]))["reward_score"] for index in range(len(data))]


data = rollouts(KNOWN)
scores = asyncio.run(manager_s(data))
manager_class = type(load_reward_manager(config(), Characters()))
token_rewards = manager_class.assemble_rm_scores(data, scores)
mask = data.batch["attention_mask"][:, WIDTH:]
advantages, _ = compute_grpo_outcome_advantage(token_rewards, mask, np.array(["one", "one"]))
tell(
    manager=scores,
    function=[function_s(*rollout) for rollout in KNOWN],
    advantages=advantages[:, 0].tolist(),
    unscorable=[error_of(lambda: asyncio.run(manager_s(rollouts([UNKNOWN])))), error_of(lambda: function_s(*UNKNOWN))],
)
