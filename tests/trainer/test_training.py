"""Training a tiny policy against live services, and against services that die."""

import contextlib
import json
import shutil
import threading
import time

import pytest
import torch
from transformers import TrainerCallback

from bioverify import recipes
from bioverify.core.recipes import Recipe, Source
from bioverify.core.tasks import TaskKind
from bioverify_trainer.dataset import open_prompts
from bioverify_trainer.generate import generate_file
from bioverify_trainer.model.policy import PolicyError, open_for, open_policy
from bioverify_trainer.runs.folder import RunError, RunFolder, read_records
from bioverify_trainer.train import grpo_config, make_trainer, train
from tests.fixtures import servers
from tests.trainer.conftest import format_verifier


def with_settings(preset, **grpo):
    return preset.model_copy(update={"grpo": preset.grpo.model_copy(update=grpo)})


def trainer_of(recipe, preset, store, target, folder):
    folder.path.mkdir()
    policy = open_policy(preset.policy.model, dtype=torch.float32)
    prompts = open_prompts(store, recipe, seed=0)
    return make_trainer(recipe, preset, policy, prompts, target=target, folder=folder)


def weights_of(trainer):
    return torch.cat([parameter.detach().flatten().clone() for parameter in trainer.model.parameters()])


class AfterStep(TrainerCallback):
    """Does something once, when a step is over."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.act()


def test_the_model_of_the_kl_distance_is_opened_as_the_policy_was(recipe, tiny_preset, store, tmp_path):
    chosen = tiny_preset.policy.model_copy(
        update={
            "model_init_kwargs": {"num_hidden_layers": 1},
            "revision": "of-a-branch",
            "attn_implementation": "eager",
        }
    )
    preset = with_settings(tiny_preset.model_copy(update={"policy": chosen}), beta=0.04)
    trainer = make_trainer(
        recipe,
        preset,
        open_for(preset),
        open_prompts(store, recipe, seed=0),
        target="127.0.0.1:1",
        folder=RunFolder(tmp_path / "run"),
    )
    # A folder has no revisions, so what the hub would be asked for is looked up where TRL reads it.
    assert grpo_config(preset, tmp_path).model_init_kwargs["revision"] == "of-a-branch"
    assert trainer.ref_model.config.num_hidden_layers == 1
    assert trainer.ref_model.config._attn_implementation == "eager"
    policy = trainer.model.state_dict()
    reference = trainer.ref_model.state_dict()
    assert policy.keys() == reference.keys()
    assert all(torch.equal(policy[name], reference[name]) for name in policy)


def test_a_run_keeps_its_configuration_its_metrics_and_scored_samples(
    recipe, tiny_preset, store, lasting_target, tmp_path
):
    trained = train(recipe, tiny_preset, target=lasting_target, output=tmp_path / "run", store=store)
    assert trained.steps == 2
    folder = trained.folder
    config = json.loads(folder.config_file.read_text())
    assert config["simulated"] is True
    assert {verifier["name"] for verifier in config["verifiers"]} == {"text", "lookup"}
    assert all(len(verifier["fingerprint"]) == 32 for verifier in config["verifiers"])
    assert config["preset"]["grpo"]["max_steps"] == 2
    metrics = list(read_records(folder.metrics_file))
    assert [record["step"] for record in metrics] == [1, 2]
    for record in metrics:
        assert record["reward"] > 0
        assert record["reward_call/unscorable"] == 0
        assert record["verifier/text/seconds"] > 0
    samples = list(read_records(folder.samples_file))
    assert [sample["step"] for sample in samples] == [1, 2]
    assert samples[0]["parts"][0]["evidence"]
    assert (folder.model / "model.safetensors").is_file()
    before = open_policy(tiny_preset.policy.model, dtype=torch.float32).model.state_dict()
    after = open_policy(str(folder.model), dtype=torch.float32).model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(RunError, match="already holds a run"):
        train(recipe, tiny_preset, target=lasting_target, output=tmp_path / "run", store=store)
    # Every checkpoint would hold the metrics of all steps before it.
    for state in folder.checkpoints.glob("checkpoint-*/trainer_state.json"):
        assert json.loads(state.read_text())["log_history"] == []


def test_frozen_weights_stay_as_they_were_and_an_unknown_name_is_refused(
    recipe, tiny_preset, store, lasting_target, tmp_path
):
    policy = tiny_preset.policy.model_copy(update={"freeze": ("model.embed_tokens", "model.layers.0.mlp")})
    preset = tiny_preset.model_copy(update={"policy": policy})
    trained = train(recipe, preset, target=lasting_target, output=tmp_path / "run", store=store)
    before = open_policy(tiny_preset.policy.model, dtype=torch.float32).model.state_dict()
    after = open_policy(str(trained.folder.model), dtype=torch.float32).model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.layers.1.mlp.up_proj.weight" in moved
    assert not {name for name in moved if name.startswith(("model.embed_tokens.", "model.layers.0.mlp."))}
    unknown = preset.model_copy(update={"policy": policy.model_copy(update={"freeze": ("model.embed",)})})
    with pytest.raises(PolicyError, match=r"policy\.freeze: .*'model\.embed'"):
        open_for(unknown)


def test_a_run_against_the_real_format_verifier_is_rewarded_for_form_and_mention(tiny_preset, store, tmp_path):
    form, mention = recipes.load("rbio1-exp").terms
    source = Source(name="questions", share=1, task_kind=TaskKind.DIFFERENTIAL_EXPRESSION, terms=())
    recipe = Recipe(name="form-only", terms=(form, mention), sources=(source,))
    with format_verifier() as verifier, servers.aggregator({"format": verifier.target}) as aggregator:
        trained = train(recipe, tiny_preset, target=aggregator.target, output=tmp_path / "run", store=store)
    for record in read_records(trained.folder.metrics_file):
        assert record["reward_call/unscorable"] == 0
        assert 0 <= record["value/format"] <= 1
        assert 0 <= record["value/format.mention"] <= 1
        assert record["reward"] == pytest.approx(record["value/format"] + record["value/format.mention"])
    sample = next(iter(read_records(trained.folder.samples_file)))
    assert sample["parts"][0]["evidence"][0]["text"]


def test_a_resumed_run_counts_on_and_asks_the_questions_that_were_next(
    recipe, tiny_preset, store, lasting_target, tmp_path
):
    whole = train(
        recipe, with_settings(tiny_preset, max_steps=4), target=lasting_target, output=tmp_path / "whole", store=store
    )
    output = tmp_path / "parts"
    train(recipe, tiny_preset, target=lasting_target, output=output, store=store)
    # As if the third step had been under way when the run was killed.
    with (output / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "reward": 0.0}\n{"step": 3, "rew')
    resumed = train(
        recipe, with_settings(tiny_preset, max_steps=4), target=lasting_target, output=output, store=store, resume=True
    )
    assert resumed.steps == 4
    assert [record["step"] for record in read_records(resumed.folder.metrics_file)] == [1, 2, 3, 4]
    questions = [
        [sample["question"] for sample in read_records(trained.folder.samples_file)] for trained in (whole, resumed)
    ]
    assert len(questions[0]) == 4
    assert questions[0] == questions[1]


def test_resuming_without_a_checkpoint_says_so(recipe, tiny_preset, store, lasting_target, tmp_path):
    with pytest.raises(RunError, match="no checkpoint in"):
        train(recipe, tiny_preset, target=lasting_target, output=tmp_path, store=store, resume=True)


def test_a_restartable_run_begins_and_goes_on_by_the_same_command(recipe, tiny_preset, store, lasting_target, tmp_path):
    def start(steps):
        preset = with_settings(tiny_preset, max_steps=steps, save_steps=2)
        return train(recipe, preset, target=lasting_target, output=tmp_path, store=store, restartable=True)

    # What a start leaves behind that was killed before its first checkpoint.
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward": 0.0}\n{"step": 1, "rew')
    (tmp_path / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    begun = start(2)
    assert json.loads(begun.folder.config_file.read_text())["verifiers"]
    assert [record["step"] for record in read_records(begun.folder.metrics_file)] == [1, 2]
    assert start(4).steps == 4
    assert [record["step"] for record in read_records(begun.folder.metrics_file)] == [1, 2, 3, 4]
    assert start(4).steps == 4


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_aggregator_killed_mid_run_neither_ends_the_run_nor_moves_the_weights(
    accumulation, recipe, tiny_preset, store, verifier_targets, tmp_path
):
    folder = RunFolder(tmp_path / "run")
    weights = {}
    with servers.aggregator(verifier_targets) as aggregator:
        preset = with_settings(
            tiny_preset,
            max_steps=4,
            save_steps=10,
            per_device_train_batch_size=4 // accumulation,
            gradient_accumulation_steps=accumulation,
        )
        trainer = trainer_of(recipe, preset, store, aggregator.target, folder)

        def die():
            weights[2] = weights_of(trainer)
            aggregator.kill()

        weights[0] = weights_of(trainer)
        trainer.add_callback(AfterStep(2, die))
        trainer.train()
        weights[4] = weights_of(trainer)
    assert not torch.equal(weights[0], weights[2])
    # Not even by the momentum of the first two steps.
    assert torch.equal(weights[2], weights[4])
    assert weights[4].isfinite().all()
    metrics = list(read_records(folder.metrics_file))
    assert [record["reward_call/unscorable"] for record in metrics] == [0, 0, 1, 1]
    assert [record["reward_call/failed"] for record in metrics] == [0, 0, 1, 1]
    assert metrics[3]["reward"] is None
    assert metrics[3]["loss"] == 0


def test_an_aggregator_that_comes_back_is_used_again(recipe, tiny_preset, store, verifier_targets, tmp_path):
    folder = RunFolder(tmp_path / "run")
    listen = f"127.0.0.1:{servers.free_port()}"
    preset = with_settings(tiny_preset, max_steps=1000, save_steps=10_000)
    running = [servers.aggregator(verifier_targets, listen=listen)]
    first = running[0].__enter__()
    trainer = trainer_of(recipe, preset, store, listen, folder)

    def restart():
        running.append(servers.aggregator(verifier_targets, listen=listen))
        running[1].__enter__()

    class UntilRewarded(TrainerCallback):
        """The client looks for a lost aggregator every two seconds; these steps take milliseconds."""

        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = unscorable()[2:].count(0) > 0

    def unscorable():
        return [record["reward_call/unscorable"] for record in read_records(folder.metrics_file)]

    try:
        trainer.add_callback(AfterStep(1, first.kill))
        trainer.add_callback(AfterStep(2, restart))
        trainer.add_callback(UntilRewarded())
        trainer.train()
    finally:
        for context in running:
            context.__exit__(None, None, None)
    lost = unscorable().index(0, 1) - 1
    assert lost >= 1
    assert unscorable() == [0, *[1] * lost, 0, 0]


def test_a_run_that_loses_its_services_keeps_a_checkpoint_and_waits_for_them(
    recipe, tiny_preset, store, verifier_targets, tmp_path
):
    folder = RunFolder(tmp_path / "run")
    listen = f"127.0.0.1:{servers.free_port()}"
    waits = tiny_preset.rewards.model_copy(update={"max_unscorable_share": 0.25})
    preset = with_settings(tiny_preset, max_steps=4, save_steps=10).model_copy(update={"rewards": waits})
    kept = folder.checkpoints / "checkpoint-2" / "trainer_state.json"
    with contextlib.ExitStack() as running:
        first = running.enter_context(servers.aggregator(verifier_targets, listen=listen))
        trainer = trainer_of(recipe, preset, store, listen, folder)

        def bring_back_when_the_run_waits():
            while not kept.exists():
                time.sleep(0.05)
            running.enter_context(servers.aggregator(verifier_targets, listen=listen))

        helper = threading.Thread(target=bring_back_when_the_run_waits, daemon=True)
        trainer.add_callback(AfterStep(2, lambda: (first.kill(), helper.start())))
        trainer.train()
        helper.join()
        metrics = list(read_records(folder.metrics_file))
        assert [record["reward_call/unscorable"] for record in metrics] == [0] * 4
        assert [record["reward_call/waited_seconds"] > 0 for record in metrics] == [False, False, True, False]
        # What was kept is a checkpoint like any other.
        folder.config_file.write_text("{}")
        for path in folder.checkpoints.glob("checkpoint-4*"):
            shutil.rmtree(path)
        assert train(recipe, preset, target=listen, output=folder.path, store=store, resume=True).steps == 4


def test_a_verifier_killed_mid_run_leaves_rows_without_reward_and_the_run_goes_on(
    recipe, tiny_preset, store, verifier_targets, tmp_path
):
    folder = RunFolder(tmp_path / "run")
    with (
        servers.verifier("Text") as text,
        servers.verifier("Lookup") as lookup,
        servers.aggregator({"text": text.target, "lookup": lookup.target}) as aggregator,
    ):
        preset = with_settings(tiny_preset, max_steps=3, save_steps=10)
        trainer = trainer_of(recipe, preset, store, aggregator.target, folder)
        trainer.add_callback(AfterStep(1, lookup.kill))
        trainer.add_callback(AfterStep(2, text.kill))
        trainer.train()
    metrics = list(read_records(folder.metrics_file))
    # Without the optional one the rest is still a reward, without the required one there is none.
    assert [record["reward_call/unscorable"] for record in metrics] == [0, 0, 1]
    assert [record.get("verifier/lookup/failed") for record in metrics][:2] == [0, 1]
    assert "contribution/lookup" not in metrics[1]
    assert metrics[1]["reward"] > 0
    assert metrics[2]["reward"] is None


def test_without_an_aggregator_a_run_does_not_start(recipe, tiny_preset, store, tmp_path):
    target = f"127.0.0.1:{servers.free_port()}"
    with pytest.raises(RunError, match=rf"--target {target}: no aggregator .* Start one: bioverify up"):
        train(recipe, tiny_preset, target=target, output=tmp_path / "run", store=store)
    assert not (tmp_path / "run").exists()


def test_a_recipe_whose_required_verifier_is_not_there_does_not_start(tiny_preset, store, lasting_target, tmp_path):
    with pytest.raises(RunError, match=r"requires experimental, format, which .*ready: lookup, text"):
        train(recipes.load("rbio1-exp"), tiny_preset, target=lasting_target, output=tmp_path / "run", store=store)


def test_a_model_that_cannot_be_found_is_named(tmp_path):
    with pytest.raises(PolicyError, match=r"policy\.model: .*neither 'smollm2', nor a folder"):
        open_policy(str(tmp_path / "nowhere"), dtype=torch.float32)


def test_generated_completions_say_what_was_asked(store, tiny_preset, tmp_path):
    output = tmp_path / "completions.jsonl"
    done = []
    generate_file(
        output, recipes.load("rbio1-exp"), tiny_preset, store, n=3, per_prompt=2, seed=1, progress=done.append
    )
    assert sum(done) == 3
    lines = list(read_records(output))
    assert [line["id"] for line in lines] == ["c0000", "c0001", "c0002"]
    assert lines[0]["group_id"] == lines[1]["group_id"] != lines[2]["group_id"]
    assert lines[0]["prompt"][-1]["role"] == "user"
    assert set(lines[0]["task"]["differential_expression"]) == {"perturbation", "measured_gene", "cell_line"}
