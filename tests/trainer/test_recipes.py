"""All eleven mixtures, end to end: a tiny policy against the whole local stack."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import pytest

from bioverify import recipes
from bioverify.artifacts.store import ArtifactStore
from bioverify_trainer.runs.folder import read_records
from bioverify_trainer.train import train
from tests.fixtures import servers

VARIANTS = [name for name in recipes.names() if name.startswith("rbio1-")]
REPORT = servers.ROOT / "reports" / "recipes.md"


@pytest.fixture(scope="module")
def table():
    """Rows of the report, written when all recipes are through."""
    rows = ["| recipe | source | mean reward | completions without a reward |", "|---|---|--:|--:|"]
    yield rows
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(rows) + "\n")


def test_there_are_eleven():
    assert len(VARIANTS) == 11


@pytest.mark.parametrize("name", VARIANTS)
def test_three_steps_of_every_recipe_reward_every_source(name, stack, tiny_preset, tmp_path, table):
    recipe = recipes.load(name)
    # Sixteen prompts a step, so that each of four sources is among them.
    grpo = {"max_steps": 3, "per_device_train_batch_size": 32, "num_generations": 2, "save_steps": 100}
    preset = tiny_preset.model_copy(
        update={
            "grpo": tiny_preset.grpo.model_copy(update=grpo),
            "rewards": tiny_preset.rewards.model_copy(update={"deadline_s": 60}),
        }
    )
    store = ArtifactStore(stack.home / "artifacts")
    trained = train(recipe, preset, target=stack.target, output=tmp_path / "run", store=store)
    assert trained.steps == 3
    by_source = defaultdict(list)
    unscorable = []
    for record in read_records(trained.folder.metrics_file):
        unscorable.append(record["reward_call/unscorable"])
        for key, value in record.items():
            if key.startswith("source/"):
                by_source[key.removeprefix("source/")].append(value)
        assert record["loss"] is not None
    for source in recipe.sources:
        assert by_source[source.name], f"{source.name} was never rewarded"
        table.append(f"| {name} | {source.name} | {fmean(by_source[source.name]):.3f} | {fmean(unscorable):.1%} |")
    assert fmean(unscorable) < 0.5
