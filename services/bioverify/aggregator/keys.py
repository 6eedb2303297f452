"""What a question is to a verifier: the fields that it reads, and nothing else.

Two items that agree in these fields are the same question: it is asked once per call, and its answer is remembered
under one key. An experimental lookup reads the task and the answer, so thousands of rollouts share a key; ROUGE reads
the text.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from bioverify.core.answers import Answer, AnswerProblem
from bioverify.core.tasks import (
    CoExpression,
    DifferentialExpression,
    DirectionOfChange,
    GeneAnnotation,
    Task,
)
from bioverify.core.verifier import Item, Reads
from bioverify.v1 import types_pb2
from bioverify.wire.tasks import PROMPT_FORMS, answer_to_wire, task_to_wire

SCHEMA = "2"
"""Changes with the meaning of a key or the form of a remembered value."""


def question_of(item: Item, reads: Reads) -> bytes:
    """A text that two items share exactly where they agree in what is read. Of a completion it has 128 bits.

    Each field stands with its length in front, so that no two lists of fields run together into the same text.
    """
    fields: list[str] = []
    if Reads.TASK in reads:
        fields.append(_task_text(item.task))
    if Reads.ANSWER in reads:
        fields.append(_answer_text(item.answer))
    if Reads.COMPLETION in reads:
        fields += [item.parse_mode, item.prompt_form, _digest(item.completion)]
    return _joined(fields).encode("utf-8", "surrogatepass")


def cache_key(verifier: str, fingerprint: str, question: bytes) -> bytes:
    """The Redis key of a question: ``bv1:{<verifier>}:<128 bits>``.

    The braces are a cluster's hash tag: all keys of a verifier lie in one slot, so that one MGET may name any of them.
    """
    digest = blake2b(question, digest_size=16, key=_fingerprint_key(fingerprint))
    return f"bv{SCHEMA}:{{{verifier}}}:{digest.hexdigest()}".encode()


def item_for_verifier(index: int, item: Item, reads: Reads) -> types_pb2.Item:
    """The item as it is sent to a verifier: only what it reads, named by its position."""
    reads_text = Reads.COMPLETION in reads
    return types_pb2.Item(
        id=str(index),
        task=task_to_wire(item.task) if Reads.TASK in reads and item.task is not None else None,
        answer=answer_to_wire(item.answer) if Reads.ANSWER in reads and item.answer is not None else None,
        completion=item.completion if reads_text else "",
        prompt_form=PROMPT_FORMS[item.prompt_form] if reads_text else types_pb2.PROMPT_FORM_UNSPECIFIED,
    )


def _joined(fields: list[str]) -> str:
    return "".join(f"{len(field)}:{field}" for field in fields)


@lru_cache(maxsize=256)
def _fingerprint_key(fingerprint: str) -> bytes:
    return blake2b(f"{SCHEMA}:{fingerprint}".encode(), digest_size=32).digest()


@lru_cache(maxsize=65_536)
def _task_text(task: Task | None) -> str:
    match task:
        case None:
            return ""
        case DifferentialExpression() | DirectionOfChange():
            return _joined([task.kind, task.perturbation, task.measured_gene, task.cell_line])
        case CoExpression() | GeneAnnotation():
            return _joined([task.kind, *task.genes])


# Two verifiers read the text, and a group's samples may be alike: it is gone through once.
@lru_cache(maxsize=8192)
def _digest(completion: str) -> str:
    return blake2b(completion.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _answer_text(answer: Answer | None) -> str:
    if answer is None:
        return ""
    if isinstance(answer, AnswerProblem):
        return answer
    return "yes" if answer else "no"
