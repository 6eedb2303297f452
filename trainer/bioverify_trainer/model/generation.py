"""How completions are written: the one loop behind `generate`, `ask`, `chat`, `eval`, held-out questions and training.

What all prompts of a batch begin with (system turn, example turns) is computed once, then each distinct prompt once;
then all rows write together. Rows are laid out as that beginning, padding, and what is each row's own; the mask has a
hole where the padding is.

A checkpoint publishes generation settings of its own (Qwen2.5: a repetition penalty of 1.05), which would silently
become part of what is measured. Here every setting is given, and the checkpoint's are set aside while it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, StaticCache, TextStreamer

from bioverify.adapters.decoding import decoder
from bioverify.core.conversation import opened_thought, whole_completion
from bioverify_trainer.model.policy import Policy
from bioverify_trainer.model.shared_prompts import copy_cache, prompt_cache
from bioverify_trainer.prompts import Turn

Ids = list[int]

PROMPT_END_TOKENS = 32
"""Among which stands the thought that a template opens."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The tokens that all prompts of a batch begin with, and their keys and values."""

    ids: Ids
    cache: DynamicCache

    def rows(self, rows: Sequence[Ids], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask of ``rows``, each of which begins so: beginning, padding, the rest of the row."""
        shared = len(self.ids)
        width = max(len(row) - shared for row in rows)
        gaps = [shared + width - len(row) for row in rows]
        ids = [self.ids + [pad] * gap + row[shared:] for row, gap in zip(rows, gaps, strict=True)]
        mask = [[1] * shared + [0] * gap + [1] * (width - gap) for gap in gaps]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def sampling(policy: Policy, *, max_tokens: int, temperature: float) -> GenerationConfig:
    """All settings of a completion: plain sampling, or greedy at ``temperature`` 0. Any published end token ends it."""
    tokenizer = policy.tokenizer
    published = policy.model.generation_config.eos_token_id
    ends = published if isinstance(published, list) else [published]
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_tokens,
        do_sample=temperature > 0,
        temperature=temperature or 1.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None}),
        # Compiling pays for long loops over one shape; here each batch has another.
        disable_compile=True,
    )


def prompt_ids(policy: Policy, turns: list[Turn]) -> Ids:
    """The conversation in the checkpoint's chat template, up to where the completion begins."""
    # The template has written the special tokens already.
    return list(policy.tokenizer(rendered(policy, turns), add_special_tokens=False)["input_ids"])


def rendered(policy: Policy, turns: list[Turn]) -> str:
    text = policy.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=False, **policy.template_arguments
    )
    return str(text)


@torch.no_grad()
def begin(model: PreTrainedModel, prompts: Sequence[Ids]) -> Beginning:
    """What the prompts have in common, computed."""
    # One token of each row stays outside, because its output is the first word about the completion.
    ids = _common_start([prompt[:-1] for prompt in prompts])
    cache = DynamicCache()
    if ids:
        tokens = torch.tensor([ids], device=model.device)
        model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Beginning(ids, cache)


@torch.no_grad()
def write(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    config: GenerationConfig,
    *,
    beginning: Beginning | None = None,
    streamer: Any = None,
) -> list[Ids]:
    """One completion per prompt, as ``config`` says, up to and with the first of its end tokens.

    ``streamer``: transformers' own, to show the tokens of a single prompt as they come.
    """
    beginning = beginning or begin(model, prompts)
    ids, mask = beginning.rows(prompts, config.pad_token_id, model.device)
    width = ids.shape[1]
    # Room for all tokens at once: a cache that grows is copied whole at every token.
    cache = StaticCache(model.config, max_cache_len=width + config.max_new_tokens)
    copy_cache(prompt_cache(model, ids, mask, beginning.cache), cache, len(ids))
    with _without_published_settings(model, config):
        tokens = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=mask, past_key_values=cache, generation_config=config, streamer=streamer
        )[:, width:]
    ends = torch.isin(tokens, torch.tensor(config.eos_token_id, device=tokens.device)).long()
    lengths = torch.where(ends.any(dim=1), ends.argmax(dim=1) + 1, tokens.shape[1])
    return [row[:length].tolist() for row, length in zip(tokens, lengths.tolist(), strict=True)]


def texts(policy: Policy, prompts: Sequence[Ids], written: list[Ids]) -> list[str]:
    """The completions as they are scored: without outer white space and special tokens that are no tags.

    A thought that the template opened at the prompt's end is put back in front.
    """
    decoded = map(decoder(policy.tokenizer), written)
    ends = policy.tokenizer.batch_decode([prompt[-PROMPT_END_TOKENS:] for prompt in prompts])
    return [
        whole_completion(text.strip(), prefix=opened_thought(end), as_published=True)
        for text, end in zip(decoded, ends, strict=True)
    ]


class Shown(TextStreamer):
    """Prints a completion as it is written, as `texts` will give it: with the thought that the template opened."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(_Decoding(policy), skip_prompt=True)  # type: ignore[arg-type]
        self._policy = policy

    def put(self, value: torch.Tensor) -> None:
        if self.next_tokens_are_prompt:
            end = self._policy.tokenizer.decode(value.reshape(-1)[-PROMPT_END_TOKENS:])
            self.on_finalized_text(opened_thought(str(end)))
        super().put(value)  # type: ignore[no-untyped-call]


class _Decoding:
    """All that a streamer asks of a tokenizer."""

    def __init__(self, policy: Policy) -> None:
        self.decode = decoder(policy.tokenizer)


def complete(
    policy: Policy, conversations: Sequence[list[Turn]], *, max_tokens: int, temperature: float, streamer: Any = None
) -> list[str]:
    """One completion per conversation. ``temperature`` 0: greedy."""
    config = sampling(policy, max_tokens=max_tokens, temperature=temperature)
    prompts = [prompt_ids(policy, turns) for turns in conversations]
    return texts(policy, prompts, write(policy.model, prompts, config, streamer=streamer))


@contextmanager
def _without_published_settings(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    # `generate` fills each setting that is None in ``config`` from the model's own.
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    published = inner.generation_config
    inner.generation_config = config
    try:
        yield
    finally:
        inner.generation_config = published


def _common_start(rows: Sequence[Ids]) -> Ids:
    # What the first and the last in order have in common, all between them have.
    first, last = min(rows), max(rows)
    length = next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first)
    )
    return first[:length]
