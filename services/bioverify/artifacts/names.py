"""A mapping from hundreds of thousands of names in a few megabytes: all keys lie one after the other in one text.

As strings in dictionaries the names of all human genes take 49 MB in every process that resolves one (measured), most
of it for the headers of objects that are never asked for. Here they are sorted, found by bisection, and become strings
when they are asked for; whoever asks often keeps the answers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

Value = TypeVar("Value")


class Texts:
    """Texts as UTF-8. ``ends``: int32, where each begins in ``text``, and where the last one ends."""

    def __init__(self, ends: bytes, text: bytes) -> None:
        self._ends = memoryview(ends).cast("i")
        self._text = text

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, at: int) -> bytes:
        return self._text[self._ends[at] : self._ends[at + 1]]


class Names(Mapping[str, Value]):
    """``keys``: sorted by their bytes, each once. ``value_at``: what belongs to the key at a position."""

    def __init__(self, keys: Texts, value_at: Callable[[int], Value]) -> None:
        self._keys = keys
        self._value_at = value_at

    def __getitem__(self, name: str) -> Value:
        key = name.encode("utf-8", "surrogatepass")
        # Only indexed and measured, which is all of a sequence that bisection needs.
        at = bisect_left(self._keys, key)
        if at == len(self._keys) or self._keys[at] != key:
            raise KeyError(name)
        return self._value_at(at)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return (self._keys[at].decode() for at in range(len(self._keys)))

    def in_memory(self) -> dict[str, Value]:
        """For a builder, which looks up nearly every name and ends soon: a tenth of the time, ten times the memory."""
        return {self._keys[at].decode(): self._value_at(at) for at in range(len(self._keys))}
