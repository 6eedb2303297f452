"""The small policy learns from live rewards to rank perturbations that it never saw.

On the simulated screen, in which a knockdown changes rather those genes that share terms with it; beside it the same
network on the labels, and the same rewards over the vectors of other genes. What rewards teach of real screens is in
docs/training.md.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bioverify import recipes
from bioverify.artifacts.prompts import open_prompts
from bioverify.core.tasks import TaskKind
from bioverify_trainer.dataset import PromptSource
from bioverify_trainer.evaluate.measures import PerGeneAuc
from bioverify_trainer.evaluate.questions import Screens
from bioverify_trainer.model import gene_vectors
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.preset import load_preset
from bioverify_trainer.runs.folder import RunFolder
from bioverify_trainer.train import make_trainer
from tests.fixtures import servers
from tests.trainer.conftest import shipped_verifier

pytestmark = [pytest.mark.small_policy, pytest.mark.timeout(900)]

LINE = "k562"
STEPS, QUESTIONS = 60, 256
RECIPE = recipes.load("rbio1-exp")


def preset_for(seed, *more):
    changes = (
        f"grpo.seed={seed}",
        f"grpo.max_steps={STEPS}",
        f"grpo.per_device_train_batch_size={QUESTIONS * 8}",
        "grpo.save_steps=1000",
        "heldout=null",
        "rewards.samples_per_step=0",
        *more,
    )
    return load_preset("gene-vectors", list(changes))


@pytest.fixture(scope="module")
def target(bundled_store):
    """What the recipe asks, and no more: the real format verifier and the simulated screen, behind the aggregator."""
    home = bundled_store.root.parent
    with shipped_verifier("format") as form, shipped_verifier("experimental", home) as experiment:
        targets = {"format": form.target, "experimental": experiment.target}
        with servers.aggregator(targets) as aggregator:
            yield aggregator.target


@pytest.fixture(scope="module")
def table(bundled_store):
    return open_prompts(bundled_store)[0]


@pytest.fixture(scope="module")
def held_out(table):
    return Screens.read(table).rows(TaskKind.DIFFERENTIAL_EXPRESSION, "test", [LINE])


def learn(policy, preset, table, target, path):
    """As `bioverify train` does, with the rewards of the live services."""
    folder = RunFolder(path)
    folder.path.mkdir()
    prompts = PromptSource(table, RECIPE, seed=preset.grpo.seed, lines=[LINE], balance=preset.prompts.balance)
    make_trainer(RECIPE, preset, policy, prompts, target=target, folder=folder).train()


@torch.no_grad()
def held_out_auc(policy, rows):
    policy.model.eval()
    questions = [rows.task(row).question for row in range(len(rows))]
    ids = torch.tensor(policy.tokenizer(questions, add_special_tokens=False)["input_ids"])
    belief = policy.model.answer_log_probabilities(ids)[:, 0].numpy()
    return PerGeneAuc(rows.measured_gene, rows.label, belief)(np.ones(len(rows)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rewards_teach_perturbations_never_seen_as_labels_do_and_over_other_genes_vectors_nothing(
    seed, bundled_store, target, table, held_out, tmp_path, capsys
):
    found = {}
    for name, which, change in (
        ("rewards", gene_vectors.NAME, "learn_from=rewards"),
        ("labels", gene_vectors.NAME, "learn_from=labels"),
        ("control", gene_vectors.SHUFFLED, "learn_from=rewards"),
    ):
        policy = open_policy(str(gene_vectors.make(bundled_store, tmp_path / "models", which)), dtype=torch.float32)
        assert held_out_auc(policy, held_out) == pytest.approx(0.5)
        learn(policy, preset_for(seed, change), table, target, tmp_path / name)
        found[name] = held_out_auc(policy, held_out)
        with capsys.disabled():
            print(f"\nseed {seed}, {name}: held-out AUC per gene .500 → {found[name]:.3f}", flush=True)
    assert found["rewards"] > 0.55
    assert found["rewards"] > found["labels"] - 0.03
    # The screen holds out 47 perturbations, which leaves a control .03 or so to chance.
    assert found["control"] < found["rewards"] - 0.05
