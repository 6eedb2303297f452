"""The tables of the presets for GPUs in training.md: each resolved value with its source; memory, time and price.

`python docs/settings.py` writes them; it fails if a value has no source, or a preset that differs no reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from bioverify_trainer.estimate import PUBLISHED_H100_HOURS, estimate
from bioverify_trainer.preset import load_preset

PUBLISHED = "rbio1-published"
OURS = ("h100x1", "h100x8", "one-gpu")
CARDS = {PUBLISHED: 80.0, "h100x1": 80.0, "h100x8": 80.0, "one-gpu": 24.0}
"""GB of the card that a preset is for."""
PAPER = "rbio-1's paper and code"
TRL_0_16 = "default of TRL 0.16"
TRANSFORMERS = "default of transformers"
MEMORY = "our reading: where the memory goes, not what is learned"
TRIES = "our reading: nothing that is learned depends on it"
SOURCES: dict[str, tuple[str, str]] = {
    "policy.model": (PAPER, ""),
    "policy.dtype": (
        "our reading of `bf16` with DeepSpeed, which keeps a float32 copy",
        "one-gpu: adapters are merged for vLLM at every step, which bfloat16 does not survive",
    ),
    "policy.lora": (PAPER, "one-gpu: all weights do not fit on 24 GB"),
    "prompts.example_turns": ("our reading", ""),
    "prompts.chain_of_thought": ("our reading", ""),
    "prompts.balance": ("rbio's code", ""),
    "prompts.redraws": (
        "our reading: TRL has none",
        "dynamic sampling (DAPO), once: by the estimate each redraw costs as much of vLLM's time as the first draw",
    ),
    "grpo.max_steps": (PAPER, "h100x8: half as many questions, four times as many a step; one-gpu: ours"),
    "grpo.per_device_train_batch_size": (PAPER, ""),
    "grpo.gradient_accumulation_steps": (
        "default of transformers",
        "h100x1: the published 32 completions on one card; h100x8: 256, because generation costs the same for more; "
        "one-gpu: 32",
    ),
    "grpo.num_generations": (PAPER, "ours: fewer groups whose members are all rewarded alike"),
    "grpo.num_iterations": (TRL_0_16, ""),
    "grpo.max_completion_length": (TRL_0_16, "ours: thoughts are not cut"),
    "grpo.temperature": (TRL_0_16, "ours: the distribution that the loss is about"),
    "grpo.learning_rate": ("rbio-1's paper; its demo has 1e-5", "one-gpu: adapters take a higher one"),
    "grpo.lr_scheduler_type": (TRANSFORMERS, "ours: a run may be stopped at any step"),
    "grpo.warmup_steps": ("rbio-1's demo", "ours, for shorter runs"),
    "grpo.weight_decay": (TRANSFORMERS, ""),
    "grpo.max_grad_norm": (TRANSFORMERS, ""),
    "grpo.beta": (TRL_0_16, ""),
    "grpo.loss_type": (
        "TRL 0.16 had this loss alone, over the tokens of a batch (TRL's pull request 2881); it got the name when 3256 "
        "added others",
        "DAPO: each token counts alike, however the completions fall into batches",
    ),
    "grpo.epsilon": (TRL_0_16, ""),
    "grpo.epsilon_high": (
        "without it TRL clips alike on both sides, since the key came (TRL's pull request 3118, March 2025)",
        "DAPO's own value (arXiv:2503.14476): more room above, so that rare answers may become likely",
    ),
    "grpo.mask_truncated_completions": (
        "TRL 0.16 did not have it: it came with 0.17 (its release notes; pull request 3248, April 2025)",
        "DAPO's overlong filtering: a cut answer is no wrong one",
    ),
    "grpo.scale_rewards": (TRL_0_16, "one-gpu: how sure a soft verifier is counts (What teaches, below)"),
    "grpo.save_steps": (PAPER, "ours: an hour or so of training is what a fault may cost"),
    "grpo.save_total_limit": (TRIES, "ours: 43 GB a checkpoint"),
    "grpo.bf16": ("our reading", ""),
    "grpo.activation_checkpointing": (MEMORY, "80 GB have room without"),
    "grpo.seed": (TRIES, ""),
    "grpo.use_vllm": ("our reading", ""),
    "grpo.vllm_mode": (TRIES, ""),
    "grpo.vllm_gpu_memory_utilization": (MEMORY, "what the table of memory below leaves"),
    "grpo.vllm_enable_sleep_mode": (MEMORY, "one card: optimiser and vLLM take turns"),
    "rewards.deadline_s": (TRIES, ""),
    "rewards.samples_per_step": (TRIES, "one-gpu: two are read"),
    "heldout": ("ours: so that the run is not blind; it changes no weight", "as often, in time"),
    "launcher.processes": ("rbio-1's paper and code: 8 × H100", "one card"),
    "launcher.deepspeed": (
        "an earlier state of rbio's code",
        "ZeRO-2: with 3 B the weights fit on each card; one-gpu: adapters need none",
    ),
}
_WHOLE = ("policy.lora", "launcher.deepspeed", "heldout")


def values() -> Iterator[tuple[str, list[Any]]]:
    """Each key that the presets' files write, or that they resolve to different values; published first."""
    presets = [load_preset(name) for name in (PUBLISHED, *OURS)]
    columns = [dict(_leaves(preset.model_dump(mode="json", exclude={"name", "description"}))) for preset in presets]
    for key in columns[0]:
        found = [column[key] for column in columns]
        if key in SOURCES or any(value != found[0] for value in found):
            yield key, found


