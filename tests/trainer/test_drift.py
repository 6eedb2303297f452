"""Adapters that are merged for vLLM and taken off again, step after step: what becomes of the weights below them."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from bioverify.settings import SettingsError
from bioverify_trainer.preset import load_preset, preset_names

STEPS = 200


def drift(policy, dtype):
    """Share of the base weights that changed, and the change's length over that of what the adapters add."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(policy, dtype=dtype)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(base, config)
    layers = [module for module in model.modules() if hasattr(module, "get_delta_weight")]
    before = [layer.weight.detach().clone() for layer in layers]
    for _ in range(STEPS):
        for layer in layers:
            # As an optimiser step does, a little.
            layer.lora_B["default"].weight.data += 1e-3 * torch.randn_like(layer.lora_B["default"].weight)
        # What TRL does before each generation: vllm_generation.sync_weights.
        model.merge_adapter()
        model.unmerge_adapter()
    off = [layer.weight.detach().float() - weight.float() for layer, weight in zip(layers, before, strict=True)]
    changed = sum(int((each != 0).sum()) for each in off) / sum(each.numel() for each in off)
    effect = torch.cat([layer.get_delta_weight("default").detach().float().flatten() for layer in layers]).norm()
    return changed, float(torch.cat([each.flatten() for each in off]).norm() / effect)


def test_a_base_in_bfloat16_drifts_and_one_in_float32_does_not(tiny_policy, capsys):
    (lossy, lossy_drift), (_, exact_drift) = drift(tiny_policy, torch.bfloat16), drift(tiny_policy, torch.float32)
    with capsys.disabled():
        print(
            f"\n{STEPS} merges: bfloat16 changed {lossy:.0%} of the base weights, by {lossy_drift:.1%} of the "
            f"adapters' effect; float32 by {exact_drift:.1e}"
        )
    assert lossy > 0.3
    assert lossy_drift > 0.01
    assert exact_drift < 1e-5


def test_adapters_that_vllm_is_given_merged_are_refused_over_a_base_in_bfloat16():
    with pytest.raises(SettingsError, match=r"policy\.dtype: .*in bfloat16 the weights do not come back as they were"):
        load_preset("one-gpu", ["policy.dtype=bfloat16"])
    # Without vLLM nothing is merged; packed weights are never written back.
    assert load_preset("one-gpu", ["policy.dtype=bfloat16", "grpo.use_vllm=false"]).policy.dtype == "bfloat16"
    for preset in map(load_preset, preset_names()):
        assert not (preset.policy.lora and preset.grpo.use_vllm) or preset.policy.dtype == "float32"
