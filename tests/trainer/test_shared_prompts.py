"""Prompts computed once: the same probabilities and the same gradient as with the prompt repeated."""

import pytest
import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from bioverify_trainer.dataset import open_prompts
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.runs.folder import RunFolder
from bioverify_trainer.train import make_trainer


@pytest.fixture
def trainer(recipe, tiny_preset, store, tmp_path):
    prompts = tiny_preset.prompts.model_copy(update={"computed_once": True})
    preset = tiny_preset.model_copy(update={"prompts": prompts})
    policy = open_policy(preset.policy.model, dtype=torch.float32)
    source = open_prompts(store, recipe, seed=0)
    return make_trainer(recipe, preset, policy, source, target="127.0.0.1:1", folder=RunFolder(tmp_path / "run"))


def batch_of(prompts, completions):
    """Rows of prompt and completion, padded left and right."""
    before, after = max(map(len, prompts)), max(map(len, completions))
    rows, mask = [], []
    for prompt, completion in zip(prompts, completions, strict=True):
        left, right = before - len(prompt), after - len(completion)
        rows.append([0] * left + prompt + completion + [0] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
    return torch.tensor(rows), torch.tensor(mask), after


def test_probabilities_and_gradient_are_those_of_trl(trainer):
    random = torch.Generator().manual_seed(0)
    short, long = (torch.randint(8, 200, (length,), generator=random).tolist() for length in (9, 17))
    prompts = [short, short, long, long, short, long]
    completions = [torch.randint(8, 200, (length,), generator=random).tolist() for length in (5, 1, 7, 3, 7, 2)]
    ids, mask, n_completion = batch_of(prompts, completions)
    found = {}
    for name, function in (
        ("once", trainer._get_per_token_logps_and_entropies),
        ("repeated", lambda *a, **k: GRPOTrainer._get_per_token_logps_and_entropies(trainer, *a, **k)),
    ):
        trainer.model.zero_grad()
        logps, entropies, _ = function(trainer.model, ids, mask, n_completion, compute_entropy=True)
        (logps * mask[:, -n_completion:]).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        found[name] = (logps, entropies, gradient)
    written = mask[:, -n_completion:].bool()
    for once, repeated in zip(found["once"][:2], found["repeated"][:2], strict=True):
        torch.testing.assert_close(once[written], repeated[written], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["once"][2], found["repeated"][2], atol=1e-5, rtol=1e-4)
