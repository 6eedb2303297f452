"""OpenRLHF's own executor of single turns, over HTTP and by a reward file. Its engine and tokenizer are plain."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from openrlhf.utils.agent import SingleTurnAgentExecutor

from tests.frameworks.rollouts import HTTP, KNOWN, PATIENCE_S, QUESTION, RECIPE, TARGET, UNKNOWN, tell

END = "<|im_end|>"


class Characters:
    """A tokenizer with a token for every character."""

    def __call__(self, text: str, **_options: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[ord(character) for character in text]])}

    def decode(self, tokens: list[int], **_options: Any) -> str:
        return "".join(map(chr, tokens))


class Engine:
    """Writes what it was told to."""

    def __init__(self, completion: str) -> None:
        self.completion = completion

    async def generate(self, tokens: list[int], parameters: Any, multi_modal_data: Any = None) -> Any:
        written = [ord(character) for character in self.completion + END]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=written, finish_reason="stop", logprobs=None)])


def reward(executor: SingleTurnAgentExecutor, gene: str, completion: str) -> Any:
    prompt = f"<|im_start|>user\n{QUESTION.format(gene)}{END}\n<|im_start|>assistant\n"
    parameters = SimpleNamespace(max_tokens=200, logprobs=None)
    rollout = executor.execute(prompt, "yes", parameters, 4096, Characters(), Engine(completion))
    given = asyncio.run(rollout)["reward"]
    # As its samples_generator makes a tensor of it.
    return None if given is None else torch.tensor([given]).flatten().tolist()


with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "rewards.py"
    file.write_text(
        "from bioverify.adapters.openrlhf import make_reward_func\n"
        f"reward_func = make_reward_func({TARGET!r}, {RECIPE!r}, patience_s={PATIENCE_S})\n"
    )
    by_http = SingleTurnAgentExecutor(f"{HTTP}/v1/openrlhf/{RECIPE}")
    by_file = SingleTurnAgentExecutor(str(file))
    tell(
        http=[reward(by_http, *rollout) for rollout in KNOWN],
        file=[reward(by_file, *rollout) for rollout in KNOWN],
        unscorable=[reward(by_http, *UNKNOWN), reward(by_file, *UNKNOWN)],
    )
