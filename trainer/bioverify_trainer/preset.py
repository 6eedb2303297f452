"""Training presets: model, batch, learning rate, launcher, as strict YAML.

A run is a reward recipe × a preset. The keys under ``grpo`` are TRL's own names for the same things, so that its
documentation applies. Values are checked before anything is loaded, and a message names the key.
"""

from __future__ import annotations

import difflib
import importlib.resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bioverify_trainer.grpo_keys import check_keys
from bioverify_trainer.prompts import MOST_EXAMPLE_TURNS

ALIASES = {"cpu": "cpu-smollm2-135m", "one-gpu": "one-gpu-qwen2.5-3b", "h100x8": "h100x8-qwen2.5-3b"}
# A link to trainer/presets, so that an installed package carries them too.
_SHIPPED = importlib.resources.files("bioverify_trainer") / "presets"

LONGEST_PAUSE_S = 30.0
"""Between two tries of a run that waits for the services to come back."""
_SLACK_S = 30.0
_SET_ELSEWHERE = {
    "pretrained_model_name_or_path",
    "dtype",
    "torch_dtype",
    "quantization_config",
    "revision",
    "attn_implementation",
    "trust_remote_code",
}
"""Arguments of ``from_pretrained`` that are no business of ``policy.model_init_kwargs``."""

PositiveInt = Annotated[int, Field(gt=0)]


class PresetError(ValueError):
    """A preset that cannot be used; the message names the file and the key."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Strict):
    """Low-rank adapters on the layers from ``lowest_layer`` (counted from 0) upwards."""

    rank: PositiveInt
    alpha: PositiveInt
    lowest_layer: Annotated[int, Field(ge=0)] = 0
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)]


class PolicyPreset(_Strict):
    """``model``: smollm2, one of rbio's checkpoints, a folder or a hub id. Without ``lora`` all weights are trained.

    ``bits``: the weights packed by bitsandbytes, which computes in ``dtype``; adapters alone can then be trained.
    ``revision``: of a hub id, a branch, tag or commit. ``attn_implementation``: sdpa, flash_attention_2 or another that
    transformers knows; if omitted, its choice. ``model_init_kwargs``: further arguments of ``from_pretrained``.
    """

    model: Annotated[str, Field(min_length=1)]
    dtype: Literal["float32", "bfloat16"]
    bits: Literal[4, 8] | None = None
    revision: str | None = None
    attn_implementation: str | None = None
    model_init_kwargs: dict[str, Any] = {}
    lora: Lora | None = None


class PromptPreset(_Strict):
    """``computed_once``: not once per completion; pays on a CPU, where the prompt is most of the work.

    ``lines``: cell lines that are trained on; if empty, all. ``strict``: no line trains on what any line holds out.
    """

    example_turns: Annotated[int, Field(ge=0, le=MOST_EXAMPLE_TURNS)] = 0
    chain_of_thought: bool = False
    computed_once: bool = False
    lines: tuple[Literal["k562", "rpe1", "hepg2", "jurkat"], ...] = ()
    strict: bool = False


class Grpo(_Strict):
    """The settings of TRL's GRPOConfig, under TRL's names: those with limits here, and any other that it has."""

    # `bioverify_trainer.grpo_keys` checks the others.
    model_config = ConfigDict(extra="allow")

    max_steps: PositiveInt
    per_device_train_batch_size: PositiveInt
    gradient_accumulation_steps: PositiveInt = 1
    num_generations: Annotated[int, Field(ge=2)]
    num_iterations: PositiveInt = 1
    max_completion_length: PositiveInt
    temperature: Annotated[float, Field(gt=0)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)]
    lr_scheduler_type: Literal["constant", "linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 0.0
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    save_steps: PositiveInt
    save_total_limit: PositiveInt | None = None
    bf16: bool
    gradient_checkpointing: bool
    use_cpu: bool
    seed: int = 0
    use_vllm: bool = False
    vllm_mode: Literal["colocate", "server"] = "colocate"
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.3
    vllm_server_base_url: Annotated[str, Field(pattern="^https?://")] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class Rewards(_Strict):
    """``deadline_s`` of one call; ``samples_per_step`` completions are kept with their evidence.

    Above ``max_unscorable_share`` of rows lost to faults that may pass, the run keeps a checkpoint and waits for the
    services; 1: it never waits.
    """

    deadline_s: Annotated[float, Field(gt=0)] = 60.0
    max_unscorable_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    samples_per_step: Annotated[int, Field(ge=0)] = 0


class HeldOut(_Strict):
    """Every ``every`` steps, and before the first, the policy answers ``questions`` held-out ones, greedily.

    Half of them are positive, ``per_gene`` of each gene: what is logged under ``heldout/`` has no base rate to live
    on.
    """

    every: PositiveInt
    questions: Annotated[int, Field(ge=2)]
    per_gene: Annotated[int, Field(ge=2)] = 4


class Launcher(_Strict):
    """Processes on one machine, one per GPU; ``deepspeed`` is DeepSpeed's configuration.

    ``threads``: of the CPU, per process; "all" cores that the process may use; if omitted, as the environment says.
    ``process_group_timeout_s``: for so long one process waits for another before the run is ended.
    """

    processes: PositiveInt = 1
    process_group_timeout_s: PositiveInt = 1800
    threads: PositiveInt | Literal["all"] | None = None
    deepspeed: dict[str, Any] | None = None


class Preset(_Strict):
    """``tracking``: where transformers sends the metrics besides ``metrics.jsonl``; their packages are the user's."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    policy: PolicyPreset
    prompts: PromptPreset = PromptPreset()
    grpo: Grpo
    rewards: Rewards = Rewards()
    heldout: HeldOut | None = None
    tracking: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    launcher: Launcher = Launcher()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        check_keys(self.grpo.model_extra or {}, Grpo.model_fields)
        if owned := sorted(_SET_ELSEWHERE & self.policy.model_init_kwargs.keys()):
            raise ValueError(
                f"policy.model_init_kwargs.{owned[0]}: the section policy has a key for it, or it is not allowed"
            )
        completions = self.completions_per_process * self.launcher.processes
        if completions % self.grpo.num_generations:
            raise ValueError(
                f"grpo.num_generations: {self.grpo.num_generations} does not divide the {completions} completions of "
                "one step (per_device_train_batch_size × gradient_accumulation_steps × launcher.processes)"
            )
        # While the main process asks or pauses, the others wait for its word.
        longest_wait_s = self.rewards.deadline_s + LONGEST_PAUSE_S + _SLACK_S
        if self.launcher.processes > 1 and self.launcher.process_group_timeout_s < longest_wait_s:
            raise ValueError(
                f"launcher.process_group_timeout_s: {self.launcher.process_group_timeout_s} s is too short; processes "
                f"that wait for rewards would be taken for dead. It takes at least {longest_wait_s:g} s: "
                f"rewards.deadline_s ({self.rewards.deadline_s:g}) + the longest pause between two tries "
                f"({LONGEST_PAUSE_S:g}) + {_SLACK_S:g}"
            )
        if self.grpo.use_cpu and (self.grpo.use_vllm or self.launcher.deepspeed):
            raise ValueError("grpo.use_cpu: vLLM and DeepSpeed need GPUs")
        if self.policy.bits and (self.policy.lora is None or self.launcher.deepspeed):
            raise ValueError("policy.bits: packed weights are not trained; give policy.lora, and no DeepSpeed")
        if self.heldout and self.launcher.deepspeed:
            raise ValueError("heldout: DeepSpeed spreads the weights, and one process alone answers held-out questions")
        if (self.grpo.use_vllm and self.grpo.vllm_mode == "server") != (self.grpo.vllm_server_base_url is not None):
            raise ValueError(
                "grpo.vllm_server_base_url: belongs to use_vllm: true with vllm_mode: server, and these need it; it is "
                "the address of `trl vllm-serve`"
            )
        if self.prompts.computed_once and (self.grpo.use_vllm or self.grpo.gradient_checkpointing):
            raise ValueError(
                "prompts.computed_once: vLLM has a prefix cache of its own, and gradient checkpointing keeps no cache; "
                "set grpo.use_vllm and grpo.gradient_checkpointing to false, or leave this out"
            )
        return self

    @property
    def completions_per_process(self) -> int:
        """Completions generated for one optimiser step of one process."""
        return self.grpo.per_device_train_batch_size * self.grpo.gradient_accumulation_steps

    @property
    def prompts_per_step(self) -> int:
        return self.completions_per_process * self.launcher.processes // self.grpo.num_generations


