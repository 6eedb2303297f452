"""One of the processes of a training run over two: ``torchrun … -m tests.trainer.two_ranks JSON``.

Writes the completions of this process and their rewards as JSON lines, and held-out answers beside them. With
``fixed_completions`` nothing is sampled, with ``half_alike`` half of the groups answer alike. ``unscored``: step → rows
of each process whose reward is taken away; ``resume``: a checkpoint to begin from.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import DistributedType, PartialState

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.answers import Answer
from bioverify.core.recipes import Recipe
from bioverify.core.tasks import TaskKind
from bioverify_trainer import heldout
from bioverify_trainer.dataset import open_prompts
from bioverify_trainer.evaluate.completions import read_answers
from bioverify_trainer.heldout import held_out_rows
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


def half_alike(trainer: Any) -> Any:
    """To about every second question all members of a group answer yes; to the others every second one."""
    yes, no = (trainer.processing_class(f"<answer> {word} </answer>")["input_ids"] for word in ("yes", "no"))

    def generate(prompt_ids: list[list[int]], *_others: Any, **_options: Any) -> tuple[list[list[int]], None]:
        first = trainer.accelerator.process_index * len(prompt_ids)
        places = [(first + row) % trainer.num_generations for row in range(len(prompt_ids))]
        differ = [np.random.default_rng(prompt).integers(2) for prompt in prompt_ids]
        return [no if place % 2 and apart else yes for place, apart in zip(places, differ, strict=True)], None

    return generate


def talk_over_gloo(*, with_deepspeed: bool) -> None:
    """Told to use GPUs, without one, accelerate knows no way for processes to talk, and would start each alone."""
    if with_deepspeed:
        import deepspeed.ops

        # Its kernel for processes of one machine would be compiled first, for a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_CPU)


def record_held_out(path: Path) -> None:
    """Each completion that is read of the answers to held-out questions becomes a line of the file."""
    path.unlink(missing_ok=True)

    def recorded(completions: Sequence[str], kind: TaskKind) -> list[Answer]:
        with path.open("a") as file:
            print(json.dumps(completions), file=file)
        return read_answers(completions, kind)

    heldout.read_answers = recorded  # type: ignore[attr-defined]


def trained(settings: dict[str, Any]) -> VerifiedTrainer:
    torch.set_num_threads(1)
    if not settings["preset"]["grpo"]["use_cpu"]:
        talk_over_gloo(with_deepspeed=bool(settings["preset"]["launcher"]["deepspeed"]))
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
        held_out=held_out_rows(ArtifactStore(Path(settings["store"])), preset, recipe) if preset.heldout else None,
    )
    assert isinstance(trainer, VerifiedTrainer)
    [reward] = trainer.reward_funcs
    if preset.heldout:
        record_held_out(folder.path / f"held-out-{os.environ.get('RANK', '0')}.jsonl")
    record = (folder.path / f"rank-{os.environ.get('RANK', '0')}.jsonl").open("w")
    unscored = settings.get("unscored", {})

    def recorded(**arguments: Any) -> list[float | None]:
        rewards: list[float | None] = reward(**arguments)
        for row in unscored.get(str(arguments["trainer_state"].global_step + 1), []):
            rewards[row] = None
        texts = [completion[-1]["content"] for completion in arguments["completions"]]
        line = {"groups": arguments["prompt_id"], "completions": texts, "rewards": rewards}
        print(json.dumps(line), file=record, flush=True)
        return rewards

    trainer.reward_funcs[0] = recorded
    for made_up in (fixed_completions, half_alike):
        if settings.get(made_up.__name__):
            trainer._generate_single_turn = made_up(trainer)
    trainer.train(resume_from_checkpoint=settings.get("resume"))
    trainer.save_model(str(folder.model))
    return trainer


if __name__ == "__main__":
    leave_process_group(trained(json.loads(sys.argv[1])))
