"""Training presets: model, batch, learning rate, launcher, as strict YAML.

A run is a reward recipe × a preset. The keys under ``grpo`` are TRL's own names for the same things, so that its
documentation applies. Values are checked before anything is loaded, and a message names the key.
"""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bioverify.settings import SettingsError, checked, parse_yaml, read_mapping
from bioverify_trainer.grpo_keys import check_keys
from bioverify_trainer.prompts import MOST_EXAMPLE_TURNS

ALIASES = {
    "cpu": "cpu-smollm2-135m",
    "one-gpu": "one-gpu-qwen2.5-3b",
    "h100x1": "h100x1-qwen2.5-3b",
    "h100x8": "h100x8-qwen2.5-3b",
}
# A link to trainer/presets, so that an installed package carries them too.
_SHIPPED = importlib.resources.files("bioverify_trainer") / "presets"

RUN_FILE = "run.json"
"""In the folder of a run: its resolved recipe and preset."""
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
    "local_files_only",
}
"""Arguments of ``from_pretrained`` that are no business of ``policy.model_init_kwargs``."""

PositiveInt = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Lora(_Strict):
    """Low-rank adapters; the weights below them stay as they are."""

    rank: PositiveInt
    """Width of an adapter."""
    alpha: PositiveInt
    """What the adapters add is scaled by alpha / rank."""
    lowest_layer: Annotated[int, Field(ge=0)] = 0
    """Adapters are on the layers from this one upwards, counted from 0."""
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the linear maps of a layer that get one."""


class PolicyPreset(_Strict):
    """The model that is trained."""

    model: Annotated[str, Field(min_length=1)]
    """smollm2, gene-vectors, one of rbio's checkpoints, a folder or a hub id."""
    dtype: Literal["float32", "bfloat16"]
    """float32 or bfloat16."""
    bits: Literal[4, 8] | None = None
    """The weights packed by bitsandbytes, which computes in `dtype`; adapters alone can then be trained."""
    revision: str | None = None
    """Of a hub id: a branch, tag or commit."""
    attn_implementation: str | None = None
    """sdpa, flash_attention_2 or another that transformers knows; if omitted, its choice."""
    model_init_kwargs: dict[str, Any] = {}
    """Further arguments of `from_pretrained`."""
    lora: Lora | None = None
    """Without it all weights are trained."""
    freeze: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Weights that are not trained: names of parameters, or of modules with all below them."""


class PromptPreset(_Strict):
    """What is asked, and how."""

    example_turns: Annotated[int, Field(ge=0, le=MOST_EXAMPLE_TURNS)] = 0
    """Solved examples before the question."""
    chain_of_thought: bool = False
    """The instruction asks for a thought before the answer."""
    computed_once: bool = False
    """The prompt of a group is computed once and not per completion: pays on a CPU, if it is most of the work."""
    balance: Literal["label", "gene"] = "label"
    """label: yes and no alike over all rows, as rbio draws, so that the gene tells nine tenths of the label. gene:
    alike within each gene, so that only the perturbation is left to learn."""
    lines: tuple[Literal["k562", "rpe1", "hepg2", "jurkat"], ...] = ()
    """Cell lines that are trained on; without any: all."""
    strict: bool = False
    """No cell line trains on what any cell line holds out."""
    redraws: Annotated[int, Field(ge=0, le=8)] = 0
    """Dynamic sampling (DAPO): how often groups that are all rewarded alike are written for other questions."""


class Grpo(_Strict):
    """The settings of TRL's GRPOConfig, under TRL's names: those with limits here, and any other that it has."""

    # `bioverify_trainer.grpo_keys` checks the others.
    model_config = ConfigDict(extra="allow")

    max_steps: PositiveInt
    """Optimiser steps of the run."""
    per_device_train_batch_size: PositiveInt
    """Completions that one process computes at once."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches of one optimiser step."""
    num_generations: Annotated[int, Field(ge=2)]
    """Completions of one group."""
    num_iterations: PositiveInt = 1
    """Optimiser steps on the same completions; of a policy over gene vectors: on the same questions."""
    max_completion_length: PositiveInt
    """Tokens of a completion at most."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of sampling."""
    learning_rate: Annotated[float, Field(gt=0)]
    """The highest of the run."""
    lr_scheduler_type: Literal["constant", "linear", "cosine", "constant_with_warmup"] = "linear"
    """constant, linear, cosine or constant_with_warmup."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Longer gradients are cut to it."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL distance to the model as it was at the start; 0: no such model is loaded."""
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """What the loss of a token is divided by."""
    epsilon: Annotated[float, Field(gt=0)] = 0.2
    """How far below 1 a token's ratio of probabilities is followed."""
    epsilon_high: Annotated[float, Field(gt=0)] | None = None
    """How far above 1; without it as far as below."""
    mask_truncated_completions: bool = False
    """Completions that were cut at their greatest length are left out of the loss."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """group, batch or none: over what the standard deviation is taken that advantages are divided by."""
    save_steps: PositiveInt
    """Steps between two checkpoints."""
    save_total_limit: PositiveInt | None = None
    """Checkpoints that are kept; without it all."""
    bf16: bool
    """Mixed precision in bfloat16."""
    activation_checkpointing: bool
    """Activations are computed again in the backward pass: less memory, more time."""
    use_cpu: bool
    """Train on the CPU even if there is a GPU."""
    seed: int = 0
    """Of the order of the questions and of sampling."""
    use_vllm: bool = False
    """vLLM generates the completions."""
    vllm_mode: Literal["colocate", "server"] = "colocate"
    """colocate: in the training processes; server: at `vllm_server_base_url`."""
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of a GPU's memory that vLLM takes when colocated."""
    vllm_enable_sleep_mode: bool = False
    """vLLM leaves its memory to the optimiser's step when colocated."""
    vllm_server_base_url: Annotated[str, Field(pattern="^https?://")] | None = None
    """Address of `vllm serve`."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template (`enable_thinking`), for training, held-out questions and all other asking."""


