"""GRPO training: a recipe × a preset, against live verifiers.

TRL does the training. Added here are the prompts, the reward, the record of the run, and one rule: a step whose rows
were all unscorable leaves the weights alone. TRL already gives such rows no advantage, but with every gradient zero
AdamW would still move the weights by its momentum, and a service that is down for an hour would keep moving them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from peft import LoraConfig
from transformers import (
    PreTrainedModel,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.grpo_config import GRPOConfig

from bioverify import tracing
from bioverify.adapters.decoding import decoder, special_tags
from bioverify.artifacts.store import ArtifactStore
from bioverify.client import AsyncClient, ClientError, ListedVerifier, TlsError, TlsIdentity
from bioverify.core import alarms
from bioverify.core.conversation import opened_thought
from bioverify.core.recipes import Recipe, Requirement
from bioverify_trainer.dataset import PromptSource, make_dataset, open_prompts, rows_of
from bioverify_trainer.draws import DrawingTrainer, FindRows, ScorableRows
from bioverify_trainer.evaluate.questions import Rows
from bioverify_trainer.heldout import HeldOutQuestions, held_out_rows
from bioverify_trainer.model import generation, shared_prompts
from bioverify_trainer.model.gene_vectors import GeneVectorsModel
from bioverify_trainer.model.policy import Policy, open_for, use_threads
from bioverify_trainer.model.vllm_seeds import give_seeds
from bioverify_trainer.one_word import OneWordTrainer, check_recipe
from bioverify_trainer.pace import Pace, innermost
from bioverify_trainer.preset import Preset
from bioverify_trainer.reward import make_reward
from bioverify_trainer.runs.folder import RunError, RunFolder, finite, run_config
from bioverify_trainer.saving import DISK_ERRORS, SavingTrainer
from bioverify_trainer.stopping import RunStopped, stop_signal
from bioverify_trainer.telemetry import Gauges, Telemetry, expose

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trained:
    """How a run ended. ``steps`` counts from the start of the run, resumed or not."""

    steps: int
    folder: RunFolder
    was_stopped: bool = False


def train(
    recipe: Recipe,
    preset: Preset,
    *,
    target: str,
    output: Path,
    store: ArtifactStore,
    resume: bool = False,
    restartable: bool = False,
    metrics_listen: str | None = None,
) -> Trained:
    """Train, or resume a run. ``metrics_listen``: host:port of metrics for Prometheus; None serves none.

    ``restartable``: resume from a checkpoint if an earlier start left one, else begin, and discard what a start that
    reached none had recorded.

    Raises RunError, PolicyError, ArtifactError before anything is run, and RunError if the disk is full at the end.
    """
    use_threads(preset.launcher.threads)
    folder = RunFolder(output)
    if "tensorboard" in preset.tracking:
        # Where transformers' writer looks; its own choice would be below the checkpoints.
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder.path / "tensorboard")
    if not (resume or restartable) and is_main_process():
        folder.check_unused()
    verifiers = check_services(target, recipe)
    prompts = open_prompts(store, recipe, seed=preset.grpo.seed, wanted=preset.prompts)
    policy = open_for(preset)
    checkpoint = _last_checkpoint(folder) if resume or (restartable and _whole_checkpoints(folder)) else None
    if is_main_process() and checkpoint is None:
        folder.forget_after(0)
        simulated = prompts.simulated or any(a.simulated for v in verifiers for a in v.artifacts)
        folder.write_config(
            run_config(recipe, preset, verifiers, target=target, simulated=simulated, policy_path=policy.path)
        )
    held_out = held_out_rows(store, preset, recipe) if preset.heldout else None
    trainer = make_trainer(recipe, preset, policy, prompts, target=target, folder=folder, held_out=held_out)
    if checkpoint is not None and is_main_process():
        folder.forget_after(int(checkpoint.rsplit("-", 1)[1]))
    if metrics_listen is not None and is_main_process():
        try:
            expose(metrics_listen, recipe, preset)
        except (OSError, ValueError) as error:
            raise RunError(f"--metrics-listen {metrics_listen}: {error}. Write a free host:port") from error
    stop_signal.listen()
    try:
        with tracing.exporting("bioverify-trainer"):
            trainer.train(resume_from_checkpoint=checkpoint)
    except RunStopped:
        # The other processes wait for a reply that will not come; they are told to stop as well.
        return Trained(trainer.state.global_step, folder, was_stopped=True)
    was_stopped = trainer.state.global_step < preset.grpo.max_steps
    if not was_stopped:
        keep_result(trainer, folder)
    leave_process_group(trainer)
    return Trained(trainer.state.global_step, folder, was_stopped)


def keep_result(trainer: Trainer, folder: RunFolder) -> None:
    """The trained weights and what is left of the record, whole or not at all. Raises RunError on a full disk."""
    partial = folder.model.with_name(f"{folder.model.name}.partial")
    try:
        if is_main_process():
            folder.write_waiting()
        trainer.save_model(str(partial))
        trainer.accelerator.wait_for_everyone()
        if is_main_process():
            shutil.rmtree(folder.model, ignore_errors=True)
            partial.rename(folder.model)
    except DISK_ERRORS as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(
            f"{folder.path}: training is over, but its result could not be written ({error}). Free space there and "
            "run the same command with --resume: it resumes from the last whole checkpoint, if there is one"
        ) from error


def leave_process_group(trainer: Trainer) -> None:
    """End the processes' connection together: one that is torn down at exit can abort a finished process."""
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def check_services(target: str, recipe: Recipe) -> list[ListedVerifier]:
    """The verifiers behind ``target``. Raises RunError if the recipe could score nothing there."""

    async def ask() -> list[ListedVerifier]:
        async with AsyncClient(target, tls=TlsIdentity.from_environment()) as client:
            return await client.list_verifiers()

    try:
        verifiers = asyncio.run(ask())
    except (ClientError, TlsError) as error:
        raise RunError(f"--target {target}: {error}") from error
    ready = {verifier.name for verifier in verifiers if verifier.is_ready}
    terms = [*recipe.terms, *(term for source in recipe.sources for term in source.terms)]
    missing = sorted({t.verifier for t in terms if t.requirement is Requirement.REQUIRED} - ready)
    if missing:
        raise RunError(
            f"recipe {recipe.name} requires {', '.join(missing)}, which {target} does not have ready "
            f"(ready: {', '.join(sorted(ready)) or 'none'}). Look at: bioverify status"
        )
    return [verifier for verifier in verifiers if verifier.name in recipe.verifiers]


