"""A policy learns from the live services what is there to be learned: which genes respond."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bioverify.artifacts.prompts import open_prompts
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.recipes import Recipe, Requirement, Source, Term
from bioverify.core.tasks import TaskKind
from bioverify_trainer.dataset import PromptSource
from bioverify_trainer.evaluate.answers import Answers, majority
from bioverify_trainer.evaluate.completions import read_answers
from bioverify_trainer.evaluate.local import LocalModel
from bioverify_trainer.evaluate.measures import measure
from bioverify_trainer.evaluate.questions import Screens
from bioverify_trainer.model.policy import Policy, open_policy
from bioverify_trainer.preset import Preset, PromptPreset
from bioverify_trainer.runs.folder import RunFolder, read_records
from bioverify_trainer.train import make_trainer
from tests.trainer.toy import few_genes, make_toy_policy

DE = TaskKind.DIFFERENTIAL_EXPRESSION
# At four times the rate, in 60 steps, the answers of some seeds all became "yes" before the genes came apart: what all
# answers share is pushed by every completion of a step, what is a gene's own by a few.
STEPS, LEARNING_RATE = 100, 5e-4
RECIPE = Recipe(
    name="form-and-experiment",
    terms=(Term(verifier="format", weight=1, requirement=Requirement.REQUIRED),),
    sources=(
        Source(
            name="experimental",
            share=1,
            task_kind=DE,
            terms=(Term(verifier="experimental", weight=2, requirement=Requirement.REQUIRED),),
        ),
    ),
)


def preset_for(folder, seed):
    return Preset.model_validate(
        {
            "name": "toy",
            "policy": {"model": str(folder), "dtype": "float32"},
            "prompts": {"computed_once": True},
            "grpo": {
                "max_steps": STEPS,
                "per_device_train_batch_size": 128,
                "num_generations": 4,
                "max_completion_length": 16,
                "learning_rate": LEARNING_RATE,
                "temperature": 0.7,
                "lr_scheduler_type": "constant",
                "save_steps": 1000,
                "bf16": False,
                "activation_checkpointing": False,
                "use_cpu": True,
                "seed": seed,
            },
        }
    )


def held_out_accuracy(policy, rows):
    model = LocalModel(policy, PromptPreset(), max_tokens=16, samples=1, temperature=0)
    read = []
    for start in range(0, len(rows), 256):
        tasks = [rows.task(row) for row in range(start, min(start + 256, len(rows)))]
        read += [majority(read_answers([sample.completion], DE), [sample.p_yes]) for [sample] in model(tasks)]
    answer, belief = (np.array(column) for column in zip(*read, strict=True))
    return measure(rows, Answers(answer, belief), resamples=1).figures["balanced_accuracy"].value


@pytest.mark.slow
@pytest.mark.timeout(900)
# The seed whose answers all became "yes" at the higher rate; four seeds: docs/training.md.
@pytest.mark.parametrize("seed", [1])
def test_a_small_policy_learns_which_genes_respond(seed, stack, tmp_path, capsys):
    table = few_genes(open_prompts(ArtifactStore(stack.home / "artifacts"))[0])
    screens = Screens.read(table)
    held_out = screens.rows(DE, "test")
    make_toy_policy(tmp_path / "policy", screens.rows(DE, "train"), seed=seed)
    policy = open_policy(str(tmp_path / "policy"), dtype=torch.float32)
    before = held_out_accuracy(policy, held_out)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    prompts = PromptSource(table, RECIPE, seed=seed)
    trainer = make_trainer(
        RECIPE, preset_for(tmp_path / "policy", seed), policy, prompts, target=stack.target, folder=folder
    )
    trainer.train()
    after = held_out_accuracy(Policy(trainer.model.eval(), policy.tokenizer, ""), held_out)
    records = list(read_records(folder.metrics_file))
    with capsys.disabled():
        print(
            f"\nseed {seed}: held-out balanced accuracy {before:.3f} → {after:.3f} on {len(held_out)} questions; ",
            end="",
        )
        print(
            f"value of the experiment {records[0]['value/experimental']:.2f} → {records[-1]['value/experimental']:.2f}"
        )
    assert before < 0.6
    assert after > 0.7