def value_rows() -> Iterator[str]:
    yield "| key | " + " | ".join((PUBLISHED, "its source", *OURS, "why another")) + " |"
    yield "|---" * (len(OURS) + 4) + "|"
    for key, (first, *others) in values():
        source, reason = SOURCES.get(key, ("", ""))
        if not source or (any(other != first for other in others) and not reason):
            sys.exit(f"docs/preset_table.py: {key} has no source, or the presets differ in it and no reason is given")
        own = ["=" if other == first else _shown(other) for other in others]
        yield f"| `{key}` | {_shown(first)} | {source} | {' | '.join(own)} | {reason} |"


def price_rows() -> Iterator[str]:
    """Memory, seconds and hours by `bioverify_trainer.estimate`."""
    yield "| preset | card | peak, GB | generating | backward | optimiser | seconds a step | steps | H100-hours |"
    yield "|---" * 9 + "|"
    for name, card_gb in CARDS.items():
        preset = load_preset(name)
        found = estimate(preset, card_gb=card_gb)
        gb, seconds, hours = found["gb_per_gpu"], found["seconds_per_step"]["step"], found["h100_hours"]
        phases = (gb[phase] for phase in ("peak", "while_generating", "in_backward", "in_optimiser"))
        cells = [f"`{name}`", f"{preset.launcher.processes} × {card_gb:g} GB", *(f"{each:.0f}" for each in phases)]
        cells += ["{:.1f}–{:.1f}".format(*seconds), f"{preset.grpo.max_steps:,}", "{}–{}".format(*hours)]
        yield f"| {' | '.join(cells)} |"
    yield f"| rbio-1 as published | 8 × 80 GB | | | | | 8.6 | 100,000 | {PUBLISHED_H100_HOURS:,} |"


def _leaves(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        key = path + name
        if isinstance(value, dict) and key not in _WHOLE and name != "model_init_kwargs":
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _shown(value: Any) -> str:
    """As short as it can be said in a cell."""
    if value is None:
        return "–"
    if isinstance(value, dict) and "zero_optimization" in value:
        return f"ZeRO-{value['zero_optimization']['stage']}"
    if isinstance(value, dict) and "rank" in value:
        return f"rank {value['rank']}, alpha {value['alpha']}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return value if isinstance(value, str) else json.dumps(value)
