"""Presets: strict, and every message names the key."""

import dataclasses
import json
import subprocess
import sys

import pytest
import yaml
from trl.trainer.grpo_config import GRPOConfig
from typer.testing import CliRunner

from bioverify.settings import SettingsError
from bioverify_trainer.cli import app
from bioverify_trainer.grpo_keys import OWNED, check_keys
from bioverify_trainer.model.generation import prompt_ids
from bioverify_trainer.model.policy import PolicyError, open_for
from bioverify_trainer.preset import ALIASES, Grpo, load_preset, preset_names
from tests.fixtures.servers import ROOT


def test_the_shipped_presets_load_by_name_and_alias():
    assert preset_names() == [
        "cpu-smollm2-135m",
        "gene-vectors",
        "h100x1-qwen2.5-3b",
        "h100x8-qwen2.5-3b",
        "one-gpu-qwen2.5-3b",
        "rbio1-published",
    ]
    for alias, name in ALIASES.items():
        assert load_preset(alias) == load_preset(name)


def test_reading_the_shipped_presets_imports_no_trainer():
    # The training service reads them all: with TRL it would take half a gigabyte.
    code = "import sys; from bioverify_trainer.preset import load_preset, preset_names; "
    code += "list(map(load_preset, preset_names())); sys.exit(bool({'torch', 'trl'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


PUBLISHED = {
    "max_steps": 100_000,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_generations": 4,
    "num_iterations": 1,
    "max_completion_length": 256,
    "temperature": 0.9,
    "learning_rate": 5e-6,
    "lr_scheduler_type": "linear",
    "warmup_steps": 100,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "beta": 0.04,
    "loss_type": "bnpo",
    "scale_rewards": "group",
    "save_steps": 10_000,
    "bf16": True,
    "activation_checkpointing": True,
    "use_vllm": True,
    "vllm_mode": "colocate",
}


def test_the_docs_name_the_source_of_each_value_of_the_published_run():
    text = (ROOT / "docs" / "training.md").read_text().partition("<!-- values -->")[2].partition("<!-- end")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    documented = {key: (value, source) for key, value, source, *_ in rows[2:]}
    grpo = load_preset("rbio1-published").grpo.model_dump()
    for key in PUBLISHED:
        value, source = documented[f"grpo.{key}"]
        # YAML takes 5e-06 for a word.
        assert type(grpo[key])(yaml.safe_load(value)) == grpo[key], key
        assert source


def test_rbio1_published_is_the_published_run():
    preset = load_preset("rbio1-published")
    grpo = preset.grpo.model_dump()
    assert preset.policy.model == "Qwen/Qwen2.5-3B-Instruct"
    assert preset.policy.lora is None
    assert {key: grpo[key] for key in PUBLISHED} == PUBLISHED
    assert preset.launcher.processes == 8
    assert preset.launcher.deepspeed["zero_optimization"]["stage"] == 3


def test_h100x1_takes_the_published_steps_and_h100x8_the_fixes_of_dapo():
    published, one, eight = (load_preset(name) for name in ("rbio1-published", "h100x1", "h100x8"))
    assert one.prompts_per_step == published.prompts_per_step == 8
    of_memory = {
        "gradient_accumulation_steps",
        "activation_checkpointing",
        "per_device_train_batch_size",
        "save_steps",
        "save_total_limit",
        "vllm_enable_sleep_mode",
        "vllm_gpu_memory_utilization",
    }
    ours, theirs = one.grpo.model_dump(), published.grpo.model_dump()
    assert {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)} <= of_memory
    assert (one.launcher.processes, eight.launcher.processes) == (1, 8)
    for preset in (one, eight):
        assert preset.launcher.deepspeed["zero_optimization"]["stage"] == 2
        assert not preset.grpo.activation_checkpointing
    changed = eight.grpo.model_dump()
    assert (changed["loss_type"], changed["epsilon"], changed["epsilon_high"]) == ("dapo", 0.2, 0.28)
    assert changed["mask_truncated_completions"]
    assert changed["beta"] == 0.04


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("grpo.learnig_rate=1", r"grpo\.learnig_rate: there is no such key; did you mean learning_rate\?"),
        ("grpo.top_pp=0.9", r"grpo\.top_pp: there is no such key; did you mean top_p\?"),
        ("grpo.top_p=most", r"grpo\.top_p: .*valid number.*, not 'most'"),
        ("grpo.report_to=wandb", r"grpo\.report_to: the trainer sets it itself: write tracking"),
        ("grpo.steps_per_generation=2", r"grpo\.steps_per_generation: .*one optimiser step"),
        ("grpo.trust_remote_code=true", r"grpo\.trust_remote_code: .*no code"),
        ("policy.model_init_kwargs={trust_remote_code: true}", r"policy\.model_init_kwargs\.trust_remote_code: "),
        ("policy.model_init_kwargs={dtype: float16}", r"policy\.model_init_kwargs\.dtype: "),
        ("polcy.model=x", r"polcy: there is no such key; did you mean policy\?"),
        ("policy.lora.ranks=4", r"policy\.lora\.ranks: there is no such key; did you mean rank\?"),
        ("grpo.max_steps=0", r"grpo\.max_steps: .*greater than 0, not 0"),
        ("grpo.learning_rate=fast", r"grpo\.learning_rate: .*valid number.*, not 'fast'"),
        ("grpo.num_generations=3", r"grpo\.num_generations: 3 does not divide the 8 completions"),
        ("grpo.use_vllm=true", r"grpo\.use_cpu: vLLM and DeepSpeed need GPUs"),
        (
            "grpo.vllm_server_base_url=http://gpu:8000",
            r"vllm_server_base_url: belongs to use_vllm: true with vllm_mode",
        ),
        ("grpo.activation_checkpointing=true", r"prompts\.computed_once: .*activation checkpointing keeps no cache"),
        ("grpo.max_steps", r"--set grpo\.max_steps: expected key=value"),
        ("name.first=x", r"--set name\.first=x: name has no keys of its own"),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_its_name(change, message):
    with pytest.raises(SettingsError, match=message):
        load_preset("cpu", [change])


