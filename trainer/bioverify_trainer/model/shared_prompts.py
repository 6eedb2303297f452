"""Each prompt is computed once, however many completions it has.

A GRPO group is one prompt with several completions, and on a CPU the prompt is most of the work: 210 tokens against 45.
Here the keys and values of the distinct prompts are computed once, and every member continues from its own copy, when
the completions are sampled and again when their probabilities are taken for the loss. The copies are part of the
graph, so the gradient through the prompt is the sum over its members: the same loss and the same gradient as with the
prompt repeated, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache, GenerationConfig, PreTrainedModel, StaticCache


def prompt_cache(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> DynamicCache:
    """Keys and values of all columns but the last, row by row, each distinct row computed once.

    ``ids``, ``mask``: rows × tokens, padded on the left. The last column is left to be computed together with what
    follows, because its output is the first word about the completion.
    """
    width = ids.shape[1] - 1
    distinct, member = torch.unique(torch.cat([ids[:, :width], mask[:, :width]], dim=1), dim=0, return_inverse=True)
    cache = DynamicCache()
    distinct_mask = distinct[:, width:]
    model(
        input_ids=distinct[:, :width],
        attention_mask=distinct_mask,
        position_ids=positions(distinct_mask),
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


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    pad_token: int,
    end_tokens: Sequence[int],
) -> list[list[int]]:
    """One completion per prompt, sampled as ``config`` says, up to and with the first of ``end_tokens``."""
    width = max(map(len, prompts))
    device = model.device
    ids = torch.tensor([[pad_token] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    with torch.no_grad():
        # Room for all tokens at once: a cache that grows is copied whole at every token.
        cache = StaticCache(model.config, max_cache_len=width + config.max_new_tokens)
        copy_cache(prompt_cache(model, ids, mask), cache, len(ids))
        written = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=mask, past_key_values=cache, generation_config=config
        )[:, width:]
    ends = torch.isin(written, torch.tensor(list(end_tokens), device=device)).long()
    lengths = torch.where(ends.any(dim=1), ends.argmax(dim=1) + 1, written.shape[1])
    return [row[:length].tolist() for row, length in zip(written, lengths.tolist(), strict=True)]
