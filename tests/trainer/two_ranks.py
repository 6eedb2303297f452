"""One of the processes of a training run over two: ``torchrun … -m tests.trainer.two_ranks JSON``.

Writes the completions of this process and their rewards as JSON lines. With ``fixed_completions`` nothing is sampled.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import DistributedType, PartialState

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe
from bioverify_trainer.dataset import open_prompts
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.preset import Preset
from bioverify_trainer.runs.folder import RunFolder
from bioverify_trainer.train import VerifiedTrainer, leave_process_group, make_trainer


def fixed_completions(trainer: Any) -> Any:
    """Sampling depends on the process; these completions depend on the prompt and the place in the group alone."""

    def generate(prompt_ids: list[list[int]], *_others: Any, **_options: Any) -> tuple[list[list[int]], None]:
        completions = []
        for row, prompt in enumerate(prompt_ids):
            place = (trainer.accelerator.process_index * len(prompt_ids) + row) % trainer.num_generations
            random = np.random.default_rng([place, *prompt])
            completions.append(random.integers(8, 200, size=random.integers(4, 12)).tolist())
        return completions, None

    return generate


def talk_over_gloo() -> None:
    """Without a GPU accelerate knows no way for DeepSpeed's processes to talk, and would start each alone."""
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_CPU)


def main(settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    if settings["preset"]["launcher"].get("deepspeed"):
        talk_over_gloo()
    preset, recipe = Preset.model_validate(settings["preset"]), Recipe.model_validate(settings["recipe"])
    folder = RunFolder(Path(settings["output"]))
    folder.path.mkdir(exist_ok=True)
    trainer = make_trainer(
        recipe,
        preset,
        open_policy(preset.policy.model, dtype=torch.float32),
        open_prompts(ArtifactStore(Path(settings["store"])), recipe, seed=0),
        target=settings["target"],
        folder=folder,
    )
    assert isinstance(trainer, VerifiedTrainer)
    [reward] = trainer.reward_funcs
    record = (folder.path / f"rank-{os.environ['RANK']}.jsonl").open("w")

    def recorded(**arguments: Any) -> list[float | None]:
        rewards: list[float | None] = reward(**arguments)
        texts = [completion[-1]["content"] for completion in arguments["completions"]]
        line = {"groups": arguments["prompt_id"], "completions": texts, "rewards": rewards}
        print(json.dumps(line), file=record, flush=True)
        return rewards

    trainer.reward_funcs[0] = recorded
    if settings.get("fixed_completions"):
        trainer._generate_single_turn = fixed_completions(trainer)
    trainer.train()
    trainer.save_model(str(folder.model))
    leave_process_group(trainer)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
