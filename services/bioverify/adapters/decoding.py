"""From tokens to the completion that is scored, for trainers that decode themselves.

Decoding without special tokens takes away the marks of turns and of padding, and the tags that are read with them if a
tokenizer has ``<think>``, ``[THINK]`` or another of them as a special token. Here the special tokens go, and the tags
stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bioverify.core.conversation import CLOSING, OPENING, THOUGHT_MARKS

TAGS = frozenset(
    [OPENING, CLOSING, "<answer>", "</answer>", "<gene_info>", "</gene_info>"]
    + [mark for marks in THOUGHT_MARKS for mark in marks]
)


def special_tags(tokenizer: Any) -> list[str]:
    """The tags that are special tokens of the tokenizer, which its own decoding would lose."""
    return sorted(TAGS.intersection(_special_tokens(tokenizer).values()))


def decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """What makes a completion's text of its tokens."""
    left_out = {number for number, text in _special_tokens(tokenizer).items() if text not in TAGS}

    def decode(tokens: Sequence[int]) -> str:
        kept = [token for token in tokens if token not in left_out]
        text: str = tokenizer.decode(kept, skip_special_tokens=False)
        return text

    return decode


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    # A token may be special without a role of its own, and have a role without being in the list of added ones.
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    return added | dict(named)