class Rewards(_Strict):
    """How the services are asked."""

    deadline_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds of one call."""
    max_unscorable_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """If a larger share of the rows is lost to faults that may pass, the run keeps a checkpoint and waits for the
    services; 1: it never waits."""
    samples_per_step: Annotated[int, Field(ge=0)] = 0
    """Completions of a step that are kept with their evidence."""


class HeldOut(_Strict):
    """Held-out questions that the policy answers greedily during the run, half of them positive: what is logged under
    ``heldout/`` has no base rate to live on."""

    every: PositiveInt
    """Steps between two times; once before the first step as well."""
    questions: Annotated[int, Field(ge=2)]
    """At most so many are asked each time: fewer where the cell lines have fewer genes to ask about."""
    per_gene: Annotated[int, Field(ge=2)] = 4
    """Questions about each gene."""


class Launcher(_Strict):
    """Processes on one machine, one per GPU."""

    processes: PositiveInt = 1
    """How many; more than one are started by torchrun."""
    process_group_timeout_s: PositiveInt = 1800
    """Seconds that one process waits for another before the run is given up."""
    threads: PositiveInt | Literal["all"] | None = None
    """Threads of the CPU, per process; "all": as many as it may use cores; without it what the environment says."""
    deepspeed: dict[str, Any] | None = None
    """DeepSpeed's own configuration."""


class Preset(_Strict):
    """What is trained and how; a run is a recipe × a preset."""

    name: Annotated[str, Field(min_length=1)]
    """Stands in the record of a run."""
    description: str = ""
    """For readers."""
    policy: PolicyPreset
    learn_from: Literal["rewards", "labels"] = "rewards"
    """labels: no GRPO, but cross-entropy on the measured labels of the same questions, as a reference; for policies
    over gene vectors."""
    prompts: PromptPreset = PromptPreset()
    grpo: Grpo
    rewards: Rewards = Rewards()
    heldout: HeldOut | None = None
    tracking: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Where transformers sends the metrics besides `metrics.jsonl`; their packages are the user's."""
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
        # transformers leaves DeepSpeed out, without a word, if it is told to use the CPU.
        if self.grpo.use_cpu and (self.grpo.use_vllm or self.launcher.deepspeed):
            raise ValueError("grpo.use_cpu: vLLM and DeepSpeed need GPUs")
        if self.grpo.use_vllm and self.policy.lora and self.policy.dtype == "bfloat16" and not self.policy.bits:
            raise ValueError(
                "policy.dtype: before each step adapters are added to the weights for vLLM and taken off again, and in "
                "bfloat16 the weights do not come back as they were. Set policy.dtype=float32 (with grpo.bf16=true it "
                "computes in bfloat16 all the same)"
            )
        if self.grpo.use_vllm and "seed" in ((self.grpo.model_extra or {}).get("generation_kwargs") or {}):
            raise ValueError(
                "grpo.generation_kwargs: with one seed for all, the completions of a group are alike; set grpo.seed, "
                "from which each has its own"
            )
        if self.policy.bits and (self.policy.lora is None or self.launcher.deepspeed):
            raise ValueError("policy.bits: packed weights are not trained; give policy.lora, and no DeepSpeed")
        if self.policy.freeze and self.policy.lora:
            raise ValueError("policy.freeze: adapters leave all other weights as they are; leave one of the two out")
        if (self.grpo.use_vllm and self.grpo.vllm_mode == "server") != (self.grpo.vllm_server_base_url is not None):
            raise ValueError(
                "grpo.vllm_server_base_url: belongs to use_vllm: true with vllm_mode: server, and these need it; it is "
                "the address of `vllm serve`"
            )
        if self.prompts.computed_once and (self.grpo.use_vllm or self.grpo.activation_checkpointing):
            raise ValueError(
                "prompts.computed_once: vLLM has a prefix cache of its own, and activation checkpointing keeps no "
                "cache; set grpo.use_vllm and grpo.activation_checkpointing to false, or leave this out"
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

    Raises SettingsError.
    """
    if _is_yaml(name):
        where, content = name, read_mapping(Path(name))
    else:
        full_name = ALIASES.get(name, name)
        if full_name not in preset_names():
            known = ", ".join([*preset_names(), *ALIASES])
            raise SettingsError("", "", f"preset {name!r} is not one of {known}, nor a .yaml file")
        where = f"{full_name}.yaml"
        content = read_mapping(_SHIPPED / where)
    for override in overrides or ():
        _apply(content, override)
    return checked(Preset, content, where)


def preset_for(model: str, name: str | None, overrides: list[str] | None = None) -> Preset:
    """The preset of that name; without a name, the one that the ``model`` was trained with, if it is one of a run's
    (``RUN/model``, ``RUN/checkpoints/checkpoint-8``), else `cpu`: a policy is asked as it was trained. Raises
    SettingsError."""
    if name is None:
        for folder in list(Path(model).parents)[:2] if Path(model).is_dir() else ():
            if (folder / RUN_FILE).is_file():
                content = json.loads((folder / RUN_FILE).read_text())["preset"]
                for override in overrides or ():
                    _apply(content, override)
                return checked(Preset, content, str(folder / RUN_FILE))
    return load_preset(name or "cpu", overrides)


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _apply(content: dict[str, Any], override: str) -> None:
    where = f"--set {override}"
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise SettingsError(where, "", "expected key=value, for instance grpo.max_steps=4")
    *sections, key = path.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise SettingsError(where, "", f"{section} has no keys of its own")
    place[key] = parse_yaml(value, where)
