"""Each prompt is computed once, however many completions it has.

A GRPO group is one prompt with several completions, and on a CPU the prompt is most of the work: 210 tokens against 45.
Here the keys and values of the distinct prompts are computed once, and every member continues from its own copy, when
the completions are sampled (`bioverify_trainer.model.generation`) and again when their probabilities are taken for the
loss. The copies are part of the graph, so the gradient through the prompt is the sum over its members: the same loss
and the same gradient as with the prompt repeated, up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache, DynamicCache


def prompt_cache(
    model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, beginning: DynamicCache | None = None
) -> DynamicCache:
    """Keys and values of all columns but the last, row by row, each distinct row computed once.

    ``ids``, ``mask``: rows × tokens, padded before what is each row's own. ``beginning``: keys and values of the first
    columns, if these are the same in all rows. The last column is left to be computed together with what follows,
    because its output is the first word about the completion.
    """
    width = ids.shape[1] - 1
    known = 0 if beginning is None else beginning.get_seq_length()
    distinct, member = torch.unique(torch.cat([ids[:, :width], mask[:, :width]], dim=1), dim=0, return_inverse=True)
    cache = DynamicCache()
    if beginning is not None and known:
        copy_cache(beginning, cache, len(distinct))
    distinct_mask = distinct[:, width:]
    if known < width:
        model(
            input_ids=distinct[:, known:width],
            attention_mask=distinct_mask,
            position_ids=positions(distinct_mask)[:, known:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    cache.batch_select_indices(member)
    return cache


def copy_cache(source: Cache, target: Cache, rows: int) -> None:
    """Put what ``source`` holds into the empty ``target``; a single row is repeated to ``rows``."""
    layer: Any
    for number, layer in enumerate(source.layers):
        target.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), number)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token among those that are not padding, as ``generate`` counts them."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def completion_log_probabilities(
    model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, n_completion: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy, rows × ``n_completion``, of the last ``n_completion`` tokens of each row.

    ``model`` has TRL's fused head, which divides by the temperature.
    """
    last_of_prompt = ids.shape[1] - n_completion - 1
    cache = prompt_cache(model, ids[:, : last_of_prompt + 1], mask[:, : last_of_prompt + 1])
    outputs = model(
        input_ids=ids[:, last_of_prompt:],
        attention_mask=mask,
        position_ids=positions(mask)[:, last_of_prompt:],
        past_key_values=cache,
        labels=ids.masked_fill(mask == 0, -100)[:, last_of_prompt:],
        fused_lm_head=True,
    )
    return outputs.log_probs, outputs.entropy