def make_trainer(
    recipe: Recipe,
    preset: Preset,
    policy: Policy,
    prompts: PromptSource,
    *,
    target: str,
    folder: RunFolder,
    held_out: Rows | None = None,
) -> VerifiedTrainer | OneWordTrainer:
    """The trainer, with reward, prompts and record in place. ``held_out``: questions for the preset's ``heldout``."""
    is_one_word = isinstance(policy.model, GeneVectorsModel)
    if is_one_word:
        check_recipe(recipe, preset)
    elif preset.learn_from == "labels":
        raise RunError("learn_from: labels teach a policy over gene vectors alone; leave it at rewards")
    # Counted before DeepSpeed spreads the weights. A backward pass computes as much as two forward, or one if only
    # adapters have gradients.
    pace = Pace(policy.model.num_parameters(), forward_passes=2 if preset.policy.lora else 3)
    reward = make_reward(
        target,
        recipe,
        deadline_s=preset.rewards.deadline_s,
        max_unscorable_share=preset.rewards.max_unscorable_share,
        # The trainer is made with the reward, and the reward is asked by the trainer.
        before_pause=lambda: trainer.keep_weights(),
        samples_per_step=preset.rewards.samples_per_step if is_main_process() else 0,
        record_sample=folder.append_sample,
        prefix_of=lambda turns: opened_thought(generation.rendered(policy, turns)),
        decode=decoder(policy.tokenizer) if special_tags(policy.tokenizer) and not is_one_word else None,
    )
    row = rows_of(prompts, example_turns=preset.prompts.example_turns, chain_of_thought=preset.prompts.chain_of_thought)
    dataset = make_dataset(row, preset.grpo.max_steps * preset.prompts_per_step)
    trainer: VerifiedTrainer | OneWordTrainer
    if is_one_word:
        trainer = OneWordTrainer(preset, policy, reward, grpo_config(preset, folder.checkpoints), dataset, pace)
    else:
        scorable_rows: FindRows = ScorableRows(row, target, recipe, deadline_s=preset.rewards.deadline_s)
        trainer = VerifiedTrainer(
            model=policy.model,
            processing_class=policy.tokenizer,
            reward_funcs=[reward],
            args=grpo_config(preset, folder.checkpoints),
            train_dataset=dataset,
            peft_config=lora_config(preset, policy.model),
            scorable_rows=pace.measuring("rewards")(scorable_rows),
            most_redraws=preset.prompts.redraws,
            prompts_computed_once=preset.prompts.computed_once,
            pace=pace,
        )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Telemetry())
    trainer.add_callback(_Progress())
    trainer.add_callback(_LeaveUnscoredStepsOut(trainer))
    trainer.add_callback(_StopWhenTold())
    if held_out is not None:
        trainer.add_callback(HeldOutQuestions(held_out, preset, policy, trainer))
    trainer.add_callback(pace)
    # Behind all that add to the log.
    trainer.add_callback(Gauges())
    trainer.add_callback(_Record(folder))
    return trainer


