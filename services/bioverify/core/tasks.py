"""What a question asks, and how it is read off free text.

rbio's question forms are fixed sentences, so a task is recognised by matching the whole sentence, never by guessing
from gene-like words. A question of another form is no task: verifiers then answer "not applicable".

Source of the forms: the published rbio demo (differential expression) and its public history (direction,
co-expression).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


class TaskKind(StrEnum):
    DIFFERENTIAL_EXPRESSION = "differential_expression"
    DIRECTION_OF_CHANGE = "direction_of_change"
    CO_EXPRESSION = "co_expression"
    GENE_ANNOTATION = "gene_annotation"


@dataclass(frozen=True, slots=True)
class DifferentialExpression:
    perturbation: str
    measured_gene: str
    cell_line: str

    @property
    def kind(self) -> TaskKind:
        return TaskKind.DIFFERENTIAL_EXPRESSION

    @property
    def genes(self) -> tuple[str, ...]:
        return (self.perturbation, self.measured_gene)

    @property
    def question(self) -> str:
        return (
            f"Is a knockdown of {self.perturbation} in {self.cell_line} cells likely to result in differential "
            f"expression of {self.measured_gene}? The answer is either yes or no."
        )


@dataclass(frozen=True, slots=True)
class DirectionOfChange:
    perturbation: str
    measured_gene: str
    cell_line: str

    @property
    def kind(self) -> TaskKind:
        return TaskKind.DIRECTION_OF_CHANGE

    @property
    def genes(self) -> tuple[str, ...]:
        return (self.perturbation, self.measured_gene)

    @property
    def question(self) -> str:
        return (
            f"Is a knockdown of {self.perturbation} in {self.cell_line} cells likely to result decrease or increase "
            f"of {self.measured_gene}? The answer is either decrease or increase."
        )


@dataclass(frozen=True, slots=True)
class CoExpression:
    gene_a: str
    gene_b: str

    @property
    def kind(self) -> TaskKind:
        return TaskKind.CO_EXPRESSION

    @property
    def genes(self) -> tuple[str, ...]:
        return (self.gene_a, self.gene_b)

    @property
    def question(self) -> str:
        return (
            f"Are gene {self.gene_a} and gene {self.gene_b} likely to be co-expressed together? "
            "Give a binary yes/no answer only."
        )


@dataclass(frozen=True, slots=True)
class GeneAnnotation:
    genes: tuple[str, ...]

    @property
    def kind(self) -> TaskKind:
        return TaskKind.GENE_ANNOTATION

    @property
    def question(self) -> str:
        return f"What is known about the function of {', '.join(self.genes)}?"


Task = DifferentialExpression | DirectionOfChange | CoExpression | GeneAnnotation

_SYMBOL = r"[A-Za-z0-9][A-Za-z0-9.\-_@]{0,63}"
_CELL_LINE = r"[A-Za-z0-9][\w .\-/]{0,63}?"
_KNOCKDOWN = rf"Is a knock-?down of (?P<perturbation>{_SYMBOL}) in (?P<cell_line>{_CELL_LINE}) cells likely to"
_MEASURED = rf"of (?P<measured_gene>{_SYMBOL})\s*\?"
_FORMS: tuple[tuple[re.Pattern[str], Callable[..., Task]], ...] = (
    (
        re.compile(
            rf"{_KNOCKDOWN} (?:result in differential expression|change the expression) {_MEASURED}", re.IGNORECASE
        ),
        DifferentialExpression,
    ),
    (
        re.compile(
            rf"{_KNOCKDOWN} result (?:in )?(?:an? )?(?:decrease or increase|increase or decrease) {_MEASURED}",
            re.IGNORECASE,
        ),
        DirectionOfChange,
    ),
    (
        re.compile(
            rf"Are gene (?P<gene_a>{_SYMBOL}) and gene (?P<gene_b>{_SYMBOL}) likely to be co-?expressed"
            r"(?: together)?\s*\?",
            re.IGNORECASE,
        ),
        CoExpression,
    ),
    (
        re.compile(rf"What is known about the function of (?P<genes>{_SYMBOL}(?:, {_SYMBOL})*)\?"),
        lambda genes: GeneAnnotation(tuple(genes.split(", "))),
    ),
)


@lru_cache(maxsize=1024)
def canonical_cell_line(name: str) -> str:
    """The one spelling of a cell line: lower case, without space, hyphen or underscore ("K-562" → "k562")."""
    return re.sub(r"[\s\-_]", "", name).lower()


# The members of a group share their prompt.
@lru_cache(maxsize=1024)
def parse_task(text: str) -> Task | None:
    """The task that the last question of a known form in ``text`` asks, or None where there is none.

    The last one counts, because few-shot prompts carry earlier questions as examples.
    """
    latest: tuple[int, Task] | None = None
    for form, make in _FORMS:
        for match in form.finditer(text):
            if latest is None or match.start() > latest[0]:
                latest = (match.start(), make(**match.groupdict()))
    if latest is None:
        return None
    task = latest[1]
    if isinstance(task, DifferentialExpression | DirectionOfChange):
        return type(task)(task.perturbation, task.measured_gene, canonical_cell_line(task.cell_line))
    return task
