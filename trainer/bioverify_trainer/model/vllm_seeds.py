"""Seeds for vLLM: what is sampled depends on ``grpo.seed``, the step, the redraw and the place in the batch alone.

TRL gives vLLM no such seed: beside the trainer every run begins with that of its process, after a resume again, and a
server has whatever it was started with. One seed for a whole call, as ``grpo.generation_kwargs`` could give it, would
be worse: a group is the same prompt several times, and all its completions would be alike. So each request has its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from trl.generation.vllm_generation import VLLMGeneration

_AT_ONCE = 64


def give_seeds(generation: VLLMGeneration, *, seed: int, call: Callable[[], Sequence[int]]) -> None:
    """Every later request of ``generation`` has a seed; ``call`` tells at each call what sets it apart from others."""
    # Processes that share one model write the same completions, so they need the same seeds.
    place = generation.accelerator.process_index // generation.tensor_parallel_size

    def seeds(requests: int) -> list[int]:
        words = np.random.SeedSequence([seed, *call(), place]).generate_state(requests)
        return [int(word) for word in words]

    if generation.mode == "colocate":
        engine: Any = generation.llm
        engine.generate = _seeded_engine(engine.generate, seeds)
    elif generation.accelerator.is_main_process:
        client: Any = generation.vllm_client
        client.generate = _seeded_client(client.generate, seeds)


def _seeded_engine(generate: Callable[..., Any], seeds: Callable[[int], list[int]]) -> Callable[..., Any]:
    def seeded(prompts: list[Any], *, sampling_params: Any, **options: Any) -> Any:
        each = []
        for seed in seeds(len(prompts)):
            own = copy.copy(sampling_params)
            own.seed = seed
            each.append(own)
        return generate(prompts, sampling_params=each, **options)

    return seeded


def _seeded_client(generate: Callable[..., Any], seeds: Callable[[int], list[int]]) -> Callable[..., Any]:
    """One request per prompt; vLLM gives its n completions the seeds from there on."""

    def seeded(
        *, prompts: list[list[int]], features: None, generation_kwargs: dict[str, Any] | None, **options: Any
    ) -> dict[str, Any]:
        def ask(prompt: list[int], seed: int) -> dict[str, list[Any]]:
            reply: dict[str, list[Any]] = generate(
                prompts=[prompt],
                features=features,
                generation_kwargs={**(generation_kwargs or {}), "seed": seed},
                **options,
            )
            return reply

        with ThreadPoolExecutor(min(_AT_ONCE, len(prompts))) as pool:
            replies = list(pool.map(ask, prompts, seeds(len(prompts))))
        return {key: [one for reply in replies for one in reply[key]] for key in replies[0]}

    return seeded