def grpo_config(preset: Preset, output: Path) -> GRPOConfig:
    """TRL's configuration for a preset."""
    return GRPOConfig(
        output_dir=str(output),
        **preset.grpo.model_dump(),
        # TRL opens the model of the KL distance itself, from the policy's path; the policy is given to it opened.
        model_init_kwargs=of_reference(preset),
        deepspeed=preset.launcher.deepspeed,
        ddp_timeout=preset.launcher.process_group_timeout_s,
        # Generation and training see the same weights: one optimiser step per generated batch.
        steps_per_generation=preset.grpo.gradient_accumulation_steps,
        # Each draw is random already, and its place in the order must be its index.
        shuffle_dataset=False,
        logging_steps=1,
        report_to=list(preset.tracking),
        # Otherwise, if transformers is told to be quiet, it prints forty figures per step in place of the bar.
        disable_tqdm=False,
    )


def of_reference(preset: Preset) -> dict[str, Any] | None:
    """With what the policy was opened, beside its path, dtype and attention, which TRL takes over."""
    revision = {"revision": preset.policy.revision} if preset.policy.revision else {}
    return {**preset.policy.model_init_kwargs, **revision} or None


def lora_config(preset: Preset, model: PreTrainedModel) -> LoraConfig | None:
    """Adapters as the preset asks for; None if all weights are trained."""
    lora = preset.policy.lora
    if lora is None:
        return None
    n_layers = model.config.num_hidden_layers
    if lora.lowest_layer >= n_layers:
        raise RunError(f"policy.lora.lowest_layer: {lora.lowest_layer}, but the model has layers 0 to {n_layers - 1}")
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.target_modules),
        layers_to_transform=list(range(lora.lowest_layer, n_layers)),
        task_type="CAUSAL_LM",
    )


