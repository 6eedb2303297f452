"""Tasks, answers and items on the wire.

An item may arrive bare: then its task is read off what its prompt asks last, the prompt form off the turn that
instructs and the answer off the completion. If the prompt ends by opening a thought, that end is put back in front of
the completion, and reasoning that came apart is joined to it. That reading happens in one place, here, whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any

from bioverify.core.answers import Answer, AnswerProblem, ParseMode, parse_answer
from bioverify.core.completions import PromptForm, ThoughtProblem
from bioverify.core.conversation import OPENING, opened_thought, whole_completion
from bioverify.core.questions import Question, Unread, UnreadReason, read_conversation
from bioverify.core.tasks import TASKS, Task, TaskKind
from bioverify.core.verifier import Item, Reads
from bioverify.v1 import types_pb2, verifier_pb2

TASK_KINDS = {kind: types_pb2.TaskKind.Value(f"TASK_KIND_{kind.name}") for kind in TaskKind}
PARSE_MODES = {
    ParseMode.WHOLE_WORDS: types_pb2.PARSE_MODE_WHOLE_WORDS,
    ParseMode.RBIO_DEMO: types_pb2.PARSE_MODE_RBIO_DEMO,
}
PROMPT_FORMS = {
    PromptForm.ANSWER: types_pb2.PROMPT_FORM_ANSWER,
    PromptForm.GENE_INFO: types_pb2.PROMPT_FORM_GENE_INFO,
}
ANSWER_PROBLEMS = {
    AnswerProblem.EMPTY_COMPLETION: types_pb2.ANSWER_PROBLEM_EMPTY_COMPLETION,
    AnswerProblem.NO_ANSWER_BLOCK: types_pb2.ANSWER_PROBLEM_NO_ANSWER_BLOCK,
    AnswerProblem.SEVERAL_ANSWER_BLOCKS: types_pb2.ANSWER_PROBLEM_SEVERAL_ANSWER_BLOCKS,
    AnswerProblem.NO_ANSWER_WORD: types_pb2.ANSWER_PROBLEM_NO_ANSWER_WORD,
    AnswerProblem.BOTH_ANSWER_WORDS: types_pb2.ANSWER_PROBLEM_BOTH_ANSWER_WORDS,
}
UNREAD_REASONS = {reason: types_pb2.UnreadReason.Value(f"UNREAD_REASON_{reason.name}") for reason in UnreadReason}
THOUGHT_PROBLEMS = {
    problem: types_pb2.ThoughtProblem.Value(f"THOUGHT_PROBLEM_{problem.name}") for problem in ThoughtProblem
}
READ_FIELDS = {
    Reads.TASK: verifier_pb2.READ_FIELD_TASK,
    Reads.ANSWER: verifier_pb2.READ_FIELD_ANSWER,
    Reads.COMPLETION: verifier_pb2.READ_FIELD_COMPLETION,
}


def _values_of(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda message: (only(message),)
    return attrgetter(*names)


# By the field's name: to hash an enumerator takes longer than to read a field.
_READ = {kind.value: (make.read, _values_of([field.name for field in fields(make)])) for kind, make in TASKS.items()}
_TASK_KIND_OF = {number: kind for kind, number in TASK_KINDS.items()}
_PARSE_MODE_OF = {number: mode for mode, number in PARSE_MODES.items()}
_PROMPT_FORM_OF = {number: form for form, number in PROMPT_FORMS.items()}
_PROBLEM_OF = {number: problem for problem, number in ANSWER_PROBLEMS.items()}
_UNREAD_REASON_OF = {number: reason for reason, number in UNREAD_REASONS.items()}
_THOUGHT_PROBLEM_OF = {number: problem for problem, number in THOUGHT_PROBLEMS.items()}
_READ_FIELD_OF = {number: field for field, number in READ_FIELDS.items()}


def task_kind_from_wire(number: types_pb2.TaskKind.ValueType) -> TaskKind:
    return _TASK_KIND_OF[number]


def parse_mode_from_wire(number: types_pb2.ParseMode.ValueType) -> ParseMode:
    return _PARSE_MODE_OF.get(number, ParseMode.WHOLE_WORDS)


def prompt_form_from_wire(number: types_pb2.PromptForm.ValueType) -> PromptForm:
    return _PROMPT_FORM_OF.get(number, PromptForm.ANSWER)


def known_task_kinds(numbers: Iterable[types_pb2.TaskKind.ValueType]) -> tuple[TaskKind, ...]:
    """Without those that only a newer version of the contract knows."""
    return tuple(_TASK_KIND_OF[number] for number in numbers if number in _TASK_KIND_OF)


def known_reads(numbers: Iterable[verifier_pb2.ReadField.ValueType]) -> Reads:
    """Without the fields that only a newer version of the contract knows: to be shown, not to be asked by."""
    return reads_from_wire([number for number in numbers if number in _READ_FIELD_OF])


def reads_to_wire(reads: Reads) -> list[verifier_pb2.ReadField.ValueType]:
    return [READ_FIELDS[field] for field in reads]


def reads_from_wire(numbers: list[verifier_pb2.ReadField.ValueType]) -> Reads:
    """Raises ValueError for a field that this version of the contract does not know."""
    reads = Reads(0)
    for number in numbers:
        if number not in _READ_FIELD_OF:
            raise ValueError(f"it reads field {number}, which this version does not know. Use a newer bioverify here")
        reads |= _READ_FIELD_OF[number]
    return reads


@lru_cache(maxsize=1024)
def task_to_wire(task: Task) -> types_pb2.Task:
    """The message of the task; to be copied, not changed: a group's items share one."""
    asked: dict[str, Any] = {task.kind: asdict(task)}
    return types_pb2.Task(**asked)


