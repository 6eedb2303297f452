"""What a run shows while it runs: a trace per step, and the figures of ``metrics.jsonl`` as Prometheus metrics.

The trace of a step begins with it, so that the question for rewards, and what aggregator and verifiers did for it, are
parts of one picture. The metrics are those of the last step, by its main process; the run folder stays the record.
They are served only if a port is given: a run ends, and a target that ends looks like one that is down.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bioverify import tracing
from bioverify.core.alarms import ALIKE
from bioverify.core.alarms import NOT_READ as NOT_READ_PREFIX
from bioverify.core.recipes import Recipe
from bioverify.transport.addresses import for_both_families
from bioverify_trainer.draws import NEVER_SCORABLE, REPLACED
from bioverify_trainer.pace import PREFIX, SHARES
from bioverify_trainer.preset import Preset

disable_created_metrics()  # type: ignore[no-untyped-call]

INFO = Gauge("bioverify_training_info", "Always 1: what is trained.", ["recipe", "preset"])
STEP = Gauge("bioverify_training_step", "Steps done.")
PLANNED = Gauge("bioverify_training_planned_steps", "Steps that the run will have.")
LAST_STEP = Gauge("bioverify_training_last_step_timestamp_seconds", "When the last step ended; before it, the start.")
STEP_SECONDS = Histogram(
    "bioverify_training_step_seconds",
    "Seconds of a step: generating, asking for rewards, training.",
    buckets=(0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000),
)
CALL_SECONDS = Histogram(
    "bioverify_training_reward_call_seconds",
    "Seconds of the call for a step's rewards that was answered.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WAITED = Counter("bioverify_training_waited_seconds", "Seconds that training waited for services that did not answer.")
CALLS = Counter("bioverify_training_reward_calls", "Calls for a step's rewards: answered, failed.", ["result"])
UNSCORABLE = Gauge("bioverify_training_unscorable_ratio", "Share of the last step's rows without a reward.")
SOURCE = Gauge("bioverify_training_source_reward", "Mean reward of the last step's rows, by source.", ["source"])
VALUE = Gauge("bioverify_training_value", "Mean value of a term in the last step, in [0, 1].", ["term"])
CONTRIBUTION = Gauge("bioverify_training_contribution", "Mean of weight times value in the last step.", ["term"])
FAILED = Gauge("bioverify_training_verifier_failed_ratio", "Share of items that the verifier failed on.", ["verifier"])
SIGN = Gauge("bioverify_training_sign", "Signs of reward hacking, as in docs/training.md.", ["sign"])
NOT_READ = Gauge(
    "bioverify_training_not_read_ratio",
    "Share of the last step's completions of which the question, a thought or the answer could not be read.",
    ["what", "reason"],
)
STEP_SHARE = Gauge("bioverify_training_step_share_ratio", "Share of the last step, by what it went on.", ["part"])
ACCURACY = Gauge("bioverify_training_heldout_balanced_accuracy", "Of the last look at held-out questions.")

_PLAIN = {
    "reward": Gauge("bioverify_training_reward", "Mean reward of the last step."),
    "reward_std": Gauge("bioverify_training_reward_deviation", "Standard deviation of the rewards in a group, mean."),
    "loss": Gauge("bioverify_training_loss", "Loss of the last step."),
    "kl": Gauge("bioverify_training_kl", "Mean divergence from the reference, if there is one."),
    "entropy": Gauge("bioverify_training_entropy", "Mean entropy of the policy's next token."),
    "learning_rate": Gauge("bioverify_training_learning_rate", "Of the last step."),
    ALIKE: Gauge(
        "bioverify_training_groups_alike_ratio", "Share of the last step's groups whose members are all rewarded alike."
    ),
    REPLACED: Gauge(
        "bioverify_training_groups_replaced_ratio",
        "Share of the last step's groups that took the place of one whose members were all rewarded alike.",
    ),
    NEVER_SCORABLE: Gauge(
        "bioverify_training_never_scorable_ratio", "Share of the last step's draws left out: they can never be scored."
    ),
    "clip_ratio/region_mean": Gauge("bioverify_training_loss_clipped_ratio", "Share of tokens that the loss clips."),
    "sampling/importance_sampling_ratio/mean": Gauge(
        "bioverify_training_importance_ratio", "Mean ratio of the trainer's to vLLM's probability of a completion."
    ),
    f"{PREFIX}tokens_per_second": Gauge(
        "bioverify_training_tokens_per_second", "Tokens of prompts and completions per second of the last step."
    ),
    f"{PREFIX}mfu": Gauge("bioverify_training_mfu_ratio", "Share of the cards' arithmetic that the last step used."),
    "completions/mean_length": Gauge("bioverify_training_completion_tokens", "Mean length of a completion."),
    "completions/clipped_ratio": Gauge("bioverify_training_clipped_ratio", "Share of completions cut at the limit."),
    "reward_call/unscorable": UNSCORABLE,
    "heldout/balanced_accuracy": ACCURACY,
}
_BY_NAME = {"source/": SOURCE, "value/": VALUE, "contribution/": CONTRIBUTION, "watch/": SIGN}


class Telemetry(TrainerCallback):
    """To be the first callback, so that what the others do in a step is part of its trace."""

    def __init__(self) -> None:
        self._trace = tracing.Step()
        self._step_began = time.perf_counter()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        PLANNED.set(state.max_steps)
        self._step_began = time.perf_counter()
        if state.is_world_process_zero:
            self._trace.begin("training step", step=state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        STEP.set(state.global_step)
        LAST_STEP.set(time.time())
        STEP_SECONDS.observe(time.perf_counter() - self._step_began, tracing.exemplar())
        self._trace.end()


class Gauges(TrainerCallback):
    """To be behind the callbacks that add to the log."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        show(logs or {})


def show(logs: Mapping[str, Any]) -> None:
    """Set the metrics to what TRL logs after a step; other logs, as the summary at the end, have none of it."""
    for name, value in logs.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            continue
        if name in _PLAIN:
            _PLAIN[name].set(value)
            continue
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) in SHARES:
            STEP_SHARE.labels(name.removeprefix(PREFIX)).set(value)
        for prefix, gauge in _BY_NAME.items():
            if name.startswith(prefix):
                gauge.labels(name.removeprefix(prefix)).set(value)
        if name.startswith(NOT_READ_PREFIX):
            NOT_READ.labels(*name.removeprefix(NOT_READ_PREFIX).split("/")).set(value)
        if name.startswith("verifier/") and name.endswith("/failed"):
            FAILED.labels(name.split("/")[1]).set(value)
    if "reward_call/failed" in logs:
        CALLS.labels("failed" if logs["reward_call/failed"] else "answered").inc()
        WAITED.inc(logs["reward_call/waited_seconds"])
    if "reward_call/seconds" in logs:
        CALL_SECONDS.observe(logs["reward_call/seconds"])


def expose(listen: str, recipe: Recipe, preset: Preset) -> None:
    """Serve the metrics on ``listen`` until the process ends. Raises ValueError, OSError if that is impossible."""
    host, _, port = listen.rpartition(":")
    INFO.labels(recipe.name, preset.name).set(1)
    LAST_STEP.set(time.time())
    start_http_server(int(port), for_both_families(host))
