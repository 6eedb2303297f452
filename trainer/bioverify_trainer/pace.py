"""How fast a run is, and on what a step's seconds go: ``pace/…`` in the log of each step.

``rewards``, ``generation``, ``weights_to_vllm``, ``optimiser`` are shares of the step; ``rest`` is loss, gradient and
all else. ``tokens_per_second``: tokens of prompts and completions, of all processes, over the whole step. ``mfu``: the
operations of one forward and one backward pass over them (6 per weight and token, 4 if only adapters are trained), as
a share of what the cards could do in that time; only for cards of which that is known. The times are the main
process's: the others wait for its rewards.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

PREFIX = "pace/"
PARTS = ("rewards", "generation", "weights_to_vllm", "optimiser")
SHARES = (*PARTS, "rest")
# Dense, in bfloat16, by NVIDIA's data sheets (SXM).
_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


class Pace(TrainerCallback):
    """``weights``: of the model; ``forward_passes``: what forward and backward pass cost, in forward passes."""

    def __init__(self, weights: int, forward_passes: int) -> None:
        self._operations_per_token = 2.0 * weights * forward_passes
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._began = self._optimiser_began = time.perf_counter()
        self._tokens_before = 0.0

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """What is done meanwhile is ``part`` of the step, but for parts of their own inside of it."""
        began, inner = time.perf_counter(), sum(self._seconds.values())
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - began - (sum(self._seconds.values()) - inner)

    def figures(self, step_seconds: float, tokens: float | None, processes: int) -> dict[str, float]:
        """Of the step that took ``step_seconds``. ``tokens``: of all its prompts and completions, if that is known."""
        found = {part: self._seconds[part] / step_seconds for part in PARTS}
        found["rest"] = 1 - sum(found.values())
        if tokens is not None:
            found["tokens_per_second"] = tokens / step_seconds
            if flops := _flops_of_card():
                found["mfu"] = self._operations_per_token * tokens / step_seconds / (flops * processes)
        return {PREFIX + name: value for name, value in found.items()}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._tokens_before = state.num_input_tokens_seen
        optimizer = innermost(kwargs["optimizer"])
        optimizer.register_step_pre_hook(self._optimiser_begins)
        optimizer.register_step_post_hook(self._optimiser_ends)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._began = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: MutableMapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # The last log of a run is its summary, not a step.
        if logs is None or "reward_call/unscorable" not in logs:
            return
        tokens = logs["num_tokens"] - self._tokens_before if "num_tokens" in logs else None
        self._tokens_before = logs.get("num_tokens", 0.0)
        logs.update(self.figures(time.perf_counter() - self._began, tokens, args.world_size))

    def _optimiser_begins(self, *_arguments: Any) -> None:
        _wait_for_card()
        self._optimiser_began = time.perf_counter()

    def _optimiser_ends(self, *_arguments: Any) -> None:
        _wait_for_card()
        self._seconds["optimiser"] += time.perf_counter() - self._optimiser_began


def innermost(optimizer: Any) -> torch.optim.Optimizer:
    """Torch's own optimiser, inside of accelerate's and DeepSpeed's."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def _wait_for_card() -> None:
    # Work is queued on it: without waiting, the backward pass would be counted as the optimiser's.
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _flops_of_card() -> float | None:
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((flops for card, flops in _FLOPS.items() if card in name), None)