def task_from_wire(message: types_pb2.Task) -> Task:
    """The task, its cell line in canonical spelling. Raises ValueError if the message holds no kind."""
    name = message.WhichOneof("kind")
    if name is None:
        raise ValueError("the task names no kind")
    read: Callable[..., Task]
    read, values_of = _READ[name]
    return read(*values_of(getattr(message, name)))


def answer_to_wire(answer: Answer) -> types_pb2.Answer:
    if isinstance(answer, AnswerProblem):
        return types_pb2.Answer(problem=ANSWER_PROBLEMS[answer])
    return types_pb2.Answer(affirms=answer)


def answer_from_wire(message: types_pb2.Answer) -> Answer:
    if message.WhichOneof("reading") == "affirms":
        return message.affirms
    return _PROBLEM_OF.get(message.problem, AnswerProblem.NO_ANSWER_WORD)


def unread_reason_from_wire(number: types_pb2.UnreadReason.ValueType) -> UnreadReason | None:
    """None if the question was read. A reason that only a newer version of the contract knows is another wording."""
    return _UNREAD_REASON_OF.get(number, UnreadReason.OTHER_WORDING) if number else None


def thought_problem_from_wire(number: types_pb2.ThoughtProblem.ValueType) -> ThoughtProblem | None:
    """None if there is a thought. A problem that only a newer version of the contract knows is that there is none."""
    return _THOUGHT_PROBLEM_OF.get(number, ThoughtProblem.NO_THOUGHT) if number else None


def read_question(message: types_pb2.Item) -> Question:
    """What the item asks: its task as given, else what its prompt asks last."""
    if message.HasField("task"):
        return task_from_wire(message.task)
    return read_conversation((turn.role, turn.content) for turn in reversed(message.prompt))


def read_task(message: types_pb2.Item) -> Task | None:
    """The item's task; None if its prompt asks nothing, or something that was not read."""
    question = read_question(message)
    return None if isinstance(question, Unread) else question


def read_prompt_form(message: types_pb2.Item) -> PromptForm:
    """What the prompt asks the model to write: as given, else read off the system turns; without one, off the first.

    A prompt given as one text has its instruction in front of the question.
    """
    if message.prompt_form:
        return prompt_form_from_wire(message.prompt_form)
    instructs = [turn for turn in message.prompt if turn.role == "system"] or message.prompt[:1]
    asks_for_gene_info = any("<gene_info>" in turn.content for turn in instructs)
    return PromptForm.GENE_INFO if asks_for_gene_info else PromptForm.ANSWER


def read_item(message: types_pb2.Item, mode: ParseMode, reads: Reads) -> Item:
    """The item as core sees it; only what ``reads`` names is parsed."""
    task = read_task(message)
    as_published = mode is ParseMode.RBIO_DEMO
    completion, reasoning = message.completion, message.reasoning
    if reasoning or not (completion.startswith(OPENING) and completion.endswith("</answer>")):
        prompt_end = message.prefix or (message.prompt[-1].content if message.prompt else "")
        prefix = opened_thought(prompt_end)
        completion = whole_completion(completion, reasoning=reasoning, prefix=prefix, as_published=as_published)
    answer: Answer | None = None
    if Reads.ANSWER in reads and (task is None or task.words is not None):
        if message.HasField("answer"):
            answer = answer_from_wire(message.answer)
        else:
            answer = parse_answer(completion, task.kind if task else None, mode)
    return Item(task, answer, completion, mode, read_prompt_form(message))
