"""What somebody who may start runs may change about them: JSON values of listed keys, and listed models.

The command line and a preset's file may more, because whoever writes them could as well run the trainer. Here a caller
may come from anywhere that the gateway lets in, so nothing can be changed that names a path, an address, a hub or what
DeepSpeed does, and a value is JSON of bounded depth: YAML has aliases, by which 400 letters become gigabytes. No model
is ever loaded with code of its own, here or elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from bioverify.runtime.errors import invalid
from bioverify_trainer.preset import load_preset, preset_names

KEYS = (
    "policy.model", "policy.dtype", "policy.bits", "policy.lora", "prompts", "rewards", "heldout",
    "launcher.threads", "launcher.process_group_timeout_s",
    *(f"grpo.{name}" for name in (
        "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "num_generations",
        "num_iterations", "max_completion_length", "temperature", "learning_rate", "lr_scheduler_type", "warmup_steps",
        "weight_decay", "max_grad_norm", "beta", "loss_type", "scale_rewards", "save_steps", "save_total_limit", "bf16",
        "activation_checkpointing", "use_cpu", "seed", "use_vllm", "vllm_gpu_memory_utilization",
    )),
)  # fmt: skip
"""With what is below them: prompts.lines, policy.lora.rank. `policy.model` takes the listed models only."""
DEEPEST = 4
_KEY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
# A name may stand without quotes: policy.model=smollm2, grpo.lr_scheduler_type=linear.
_WORD = re.compile(r"[A-Za-z/][\w./:+-]*")


@dataclass(frozen=True, slots=True)
class Allowed:
    """``models``: beside those of the shipped presets. ``keys``: beside `KEYS`."""

    models: Collection[str] = ()
    keys: Collection[str] = ()

    def checked(self, changes: Iterable[str]) -> tuple[str, ...]:
        """The changes as the trainer takes them, each value as JSON. Raises Refused that names the change."""
        taken, violations = [], []
        for index, change in enumerate(changes):
            try:
                taken.append(self._checked(change))
            except ValueError as error:
                violations.append((f"changes[{index}]", str(error)))
        if violations:
            raise invalid(violations)
        return tuple(taken)

    def _checked(self, change: str) -> str:
        key, equals, text = change.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise ValueError("expected key=value, for instance grpo.max_steps=4")
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in (*KEYS, *self.keys)):
            raise ValueError(f"{key} cannot be changed here. The service takes: {', '.join((*KEYS, *self.keys))}")
        value = _value(text)
        if key == "policy.model":
            models = sorted({*self.models, *(load_preset(name).policy.model for name in preset_names())})
            if value not in models:
                raise ValueError(f"policy.model: not one of {', '.join(models)}")
        return f"{key}={json.dumps(value, allow_nan=False)}"


def _value(text: str) -> Any:
    if _WORD.fullmatch(text) and text not in {"true", "false", "null"}:
        return text
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the value is not JSON: {error}") from error
    if _depth(value) > DEEPEST:
        raise ValueError(f"the value is nested more than {DEEPEST} deep")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0) if isinstance(value, dict | list) else 0
