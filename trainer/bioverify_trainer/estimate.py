"""What a run on H100s takes by formula, before anybody rents one: memory, seconds of a step, H100-hours.

Nothing here was measured. Memory is counted (P: weights of the model, N: processes, bytes per weight in brackets):

* weights P [dtype], and as much for the reference if ``beta`` is not 0 and all weights are trained; over N with ZeRO-3;
* optimiser: with DeepSpeed float32 weights and Adam's two moments, P [12] over N; else Adam's moments [2 × dtype];
* gradients P [dtype], over N with ZeRO-2 and 3; while DeepSpeed's optimiser steps, P [4] over N more;
* with adapters only these have gradients and moments, in float32, and the model without them is the reference;
* activations: per token and layer 2 · (8 · hidden + 4 · intermediate + 2 · keys) + 8 · hidden bytes; recomputed: 2 ·
  hidden, and one layer whole; logits: 14 bytes per completion token and word of the vocabulary (bfloat16, float32
  twice, gradient);
* vLLM: its share of the card, also while training unless it sleeps; 2 GB for CUDA and what is lost between blocks.

The peak is that of the three phases: generate, backward, optimiser. Seconds are those of a good and a poor run (`GOOD`,
`POOR`): floating-point operations 2P per token for each forward pass (policy, reference, vLLM's importance ratio), 4P
backward (2P with adapters), 2P recomputed; each token of generation reads all weights and the keys and values once;
each redraw (``prompts.redraws``) costs one more generation, because a few groups take as long as all, and one more call
for rewards; each optimiser step moves 30 bytes per weight over N; NVLink carries 4P bytes with ZeRO-2, 2P per pass over
the weights with ZeRO-3.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bioverify.errors import BioverifyError
from bioverify_trainer.preset import Lora, Preset

CARD_GB = 80.0
PROMPT_TOKENS = 200
"""Of a question in rbio's form with its system turn."""
PUBLISHED_H100_HOURS = 1920
"""Of rbio-1's published run: about ten days on 8 × H100."""

_FLOPS = 989e12
_HBM = 3.35e12
_NVLINK = 450e9
_GB = 1e9
_LOST_GB = 2.0
_BYTES = {"float32": 4.0, "bfloat16": 2.0}
_BYTES_PER_LOGIT = 14
_BYTES_PER_OPTIMISER_STEP = 30


class NoEstimateError(BioverifyError):
    """Why there is no estimate, in one sentence."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a decoder's configuration decides its size."""

    layers: int
    hidden: int
    intermediate: int
    keys: int
    """Width of the keys of all key-value heads; of the values as well."""
    vocabulary: int
    is_tied: bool
    has_bias: bool
    """Queries, keys and values have one."""

    @property
    def maps(self) -> dict[str, tuple[int, int]]:
        """The linear maps of a layer: what goes in, what comes out."""
        attention = {"q_proj": (self.hidden, self.hidden), "o_proj": (self.hidden, self.hidden)}
        attention |= dict.fromkeys(("k_proj", "v_proj"), (self.hidden, self.keys))
        outward = dict.fromkeys(("gate_proj", "up_proj"), (self.hidden, self.intermediate))
        return attention | outward | {"down_proj": (self.intermediate, self.hidden)}

    @property
    def weights(self) -> int:
        layer = sum(before * after for before, after in self.maps.values()) + 2 * self.hidden
        layer += (self.hidden + 2 * self.keys) * self.has_bias
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden * (2 - self.is_tied)

    def adapter_weights(self, lora: Lora) -> int:
        layers = self.layers - lora.lowest_layer
        return layers * lora.rank * sum(sum(self.maps[name]) for name in lora.target_modules if name in self.maps)


SHAPES = {"Qwen/Qwen2.5-3B-Instruct": Shape(36, 2048, 11008, 256, 151_936, is_tied=True, has_bias=True)}
"""Of the hub's models that the shipped presets name, so that a dry run fetches nothing."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Shares of what an H100 can do, in [0, 1], and seconds of a step that no formula has."""

    computing: float
    memory: float
    network: float
    rewards_s: float
    hand_over_s: float
    """vLLM wakes, is given the weights, and sleeps; half of it if it never sleeps."""


GOOD = Speed(computing=0.4, memory=0.6, network=0.7, rewards_s=0.1, hand_over_s=0.5)
POOR = Speed(computing=0.2, memory=0.3, network=0.35, rewards_s=0.5, hand_over_s=2.0)


def estimate(preset: Preset, card_gb: float = CARD_GB) -> dict[str, Any]:
    """Memory in GB on a card of ``card_gb``, seconds per step and H100-hours, each from good to poor.

    Raises NoEstimateError.
    """
    if preset.grpo.use_cpu:
        raise NoEstimateError("the run uses no GPU (grpo.use_cpu)")
    if not preset.grpo.use_vllm:
        raise NoEstimateError("the formula holds for generation by vLLM (grpo.use_vllm)")
    shape = shape_of(preset.policy.model)
    memory = _memory(preset, shape, card_gb)
    seconds = [_seconds(preset, shape, speed) for speed in (GOOD, POOR)]
    hours = [preset.grpo.max_steps * sum(each.values()) * preset.launcher.processes / 3600 for each in seconds]
    return {
        "basis": "by formula, docs/training.md; not measured",
        "weights": shape.weights,
        "gb_per_gpu": {name: round(gb, 1) for name, gb in memory.items()},
        "seconds_per_step": {name: [round(each[name], 2) for each in seconds] for name in seconds[0]}
        | {"step": [round(sum(each.values()), 2) for each in seconds]},
        "h100_hours": [round(each) for each in hours],
        "published_run_h100_hours": PUBLISHED_H100_HOURS,
    }


