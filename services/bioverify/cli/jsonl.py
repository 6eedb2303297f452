"""Files of completions: one JSON object per line in, one per line out.

In: ``{"prompt": "text" | [{"role", "content"}, …], "completion": "…", "id"?, "group_id"?, "task"?, "source"?}``; other
keys are ignored. A line is checked here as the service would check it, because there one bad item is refused together
with the whole call. Items travel under their line number, so ids may repeat or be missing.

Lines of one group stand together. A group is a run of consecutive lines with the same ``group_id``: it is never cut in
two, and a group_id that comes back later in the file is another group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bioverify.client import ItemReward, Message, RewardPart, ScoreItem
from bioverify.core.answers import Answer, AnswerProblem
from bioverify.core.outcomes import Failed, NotApplicable, Scored
from bioverify.core.rewards import term_value
from bioverify.core.tasks import (
    CoExpression,
    DifferentialExpression,
    DirectionOfChange,
    GeneAnnotation,
    Task,
    TaskKind,
    canonical_cell_line,
)

Name = Annotated[str, Field(min_length=1, max_length=64)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Knockdown(_Strict):
    perturbation: Name
    measured_gene: Name
    cell_line: Name


class _Pair(_Strict):
    gene_a: Name
    gene_b: Name


class _Genes(_Strict):
    genes: Annotated[list[Name], Field(min_length=1, max_length=64)]


class _Task(_Strict):
    differential_expression: _Knockdown | None = None
    direction_of_change: _Knockdown | None = None
    co_expression: _Pair | None = None
    gene_annotation: _Genes | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> _Task:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self

    def task(self) -> Task:
        if (de := self.differential_expression) is not None:
            return DifferentialExpression(de.perturbation, de.measured_gene, canonical_cell_line(de.cell_line))
        if (direction := self.direction_of_change) is not None:
            return DirectionOfChange(
                direction.perturbation, direction.measured_gene, canonical_cell_line(direction.cell_line)
            )
        if self.co_expression is not None:
            return CoExpression(self.co_expression.gene_a, self.co_expression.gene_b)
        if self.gene_annotation is not None:
            return GeneAnnotation(tuple(self.gene_annotation.genes))
        raise ValueError("the task is null")


class _Turn(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class _Line(BaseModel):
    completion: str
    prompt: str | list[_Turn] = ""
    id: str | int | None = None
    group_id: str | int | None = None
    task: _Task | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class FileItem:
    """One good line: ``item.id`` is its line number, ``id`` the file's own (or the line number)."""

    item: ScoreItem
    id: str


class LineError(ValueError):
    """A line that cannot be scored; the message names the line and what is wrong with it."""


def read_items(
    lines: Iterable[bytes], sources: Sequence[str], on_error: Callable[[LineError], None]
) -> Iterator[FileItem]:
    """The good lines, one by one; the others go to ``on_error``. ``sources``: those that the recipe knows."""
    last_group, run = "", 0
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            line = _read_line(raw, number, sources)
        except LineError as error:
            on_error(error)
            continue
        group = "" if line.group_id is None else str(line.group_id)
        run += group != last_group
        last_group = group
        prompt = [_Turn(role="user", content=line.prompt)] if isinstance(line.prompt, str) else line.prompt
        item = ScoreItem(
            id=str(number),
            completion=line.completion,
            prompt=[Message(turn.role, turn.content) for turn in prompt],
            task=line.task.task() if line.task else None,
            group_id=f"{group}#{run}" if group else "",
            source=line.source or "",
        )
        yield FileItem(item, str(number) if line.id is None else str(line.id))


def in_chunks(items: Iterable[FileItem], size: int) -> Iterator[list[FileItem]]:
    """Chunks of at least ``size`` items, cut only between groups."""
    chunk: list[FileItem] = []
    for item in items:
        group = item.item.group_id
        if len(chunk) >= size and not (group and group == chunk[-1].item.group_id):
            yield chunk
            chunk = []
        chunk.append(item)
    if chunk:
        yield chunk


def _read_line(raw: bytes, number: int, sources: Sequence[str]) -> _Line:
    try:
        # Some editors begin a file with a byte order mark.
        line = _Line.model_validate(orjson.loads(raw.removeprefix(b"\xef\xbb\xbf").rstrip()))
    except orjson.JSONDecodeError as error:
        raise LineError(f"line {number}: not JSON ({error.msg}, column {error.colno})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise LineError(f"line {number}: {where}: {first['msg']}") from error
    if line.source and line.source not in sources:
        known = ", ".join(sources) or "none"
        raise LineError(f"line {number}: source: the recipe has no source {line.source!r}; it has: {known}")
    return line


def output_line(line: FileItem, reward: ItemReward) -> bytes:
    """The result of one line as JSON. Null stands for what there is not, never for zero."""
    result = {
        "id": line.id,
        "reward": reward.reward,
        "unscorable_because": reward.unscorable_because,
        "answer": answer_word(reward.answer, reward.task),
        "task": {reward.task.kind.value: asdict(reward.task)} if reward.task else None,
        "parts": [_part(part) for part in reward.parts],
    }
    return orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE)


def answer_word(answer: Answer | None, task: Task | None) -> str | None:
    """The answer in the question's own words, or why there is none; None where the question has no yes or no."""
    if answer is None or isinstance(answer, AnswerProblem):
        return answer
    if task is not None and task.kind is TaskKind.DIRECTION_OF_CHANGE:
        return "increase" if answer else "decrease"
    return "yes" if answer else "no"


def _part(part: RewardPart) -> dict[str, Any]:
    outcome = part.outcome
    scored = outcome if isinstance(outcome, Scored) else None
    kinds: dict[type, str] = {Scored: "scored", NotApplicable: "not_applicable", Failed: "failed"}
    return {
        "verifier": part.term.verifier,
        "component": part.term.component,
        "weight": part.term.weight,
        "value": term_value(part.term, outcome),
        "contribution": part.contribution,
        "dropped_because": part.dropped_because,
        "outcome": kinds[type(outcome)],
        "reason": "" if isinstance(outcome, Scored) else outcome.reason,
        "detail": "" if isinstance(outcome, Scored) else outcome.detail,
        "belief": scored.belief if scored else None,
        "components": dict(scored.components) if scored else {},
        "evidence": [asdict(evidence) for evidence in scored.evidence] if scored else [],
        "from_cache": part.from_cache,
    }