def preset_names() -> list[str]:
    """The shipped presets."""
    return sorted(Path(file.name).stem for file in _SHIPPED.iterdir() if _is_yaml(file.name))


def load_preset(name: str, overrides: list[str] | None = None) -> Preset:
    """A shipped preset, by name or alias, or one's own YAML file, changed by ``overrides`` ("grpo.max_steps=4").

    Raises `PresetError`, which names the key.
    """
    if _is_yaml(name):
        where, text = name, _read_own(Path(name))
    else:
        full_name = ALIASES.get(name, name)
        if full_name not in preset_names():
            known = ", ".join([*preset_names(), *ALIASES])
            raise PresetError(f"preset {name!r} is not one of {known}, nor a .yaml file")
        where = f"{full_name}.yaml"
        text = _SHIPPED.joinpath(where).read_text()
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PresetError(f"{where}: not YAML ({error})") from error
    if not isinstance(content, dict):
        raise PresetError(f"{where}: holds no keys")
    for override in overrides or ():
        _apply(content, override)
    try:
        return Preset.model_validate(content)
    except ValidationError as error:
        raise PresetError(f"{where}: {'; '.join(_explain(problem) for problem in error.errors())}") from error


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _read_own(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise PresetError(f"preset {path}: cannot be read ({error.strerror})") from error


def _apply(content: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise PresetError(f"--set {override}: expected key=value, for instance grpo.max_steps=4")
    *sections, key = path.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise PresetError(f"--set {override}: {section} has no keys of its own")
    place[key] = yaml.safe_load(value)


def _explain(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        section: Any = Preset
        for part in problem["loc"][:-1]:
            section = _section(section.model_fields[part].annotation)
        near = difflib.get_close_matches(str(problem["loc"][-1]), section.model_fields, n=1)
        return f"{key}: there is no such key" + (f"; did you mean {near[0]}?" if near else "")
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message}, not {problem['input']!r}" if key else message


def _section(annotation: Any) -> Any:
    """The model class of a field, with or without "or None"."""
    return next((a for a in getattr(annotation, "__args__", ()) if a is not type(None)), annotation)
