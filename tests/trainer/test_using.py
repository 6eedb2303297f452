"""A trained model is asked, verified and exported."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from bioverify_trainer.cli import app
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.preset import Lora
from bioverify_trainer.train import train

QUESTION = "Is a knockdown of AARS in k562 cells likely to result in differential expression of TRIB3?"


def test_a_question_is_answered_and_every_verifier_says_what_it_makes_of_it(stack, tiny_policy):
    arguments = [
        "ask",
        QUESTION,
        "--model",
        str(tiny_policy),
        "--max-tokens",
        "6",
        "--verify",
        "--target",
        stack.target,
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    for name in ("format:", "format.mention:", "experimental:", "go_rouge:", "esm_mlp:"):
        assert name in done.output


def test_a_chat_ends_with_an_empty_line(tiny_policy):
    done = CliRunner().invoke(
        app, ["chat", "--model", str(tiny_policy), "--max-tokens", "4"], input=f"{QUESTION}\nAnd the weather?\n\n"
    )
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("lora", [None, Lora(rank=4, alpha=8, target_modules=("q_proj",))])
def test_an_exported_model_is_the_trained_one_and_its_card_says_so(
    lora, recipe, tiny_preset, store, lasting_target, tmp_path
):
    policy = tiny_preset.policy.model_copy(update={"lora": lora})
    preset = tiny_preset.model_copy(update={"policy": policy})
    trained = train(recipe, preset, target=lasting_target, output=tmp_path / "run", store=store)
    results = tmp_path / "results.json"
    figure = {"value": 0.512, "low": 0.4, "high": 0.6}
    names = ("coverage", "balanced_accuracy", "f1", "auc_per_gene")
    row = {"model": "m", "task": "de", "line": "k562", "rows": 8, "figures": dict.fromkeys(names, figure)}
    results.write_text(json.dumps({"results": [row]}))
    output = tmp_path / "exported"
    done = CliRunner().invoke(
        app, ["export", str(tmp_path / "run"), "--output", str(output), "--evaluation", str(results)]
    )
    assert done.exit_code == 0, done.output
    assert not (output / "adapter_config.json").exists()
    ids = torch.arange(8, 20)[None]
    with torch.inference_mode():
        logits = [
            open_policy(str(folder), dtype=torch.float32).model(ids).logits for folder in (trained.folder.model, output)
        ]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)
    card = (output / "README.md").read_text()
    assert "**Simulated data.**" in card
    assert "0.512 [0.400, 0.600]" in card
    assert "lookup" in card
    again = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--output", str(output)])
    assert again.exit_code == 2