def test_a_group_may_be_split_over_processes():
    assert load_preset("rbio1-published", ["grpo.per_device_train_batch_size=1"]).prompts_per_step == 2


def test_processes_that_would_take_a_waiting_one_for_dead_are_refused():
    message = r"process_group_timeout_s: 100 s is too short.*at least 180 s: rewards\.deadline_s \(120\)"
    with pytest.raises(SettingsError, match=message):
        load_preset("h100x8", ["launcher.process_group_timeout_s=100"])


def test_one_seed_for_all_of_vllms_completions_is_refused():
    with pytest.raises(SettingsError, match=r"grpo\.generation_kwargs: .*a group are alike; set grpo\.seed"):
        load_preset("h100x8", ["grpo.generation_kwargs={seed: 3}"])
    assert load_preset("h100x8", ["grpo.seed=3"]).grpo.seed == 3


def test_a_number_in_scientific_notation_is_a_number():
    assert load_preset("cpu", ["grpo.learning_rate=1e-4"]).grpo.learning_rate == 1e-4


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(SettingsError, match=r"cpu-smollm2-135m, gene-vectors, h100x1-qwen2\.5-3b, h100x8"):
        load_preset("tpu")


def test_a_preset_of_ones_own_is_read_from_its_file(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(load_preset("cpu").model_dump(mode="json") | {"name": "own"}))
    assert load_preset(str(own), ["grpo.max_steps=3"]).grpo.max_steps == 3


@pytest.mark.parametrize(
    ("name", "generated", "per_step"), [("rbio1-published", 4, 1), ("h100x1", 32, 8), ("h100x8", 32, 8)]
)
def test_the_h100_presets_make_a_training_configuration(name, generated, per_step):
    # What this machine cannot check is left out: DeepSpeed (tests/gpu_paths has it), and bf16, which the configuration
    # refuses without a GPU. The values themselves are TRL's to accept: batch, generations, vLLM mode, schedule.
    from bioverify_trainer.train import grpo_config

    preset = load_preset(name, ["launcher.deepspeed=null", "grpo.bf16=false"])
    config = grpo_config(preset, "runs/h100")
    assert config.use_vllm
    assert config.vllm_mode == "colocate"
    assert config.generation_batch_size == generated
    assert config.steps_per_generation == per_step
    for key, value in preset.grpo.model_dump().items():
        assert getattr(config, key) == value, key


def test_generation_on_a_server_of_its_own_makes_a_training_configuration():
    from bioverify_trainer.train import grpo_config

    server = ["grpo.vllm_mode=server", "grpo.vllm_server_base_url=http://gpu-0:8000"]
    config = grpo_config(load_preset("h100x8", [*server, "launcher.deepspeed=null", "grpo.bf16=false"]), "runs/h100")
    assert (config.vllm_mode, config.vllm_server_base_url) == ("server", "http://gpu-0:8000")
    with pytest.raises(SettingsError, match="these need it"):
        load_preset("h100x8", ["grpo.vllm_mode=server"])


def test_the_one_gpu_preset_trains_adapters_and_makes_a_training_configuration():
    from bioverify_trainer.train import grpo_config

    preset = load_preset("one-gpu", ["grpo.bf16=false"])
    assert preset.policy.lora is not None
    assert preset.launcher.processes == 1
    config = grpo_config(preset, "runs/one-gpu")
    assert (config.gradient_accumulation_steps, config.generation_batch_size) == (8, 32)