class VerifiedTrainer(SavingTrainer, DrawingTrainer):
    """GRPOTrainer that leaves rows without a reward out of the loss altogether, and a failed checkpoint behind.

    ``any_row_scored``: whether anything that was generated since the last optimiser step could be scored.
    """

    any_row_scored = False

    def __init__(self, *, prompts_computed_once: bool, pace: Pace, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._prompts_computed_once = prompts_computed_once
        self._pace = pace
        if self.use_vllm:
            give_seeds(self.vllm_generation, seed=self.args.seed, call=self._call_of_vllm)
            engine: Any = self.vllm_generation
            engine.sync_weights = pace.measuring("weights_to_vllm")(engine.sync_weights)

    def _call_of_vllm(self) -> list[int]:
        return [self.state.global_step, self.redraw] if self.redraw else [self.state.global_step]

    def _generate_single_turn(self, prompt_ids: list[list[int]], *others: Any, **options: Any) -> Any:
        with self._pace.measuring("generation"):
            if not self._prompts_computed_once:
                return super()._generate_single_turn(prompt_ids, *others, **options)  # type: ignore[no-untyped-call]
            model = self.accelerator.unwrap_model(self.model_wrapped)
            return generation.write(model, prompt_ids, self.generation_config), None

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int, **options: Any
    ) -> Any:
        if not self._prompts_computed_once:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, **options
            )
        found = shared_prompts.completion_log_probabilities(model, input_ids, attention_mask, logits_to_keep)
        return *found, None

    def _calculate_rewards(self, *args: Any) -> torch.Tensor:
        # TRL gathers these over all processes, so every process comes to the same conclusion.
        with self._pace.measuring("rewards"):
            rewards: torch.Tensor = super()._calculate_rewards(*args)
        self._is_scored = ~rewards.isnan().all(dim=1)
        self.any_row_scored = bool(self._is_scored.any())
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL gives a row without a reward no advantage, but counts its tokens, and draws it towards the reference."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mask = batch["completion_mask"]
        first = self.accelerator.process_index * len(mask)
        batch["completion_mask"] = mask * self._is_scored[first : first + len(mask), None].to(mask.dtype)
        batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        return batch


class _LeaveUnscoredStepsOut(TrainerCallback):
    """Takes the (zero) gradients away when the optimiser steps, which makes it skip the parameters altogether.

    It is torch's own optimiser that is told, inside of DeepSpeed's, which steps in its backward pass on copies of its
    own: transformers' callbacks would come too late and find no gradients there.
    """

    def __init__(self, trainer: VerifiedTrainer | OneWordTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        innermost(kwargs["optimizer"]).register_step_pre_hook(self._skip_unscored)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self._trainer.any_row_scored:
            logger.warning("step %d: nothing could be scored, the weights stay as they are", state.global_step)

    def _skip_unscored(self, optimizer: torch.optim.Optimizer, *_arguments: Any) -> None:
        if not self._trainer.any_row_scored:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None


class _StopWhenTold(TrainerCallback):
    """After a step: if any process was told to stop, all keep a checkpoint and end."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if any(gather_object([stop_signal.was_given])):
            control.should_save = control.should_training_stop = True


class _Progress(ProgressCallback):
    """The progress bar with the reward and its parts, in place of a dictionary of forty figures per step."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.training_bar is None or not logs or "reward_call/unscorable" not in logs:
            return
        shown = {"reward": logs.get("reward")}
        shown |= {name.removeprefix("value/"): logs[name] for name in logs if name.startswith("value/")}
        parts = [f"{name} {value:.2f}" for name, value in shown.items() if value is not None]
        unscorable = logs["reward_call/unscorable"]
        if unscorable:
            parts.append(f"unscorable {unscorable:.0%}")
        parts += [f"{words} {share:.0%}" for words, share in alarms.unread_shares(logs).items()]
        self.training_bar.set_postfix_str(", ".join(parts))
        self.training_bar.write(f"step {state.global_step}: {', '.join(parts)}")


class _Record(TrainerCallback):
    """Writes what TRL logs after each step into the run folder, and nowhere else.

    transformers would keep all of it in ``trainer_state.json`` as well, which every checkpoint writes again: 271 MB at
    step 100,000.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._step_began = time.perf_counter()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step_began = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # The last log of a run is its summary, not a step.
        if state.is_world_process_zero and logs and "reward_call/unscorable" in logs:
            seconds = time.perf_counter() - self._step_began
            self._folder.append_metrics({"step": state.global_step, "step_seconds": seconds, **finite(logs)})
        state.log_history.clear()


def _whole_checkpoints(folder: RunFolder) -> list[Path]:
    # The state is written last: a checkpoint without it was cut short by a kill or a full disk.
    return [state.parent for state in folder.checkpoints.glob("checkpoint-*/trainer_state.json") if _is_json(state)]


def _last_checkpoint(folder: RunFolder) -> str:
    whole = _whole_checkpoints(folder)
    if not whole:
        raise RunError(f"--resume: there is no checkpoint in {folder.checkpoints}")
    return str(max(whole, key=lambda checkpoint: int(checkpoint.name.rsplit("-", 1)[1])))


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True
