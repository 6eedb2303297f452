"""One of the processes of a training run over two: ``torchrun … -m tests.trainer.two_ranks JSON``.

Writes what this process generated, and the rewards and advantages that it trained on, as JSON lines.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe
from bioverify_trainer.dataset import open_prompts
from bioverify_trainer.policy import open_policy
from bioverify_trainer.preset import Preset
from bioverify_trainer.run import RunFolder
from bioverify_trainer.train import leave_process_group, make_trainer


def main(settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
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
    [reward] = trainer.reward_funcs
    record = (folder.path / f"rank-{os.environ['RANK']}.jsonl").open("w")

    def recorded(**arguments: Any) -> list[float | None]:
        rewards: list[float | None] = reward(**arguments)
        texts = [completion[-1]["content"] for completion in arguments["completions"]]
        line = {"groups": arguments["prompt_id"], "completions": texts, "rewards": rewards}
        print(json.dumps(line), file=record, flush=True)
        return rewards

    trainer.reward_funcs[0] = recorded
    trainer.train()
    leave_process_group(trainer)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