def test_a_dry_run_prints_the_resolved_run_and_the_launch_of_all_processes(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bioverify_trainer", "train", "rbio1-exp"])
    arguments = ["train", "rbio1-exp", "--preset", "rbio1-published", "--output", "runs/x", "--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["recipe"]["name"] == "rbio1-exp"
    assert plan["completions_per_step"] == 32
    assert "--nproc-per-node=8" in plan["command"]
    # What stops it lets it keep a checkpoint.
    assert "--shutdown-timeout=900" in plan["command"]
    assert plan["estimate"]["h100_hours"][1] < plan["estimate"]["published_run_h100_hours"] == 1920
    assert plan["estimate"]["gb_per_gpu"]["peak"] < 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rbio1-expp"], "rbio1-expp"),
        (["rbio1-exp", "--set", "grpo.max_stepz=1"], "grpo.max_stepz: there is no such key; did you mean max_steps?"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_status_2(arguments, message, tmp_path):
    command = [sys.executable, "-m", "bioverify_trainer", "train", *arguments, "--output", str(tmp_path), "--dry-run"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


PASSED = {
    # Sampling.
    "top_p": 0.95,
    "top_k": 20,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "generation_kwargs": {"no_repeat_ngram_size": 4},
    "chat_template_kwargs": {"enable_thinking": False},
    "cache_implementation": "static",
    # Loss.
    "epsilon": 0.1,
    "epsilon_high": 0.28,
    "delta": 2.0,
    "loss_type": "cispo",
    "importance_sampling_level": "sequence",
    "mask_truncated_completions": True,
    "top_entropy_quantile": 0.2,
    "entropy_coef": 0.01,
    "use_bias_correction_kl": False,
    "off_policy_mask_threshold": 0.5,
    "sync_ref_model": True,
    "ref_model_sync_steps": 64,
    "disable_dropout": True,
    # Optimiser.
    "optim": "adamw_torch",
    "optim_args": "amsgrad=true",
    "adam_beta2": 0.95,
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "max_grad_norm": 0.2,
    "data_seed": 3,
    # Memory, machines, engines.
    "activation_checkpointing_kwargs": {"use_reentrant": False},
    "torch_empty_cache_steps": 10,
    "cast_lm_head_to_fp32": True,
    "ds3_gather_for_generation": False,
    "vllm_tensor_parallel_size": 2,
    "vllm_max_model_length": 2048,
    "vllm_enable_sleep_mode": True,
    "vllm_importance_sampling_clip_max": 2.0,
    "dataloader_drop_last": True,
    # What is kept of a run.
    "log_completions": True,
    "num_completions_to_print": 2,
    "run_name": "a-name",
}


def test_keys_of_trl_pass_as_trl_spells_them():
    from bioverify_trainer.train import grpo_config

    preset = load_preset("cpu", [f"grpo.{key}={json.dumps(value)}" for key, value in PASSED.items()])
    assert len(PASSED) >= 32
    config = grpo_config(preset, "runs/x")
    assert {key: getattr(config, key) for key in PASSED} == PASSED
    # A run's record holds them, and `runs resume` reads them from there.
    assert type(preset).model_validate(json.loads(preset.model_dump_json())) == preset


def test_every_field_of_trls_configuration_is_a_key_or_has_its_reason():
    for field in dataclasses.fields(GRPOConfig):
        if field.name in Grpo.model_fields:
            assert field.name not in OWNED
        elif field.name in OWNED:
            with pytest.raises(ValueError, match=rf"grpo\.{field.name}: the trainer sets it itself: .+"):
                check_keys({field.name: None}, ())
        elif field.default is not dataclasses.MISSING:
            check_keys({field.name: field.default}, ())
    assert OWNED.keys() | Grpo.model_fields.keys() <= {field.name for field in dataclasses.fields(GRPOConfig)}


def test_a_policy_is_opened_as_the_preset_says(tiny_policy):
    tiny = [f"policy.model={tiny_policy}", "policy.lora=null"]
    preset = load_preset(
        "cpu",
        [
            *tiny,
            "policy.attn_implementation=eager",
            "policy.model_init_kwargs={num_hidden_layers: 1}",
            "grpo.chat_template_kwargs={style: short}",
        ],
    )
    policy = open_for(preset)
    assert policy.model.config._attn_implementation == "eager"
    assert policy.model.config.num_hidden_layers == 1
    policy.tokenizer.chat_template = "{{ style }}"
    assert policy.tokenizer.decode(prompt_ids(policy, [{"role": "user", "content": "?"}])) == "short"
    for change in ("policy.model_init_kwargs={no_such_argument: 1}", "policy.attn_implementation=flash_attention_2"):
        with pytest.raises(PolicyError, match=r"^policy"):
            open_for(load_preset("cpu", [*tiny, change]))
