"""TRL's own keys in a preset: every field of the installed GRPOConfig passes, except those that the trainer owns.

The keys that presets use are declared, with their limits, in `bioverify_trainer.preset`. Any other is looked up in
GRPOConfig, which takes seconds to import, so that is done only if there is such a key.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

_LOGGED = "each step is logged, because metrics.jsonl is the record of the run"
_SAVED = "checkpoints are written every grpo.save_steps steps, whole, so that a run can be resumed"
_HELD_OUT = "held-out questions are asked as the section heldout says"
_BATCH = "one optimiser step is taken per generated batch, whose size num_generations and the batch keys decide"
_ORDER = "the order of the prompts is their number, so that a resumed run sees the same ones"

OWNED = {
    "output_dir": "write --output",
    "resume_from_checkpoint": "write --resume",
    "gradient_checkpointing": "its name is now grpo.activation_checkpointing",
    "gradient_checkpointing_kwargs": "its name is now grpo.activation_checkpointing_kwargs",
    "num_train_epochs": "write grpo.max_steps",
    "deepspeed": "write launcher.deepspeed",
    "ddp_timeout": "write launcher.process_group_timeout_s",
    "local_rank": "write launcher.processes",
    "report_to": "write tracking",
    "model_init_kwargs": "write policy.model_init_kwargs",
    "trust_remote_code": "no code out of a downloaded model is run",
    "reward_weights": "the recipe has the weights",
    "multi_objective_aggregation": "the recipe adds its terms up; TRL is given the sum",
    "remove_unused_columns": "the reward reads all columns of the dataset",
    "max_tool_calling_iterations": "the policy is given no tools",
    "disable_tqdm": "the progress bar shows the reward and its parts",
    "enable_jit_checkpoint": "at SIGTERM a run finishes its step and keeps a checkpoint",
    "auto_find_batch_size": _BATCH,
    "steps_per_generation": _BATCH,
    "generation_batch_size": _BATCH,
    "shuffle_dataset": _ORDER,
    "ignore_data_skip": _ORDER,
    "train_sampling_strategy": _ORDER,
    **dict.fromkeys(("logging_strategy", "logging_steps", "logging_first_step"), _LOGGED),
    **dict.fromkeys(("save_strategy", "save_only_model", "load_best_model_at_end"), _SAVED),
    **dict.fromkeys(
        (
            "eval_strategy",
            "eval_steps",
            "eval_delay",
            "eval_on_start",
            "eval_do_concat_batches",
            "eval_use_gather_object",
            "eval_accumulation_steps",
            "batch_eval_metrics",
            "per_device_eval_batch_size",
            "num_generations_eval",
            "bf16_full_eval",
            "fp16_full_eval",
            "prediction_loss_only",
            "include_for_metrics",
            "metric_for_best_model",
            "greater_is_better",
            "do_eval",
            "do_predict",
        ),
        _HELD_OUT,
    ),
}
"""Why a key of GRPOConfig is not one of a preset, or what to write in its place."""


def check_keys(given: Mapping[str, Any], declared: Collection[str]) -> None:
    """Raises ValueError that names the first of the ``given`` keys that cannot be passed on, and why."""
    for key in given:
        if key in OWNED:
            raise ValueError(f"grpo.{key}: the trainer sets it itself: {OWNED[key]}")
    if not given:
        return
    try:
        from trl.trainer.grpo_config import GRPOConfig
    except ModuleNotFoundError as error:
        raise ValueError(
            f"grpo.{next(iter(given))}: only TRL knows whether there is such a key, and it is not installed here. "
            "Run: pip install 'bioverify[train]'"
        ) from error
    types = typing.get_type_hints(GRPOConfig)
    passed = {field.name for field in dataclasses.fields(GRPOConfig)} - OWNED.keys()
    for key, value in given.items():
        if key not in passed:
            near = difflib.get_close_matches(key, passed | set(declared), n=1)
            raise ValueError(f"grpo.{key}: there is no such key" + (f"; did you mean {near[0]}?" if near else ""))
        try:
            TypeAdapter(types[key], config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"grpo.{key}: {error.errors()[0]['msg']}, not {value!r}") from error