def shape_of(model: str) -> Shape:
    """Raises NoEstimateError if it is neither of `SHAPES` nor a folder with a configuration."""
    if model in SHAPES:
        return SHAPES[model]
    file = Path(model) / "config.json"
    try:
        config = json.loads(file.read_text())
        heads = config["num_attention_heads"]
        return Shape(
            config["num_hidden_layers"],
            config["hidden_size"],
            config["intermediate_size"],
            config["hidden_size"] // heads * config.get("num_key_value_heads", heads),
            config["vocab_size"],
            is_tied=bool(config.get("tie_word_embeddings")),
            has_bias=config.get("model_type") == "qwen2",
        )
    except (OSError, ValueError, KeyError) as error:
        raise NoEstimateError(
            f"the shape of policy.model {model} is not known here ({error!r}); give the folder of a checkpoint"
        ) from error


def _zero_stage(preset: Preset) -> int:
    """0 without DeepSpeed."""
    return int((preset.launcher.deepspeed or {}).get("zero_optimization", {}).get("stage", 0))


def _memory(preset: Preset, shape: Shape, card_gb: float) -> dict[str, float]:
    """GB of each part, of each phase, and of the largest phase."""
    grpo, lora, deepspeed = preset.grpo, preset.policy.lora, preset.launcher.deepspeed
    stage = _zero_stage(preset)
    size = _BYTES[preset.policy.dtype]
    over = [preset.launcher.processes if stage >= least else 1 for least in (1, 2, 3)]
    kept = shape.weights * (preset.policy.bits / 8 if preset.policy.bits else size) / over[2]
    if lora is not None:
        trained = shape.adapter_weights(lora)
        parts = {
            "weights": kept + 4 * trained,
            "reference": 0.0,
            "optimiser": 8.0 * trained,
            "gradients": 4.0 * trained,
        }
        stepping = 0.0
    else:
        parts = {
            "weights": kept,
            "reference": kept if grpo.beta else 0.0,
            "optimiser": shape.weights * (12 / over[0] if deepspeed else 2 * size),
            "gradients": shape.weights * size / over[1],
        }
        stepping = 4 * shape.weights / over[0] if deepspeed else 0.0
    tokens = grpo.per_device_train_batch_size * (PROMPT_TOKENS + grpo.max_completion_length)
    layer = 2 * (8 * shape.hidden + 4 * shape.intermediate + 2 * shape.keys) + 8 * shape.hidden
    recomputed = 2 * shape.hidden * shape.layers + layer
    logits = grpo.per_device_train_batch_size * grpo.max_completion_length * shape.vocabulary * _BYTES_PER_LOGIT
    parts["activations"] = tokens * (recomputed if grpo.activation_checkpointing else layer * shape.layers) + logits
    colocated = grpo.vllm_mode == "colocate"
    parts["vllm"] = grpo.vllm_gpu_memory_utilization * card_gb * _GB if colocated else 0.0
    beside = 0.0 if grpo.vllm_enable_sleep_mode else parts["vllm"]
    standing = parts["weights"] + parts["reference"] + parts["optimiser"] + _LOST_GB * _GB
    phases = {
        "while_generating": standing + parts["vllm"],
        "in_backward": standing + beside + parts["gradients"] + parts["activations"],
        "in_optimiser": standing + beside + parts["gradients"] + stepping,
    }
    found = {name: each / _GB for name, each in (parts | phases).items()}
    return found | {"peak": max(found[name] for name in phases)}


def _seconds(preset: Preset, shape: Shape, speed: Speed) -> dict[str, float]:
    """Seconds of the parts of one step."""
    grpo, processes, weights = preset.grpo, preset.launcher.processes, shape.weights
    rows = preset.completions_per_process
    length = PROMPT_TOKENS + grpo.max_completion_length
    passes = 1 + bool(grpo.beta) + 1 + grpo.activation_checkpointing
    backward = 1 if preset.policy.lora else 2
    operations = 2 * weights * (passes + backward) * rows * length
    # A server of its own is taken for as fast as the trainers' cards would be.
    read = 2 * weights + rows * length * 4 * shape.keys * shape.layers
    written = grpo.max_completion_length * read / (_HBM * speed.memory)
    written += 2 * weights * rows * PROMPT_TOKENS / (_FLOPS * speed.computing)
    stage = _zero_stage(preset)
    batches = grpo.gradient_accumulation_steps
    carried = 0.0
    if processes > 1:
        carried = 2 * weights * (batches * (passes + 1) + 1) if stage == 3 else 4.0 * weights
    trained = shape.adapter_weights(preset.policy.lora) if preset.policy.lora else weights / processes
    turns = 1 + preset.prompts.redraws
    return {
        "generation": turns * written,
        "loss_and_gradient": operations / (_FLOPS * speed.computing),
        "network": carried / (_NVLINK * speed.network),
        "optimiser": _BYTES_PER_OPTIMISER_STEP * trained / (_HBM * speed.memory),
        "rewards": turns * speed.rewards_s,
        "weights_to_vllm": speed.hand_over_s * (turns if grpo.vllm_enable_sleep_mode else 0.5),
    }
