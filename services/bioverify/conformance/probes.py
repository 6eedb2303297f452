"""What the checks ask about: questions of every kind over genes that most screens and annotations know, and junk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bioverify.client import ScoreItem
from bioverify.client.messages import item_to_wire
from bioverify.core.answers import ParseMode
from bioverify.core.tasks import TASKS, YES_NO, Task, TaskKind
from bioverify.core.verifier import Reads
from bioverify.v1 import types_pb2
from bioverify.wire.tasks import (
    PROMPT_FORMS,
    answer_to_wire,
    known_task_kinds,
    read_item,
    read_prompt_form,
    task_to_wire,
)

_PAIRS = (("AARS", "TRIB3"), ("AARS1", "ASNS"), ("HBA1", "HBB"), ("EIF2B4", "DDIT3"), ("POLR2A", "ACTB"))
_THOUGHTS = (
    "{a} charges tRNA with alanine. Without it uncharged tRNA activates GCN2, ATF4 is translated and {b} follows.",
    "Neither {a} nor {b} takes part in translation, so nothing is to be expected.",
)


def tasks_of(kind: TaskKind) -> list[Task]:
    return [TASKS[kind].about(a, b, "k562") for a, b in _PAIRS]


def for_kinds(kinds: Iterable[types_pb2.TaskKind.ValueType]) -> list[types_pb2.Item]:
    """Complete items of these kinds, answered both ways."""
    tasks = [task for kind in known_task_kinds(kinds) for task in tasks_of(kind)]
    return [probe(task, affirms=affirms) for task in tasks for affirms in (True, False)]


def probe(task: Task, *, affirms: bool) -> types_pb2.Item:
    a, b = task.genes[0], task.genes[-1]
    thoughts = _THOUGHTS[not affirms].format(a=a, b=b)
    return complete(
        types_pb2.Item(
            id="probe",
            task=task_to_wire(task),
            completion=f"<think>{thoughts}</think> {answer_block(task.kind, affirms)}",
        )
    )


def answer_block(kind: TaskKind, affirms: bool) -> str:
    words = TASKS[kind].words or YES_NO
    return f"<answer>{words.affirming if affirms else words.denying}</answer>"


def complete(item: types_pb2.Item) -> types_pb2.Item:
    """With task, answer and prompt form in their fields, as the aggregator reads them; the prompt has done its part."""
    read = read_item(item, ParseMode.WHOLE_WORDS, Reads.TASK | Reads.ANSWER | Reads.COMPLETION)
    return types_pb2.Item(
        id=item.id,
        task=None if read.task is None else task_to_wire(read.task),
        answer=None if read.answer is None else answer_to_wire(read.answer),
        completion=item.completion,
        prompt_form=PROMPT_FORMS[read_prompt_form(item)],
    )


def from_items(items: Sequence[ScoreItem]) -> list[types_pb2.Item]:
    """Probes from a caller's own items, for a verifier that knows other genes than the ones above."""
    return [complete(item_to_wire(item)) for item in items]


LARGE_BYTES = 2**20
_EVERY_CONTROL = "".join(map(chr, (*range(32), 127, *range(128, 160))))


def junk_texts(most_bytes: int) -> dict[str, str]:
    """Completions that no model should write, and some do."""
    large = min(LARGE_BYTES, most_bytes)
    return {
        "an empty text": "",
        "white space": " \t\r\n\u00a0\u2003\u3000" * 20,
        "control characters": _EVERY_CONTROL,
        "a text of one letter": "A" * large,
        "a text of one word": "kinase " * (large // 7),
        "astral, combining and right-to-left characters": "🧬𝔊𝔢𝔫𝔢 "
        + "e\u0301" * 500
        + " \u202eSRAA\u202c \u200b\ufeff ｙｅｓ",
        "HTML and script": "<img src=x onerror=alert(1)><script>alert('AARS')</script>&lt;answer&gt;yes&lt;/answer&gt;",
        "nested tags": "<think>" * 2000 + "<answer>" * 2000 + "yes" + "</answer>" * 2000,
        "an unclosed answer": "<think>AARS</think><answer>yes",
        "format directives": "%s %n {0} {} ${HOME} $(id) `id` \\x00 '; DROP TABLE genes; --",
        "a long line of brackets": "(" * 20_000 + ")" * 20_000,
    }


JUNK_NAMES = (
    "\x00\x01\x1b[31m",
    "🧬" * 64,
    "../../etc/passwd",
    "'; DROP TABLE genes; --",
    "A" * 64,
    "NaN",
    " ",
    "\u202eSRAA",
)
"""Gene and cell-line names within the contract's rules (1 to 64 characters) that name nothing."""
