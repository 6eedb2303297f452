"""What a question is to a verifier: the fields that it reads, and nothing else.

Two items that agree in these fields are the same question: it is asked once per call, and its answer is remembered
under one key. An experimental lookup reads the task and the answer, so thousands of rollouts share a key; ROUGE reads
the text.

Verifiers that read the same fields are asked the same questions, so a call's items are hashed and written as messages
once per set of fields, not once per verifier; a verifier's key is its name and version in front of the hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import lru_cache
from hashlib import blake2b

from bioverify.core.answers import Answer, AnswerProblem, ParseMode
from bioverify.core.tasks import GeneAnnotation, Task
from bioverify.core.verifier import Item, Reads
from bioverify.v1 import types_pb2
from bioverify.wire.tasks import PROMPT_FORMS, answer_to_wire, task_to_wire

SCHEMA = "4"
"""Changes with the meaning of a key or the form of a remembered value."""


class Questions:
    """The items of one call, which all have ``mode``, as verifiers are asked about them."""

    def __init__(self, items: Sequence[Item], mode: ParseMode) -> None:
        self.items = items
        self.mode = mode
        self._hashes: dict[Reads, list[bytes]] = {}
        self._messages: dict[Reads, dict[int, types_pb2.Item]] = {}

    def hashes(self, reads: Reads) -> list[bytes]:
        """`question_of` each item, in order."""
        if reads not in self._hashes:
            fields_of = _fields_of(reads)
            self._hashes[reads] = [_hash(fields_of(item)) for item in self.items]
        return self._hashes[reads]

    def messages(self, positions: Iterable[int], reads: Reads) -> list[types_pb2.Item]:
        """Items as they are sent to a verifier: only what it reads, named by position. To be copied, not changed."""
        written = self._messages.setdefault(reads, {})
        missing = [position for position in positions if position not in written]
        task_is_read, answer_is_read = Reads.TASK in reads, Reads.ANSWER in reads
        text_is_read = Reads.COMPLETION in reads
        for position in missing:
            item = self.items[position]
            message = written[position] = types_pb2.Item(id=str(position))
            if task_is_read and item.task is not None:
                message.task.CopyFrom(task_to_wire(item.task))
            if answer_is_read and item.answer is not None:
                message.answer.CopyFrom(answer_to_wire(item.answer))
            if text_is_read:
                message.completion = item.completion
                message.prompt_form = PROMPT_FORMS[item.prompt_form]
        return [written[position] for position in positions]


def question_of(item: Item, reads: Reads) -> bytes:
    """128 bits, in hexadecimal, that two items share if they agree in what is read."""
    return _hash(_fields_of(reads)(item))


def cache_key(verifier: str, fingerprint: str, question: bytes) -> bytes:
    """The Redis key of a question: ``bv4:{<verifier>}:<64 bits of the fingerprint>:<128 bits of the question>``.

    The braces are a cluster's hash tag: all keys of a verifier lie in one slot, so that one MGET may name any of them.
    """
    return _key_prefix(verifier, fingerprint) + question


@lru_cache(maxsize=256)
def _key_prefix(verifier: str, fingerprint: str) -> bytes:
    version = blake2b(fingerprint.encode(), digest_size=8).hexdigest()
    return f"bv{SCHEMA}:{{{verifier}}}:{version}:".encode()


@lru_cache
def _fields_of(reads: Reads) -> Callable[[Item], list[str]]:
    """What is read of an item, as texts. Made once: to look into a flag takes longer than to read a field."""
    readers: list[Callable[[Item], tuple[str, ...]]] = []
    if Reads.TASK in reads:
        readers.append(lambda item: (_task_text(item.task),))
    if Reads.ANSWER in reads:
        readers.append(lambda item: (_answer_text(item.answer),))
    if Reads.COMPLETION in reads:
        readers.append(lambda item: (item.parse_mode, item.prompt_form, item.completion))
    return lambda item: [field for read in readers for field in read(item)]


def _hash(texts: list[str]) -> bytes:
    return blake2b(_joined(texts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest().encode()


def _joined(texts: Iterable[str]) -> str:
    """Each field stands with its length in front, so that no two lists of fields run together into the same text."""
    return "".join([f"{len(text)}:{text}" for text in texts])


def _task_text(task: Task | None) -> str:
    if task is None:
        return ""
    # A list of genes has up to five kilobytes and is seldom asked about twice: 65,536 of them took 800 MB.
    return _written(task) if isinstance(task, GeneAnnotation) else _remembered(task)


def _written(task: Task) -> str:
    values = [getattr(task, field.name) for field in fields(task)]
    return _joined([task.kind, *(value if isinstance(value, str) else _joined(value) for value in values)])


_remembered = lru_cache(maxsize=65_536)(_written)


def _answer_text(answer: Answer | None) -> str:
    if answer is None:
        return ""
    if isinstance(answer, AnswerProblem):
        return answer
    return "yes" if answer else "no"
