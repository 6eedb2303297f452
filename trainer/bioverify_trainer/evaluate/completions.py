"""Files of completions: what models write when they are asked, and what the evaluation reads.

One JSON object per line and completion: ``{"task": {"differential_expression": {…}} | "prompt": "text" | [turns],
"completion": "…", "p_yes": 0.7}``. ``p_yes`` is the probability of "yes" (or "increase") against "no" at the answer,
where the model tells it. Several lines with the same question are samples of one answer. `bioverify score` reads the
same files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from bioverify.client import ScoreItem
from bioverify.core.answers import Answer, parse_answer
from bioverify.core.completions import TaggedText, format_score
from bioverify.core.conversation import opened_thought, whole_completion
from bioverify.core.questions import read_conversation
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, Knockdown, Task, TaskKind
from bioverify.files import append_lines, read_lines, replace_file
from bioverify.rollouts.lines import Line, LineError, fields_of, item_of
from bioverify.rollouts.stored import StoredRollouts
from bioverify_trainer.evaluate.answers import Answers, majority
from bioverify_trainer.evaluate.questions import EvaluationError, Rows

Question = tuple[str, str, str]
"""Perturbation, measured gene, cell line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion, and the probability of "yes" against "no" at its answer if it is known."""

    completion: str
    p_yes: float | None


ClaimSums = Callable[[Sequence[tuple[Task, str]]], npt.NDArray[np.float64]]
"""Of each question and completion a row of `answers.CLAIM_SUMS`."""
Answerer = Callable[[Sequence[DifferentialExpression | DirectionOfChange]], list[list[Sample]]]
"""Asked some questions at once; the samples of each, in order."""


def ask(
    rows: Rows, answerer: Answerer, path: Path, *, samples: int, at_once: int, progress: Callable[[int], None]
) -> None:
    """Append the samples of every question that is not in the file yet; ``progress`` hears how many are done.

    A line that was cut short by a kill is dropped, and a question of which a sample is missing is asked again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    answered = keep_complete(
        path, lambda lines: [question for question, _ in _records(path, rows.kind, lines)], samples
    )
    left = [row for question, row in rows.questions().items() if question not in answered]
    progress(len(rows) - len(left))
    for start in range(0, len(left), at_once):
        tasks = [rows.task(row) for row in left[start : start + at_once]]
        records = [
            {"task": {str(task.kind): asdict(task)}, **asdict(sample)}
            for task, given in zip(tasks, answerer(tasks), strict=True)
            for sample in given
        ]
        append_lines(path, b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
        progress(len(tasks))


def keep_complete(path: Path, questions: Callable[[Sequence[bytes]], Sequence[Hashable]], samples: int) -> set[Any]:
    """The questions that a file of answers has all samples of; the lines of others are dropped from it.

    ``questions``: what each line is a sample of.
    """
    lines = list(read_lines(path)) if path.exists() else []
    asked = questions(lines)
    count = Counter(asked)
    kept = [line for line, question in zip(lines, asked, strict=True) if count[question] == samples]
    if len(kept) < len(lines):
        replace_file(path, b"".join(kept))
    return {question for question, n in count.items() if n == samples}


def read(path: Path, rows: Rows, *, claim_sums: ClaimSums | None = None) -> tuple[Rows, Answers, int]:
    """The rows that the file answers, the answers, and how many lines ask about none of ``rows``.

    ``claim_sums``: what is asked about the claims of every completion; none: they are not checked.
    """
    places = rows.questions()
    by_row: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    n_others = 0
    try:
        records = _records(path, rows.kind, StoredRollouts(path).lines())
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    for question, record in records:
        row = None if question is None else places.get(question)
        if row is None:
            n_others += 1
        else:
            by_row[row].append(record)
    if not by_row:
        raise EvaluationError(f"{path}: none of its {n_others} lines asks one of the {len(rows)} held-out questions")
    answered = sorted(by_row)
    answer, belief, form = np.empty(len(answered), np.int64), np.empty(len(answered)), np.empty(len(answered))
    for place, row in enumerate(answered):
        completions = [record["completion"] for record in by_row[row]]
        answers = read_answers(completions, rows.kind)
        answer[place], belief[place] = majority(answers, [record.get("p_yes") for record in by_row[row]])
        form[place] = sum(format_score(TaggedText(completion).form_checks()) for completion in completions) / len(
            completions
        )
    claims = None
    if claim_sums is not None:
        written = [(rows.task(row), record["completion"]) for row in answered for record in by_row[row]]
        ends = np.cumsum([len(by_row[row]) for row in answered])
        claims = np.add.reduceat(claim_sums(written), np.r_[0, ends[:-1]])
    return rows.where(np.array(answered)), Answers(answer, belief, form, claims), n_others


def read_answers(completions: Sequence[str], kind: TaskKind) -> list[Answer]:
    """The answer of each completion, by the one rule of `parse_answer`."""
    return [parse_answer(completion, kind) for completion in completions]


def _records(path: Path, kind: TaskKind, lines: Iterable[Line]) -> list[tuple[Question | None, dict[str, Any]]]:
    """Question (None if it is of another kind), completion and belief of every line, read as `score` reads them.

    Raises EvaluationError.
    """
    records = []
    for number, line in enumerate(lines, 1):
        if isinstance(line, bytes) and not line.strip():
            continue
        try:
            fields = fields_of(line, number)
            item = item_of(fields, number).score_item(str(number), "")
            belief = fields.get("p_yes")
            if belief is not None and not (isinstance(belief, int | float) and 0 <= belief <= 1):
                raise LineError(number, f"p_yes: {belief!r} is not in [0, 1]")  # noqa: TRY301
        except LineError as error:
            raise EvaluationError(f"{path}, {error}") from error
        prefix = item.prefix or opened_thought(item.prompt[-1].content if item.prompt else "")
        completion = whole_completion(item.completion, reasoning=item.reasoning, prefix=prefix)
        records.append((_question(item, kind), {"completion": completion, "p_yes": belief}))
    return records


def _question(item: ScoreItem, kind: TaskKind) -> Question | None:
    task = item.task or read_conversation((turn.role, turn.content) for turn in reversed(item.prompt))
    if not isinstance(task, Knockdown) or task.kind is not kind:
        return None
    return task.perturbation, task.measured_gene, task.cell_line
