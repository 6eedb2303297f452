"""Completions of a policy to PerturbQA questions, as the JSONL that ``bioverify score`` reads.

They are scored later and elsewhere, so this needs no running service.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe
from bioverify_trainer.dataset import Draw, open_prompts
from bioverify_trainer.model.generation import complete
from bioverify_trainer.model.policy import open_for, use_threads
from bioverify_trainer.preset import Preset
from bioverify_trainer.prompts import Turn, make_prompt

# Decoding a batch this large costs hardly more than decoding one completion, and it fits beside the services.
_BATCH = 16


def generate_file(
    path: Path,
    recipe: Recipe,
    preset: Preset,
    store: ArtifactStore,
    *,
    model: str = "",
    n: int,
    per_prompt: int,
    seed: int,
    progress: Callable[[int], None],
) -> None:
    """Write ``n`` completions, ``per_prompt`` to each question, to ``path``; ``progress`` hears how many are done.

    ``model``: who answers, if it is not the preset's policy.
    """
    use_threads(preset.launcher.threads)
    prompts = open_prompts(store, recipe, seed=seed, wanted=preset.prompts)
    policy = open_for(preset, model)
    draws = [prompts.draw(index // per_prompt) for index in range(n)]
    # Sampling must not depend on what ran before.
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for start in range(0, n, _BATCH):
            batch = draws[start : start + _BATCH]
            conversations = [
                make_prompt(
                    draw.task,
                    draw.prompt_form,
                    example_turns=preset.prompts.example_turns,
                    chain_of_thought=preset.prompts.chain_of_thought,
                )
                for draw in batch
            ]
            completions = complete(
                policy,
                conversations,
                max_tokens=preset.grpo.max_completion_length,
                temperature=preset.grpo.temperature,
            )
            for offset, (draw, prompt, completion) in enumerate(zip(batch, conversations, completions, strict=True)):
                file.write(json.dumps(_line(start + offset, draw, prompt, completion)) + "\n")
            progress(len(batch))


def _line(index: int, draw: Draw, prompt: list[Turn], completion: str) -> dict[str, object]:
    return {
        "id": f"c{index:04}",
        "group_id": draw.prompt_id,
        "prompt": prompt,
        "completion": completion,
        "task": {str(draw.task.kind): asdict(draw.task)},
    }
