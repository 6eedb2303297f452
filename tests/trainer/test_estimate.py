"""Memory, time and price by formula: the shape is that of the real model, and each part moves by what it depends on."""

import json

import pytest
from peft import get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from bioverify_trainer.estimate import SHAPES, NoEstimateError, estimate, shape_of
from bioverify_trainer.preset import load_preset
from bioverify_trainer.train import lora_config


def parts(name, *changes, card_gb=80.0):
    found = estimate(load_preset(name, list(changes)), card_gb=card_gb)
    return found["gb_per_gpu"] | {f"{key}_s": value for key, value in found["seconds_per_step"].items()}


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_weights_of_a_shape_are_those_of_a_model_of_that_shape(tmp_path, is_tied):
    sizes = {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 96, "vocab_size": 320}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, tie_word_embeddings=is_tied))
    model.save_pretrained(tmp_path)
    assert shape_of(str(tmp_path)).weights == sum(weight.numel() for weight in model.parameters())


def test_a_llama_in_a_folder_and_qwens_three_billion_are_counted_to_the_weight(tiny_policy):
    tiny = AutoModelForCausalLM.from_pretrained(tiny_policy)
    assert shape_of(str(tiny_policy)).weights == sum(weight.numel() for weight in tiny.parameters())
    # As its model card's safetensors say.
    assert SHAPES["Qwen/Qwen2.5-3B-Instruct"].weights == 3_085_938_688


def test_adapters_are_counted_as_peft_makes_them(tiny_policy):
    preset = load_preset("one-gpu", [f"policy.model={tiny_policy}"])
    tiny = AutoModelForCausalLM.from_pretrained(tiny_policy)
    adapted = get_peft_model(tiny, lora_config(preset, tiny))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert shape_of(str(tiny_policy)).adapter_weights(preset.policy.lora) == trained


@pytest.mark.parametrize(
    ("name", "card_gb"), [("rbio1-published", 80), ("h100x1", 80), ("h100x8", 80), ("one-gpu", 24)]
)
def test_a_preset_fits_on_its_card(name, card_gb):
    found = parts(name, card_gb=float(card_gb))
    assert 0 < found["peak"] < card_gb
    assert found["peak"] == max(found[phase] for phase in ("while_generating", "in_backward", "in_optimiser"))


def test_what_does_not_fit_is_seen():
    assert parts("h100x1", "grpo.vllm_enable_sleep_mode=false")["peak"] > 80
    assert parts("one-gpu", "grpo.per_device_train_batch_size=8", card_gb=24.0)["in_backward"] > 24


@pytest.mark.parametrize(
    ("name", "change", "part", "factor"),
    [
        ("h100x8", "grpo.beta=0", "reference", 0.0),
        ("h100x8", "launcher.deepspeed.zero_optimization.stage=3", "weights", 1 / 8),
        ("h100x8", "launcher.deepspeed.zero_optimization.stage=1", "gradients", 8.0),
        ("h100x8", "launcher.processes=16", "optimiser", 1 / 2),
        ("h100x8", "grpo.per_device_train_batch_size=8", "activations", 2.0),
        ("one-gpu", "policy.dtype=bfloat16", "reference", 1.0),
        ("one-gpu", "policy.lora.rank=64", "optimiser", 2.0),
    ],
)
def test_a_part_of_the_memory_moves_by_what_it_depends_on(name, change, part, factor):
    changes = [change] if "bfloat16" not in change else [change, "policy.bits=4"]
    assert parts(name, *changes)[part] == pytest.approx(factor * parts(name)[part], rel=0.05, abs=0.06)


def test_recomputation_gives_memory_for_time():
    kept, recomputed = parts("h100x8"), parts("h100x8", "grpo.activation_checkpointing=true")
    assert recomputed["activations"] < kept["activations"] / 3
    assert recomputed["loss_and_gradient_s"][0] == pytest.approx(6 / 5 * kept["loss_and_gradient_s"][0], rel=0.01)


def test_the_price_is_steps_times_seconds_times_cards_beside_that_of_the_published_run():
    found = estimate(load_preset("h100x8", ["grpo.max_steps=1000"]))
    for hours, seconds in zip(found["h100_hours"], found["seconds_per_step"]["step"], strict=True):
        assert hours == pytest.approx(1000 * seconds * 8 / 3600, abs=1)
    assert found["published_run_h100_hours"] == 1920
    json.dumps(found)


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("cpu", [], "grpo.use_cpu"),
        ("h100x1", ["policy.model=someone/else"], "policy.model someone/else is not known here"),
        ("one-gpu", ["grpo.use_vllm=false"], "grpo.use_vllm"),
    ],
)
def test_what_the_formula_does_not_hold_for_has_no_estimate(name, changes, why):
    with pytest.raises(NoEstimateError, match=why):
        estimate(load_preset(name, changes))
