"""What a question asks: one class per kind of question, and how a cell line is spelled.

`TASKS` is the one list of the kinds. The contract's messages, the JSON form, cache keys, the probes of the conformance
suite and the trainer's draws are made from it and from the classes' fields, so that a kind is added here, in the
contract, and where its wording is read (`bioverify.core.questions`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Self


class TaskKind(StrEnum):
    """Named as in the contract: the field of ``Task``, and the enumerator without its prefix."""

    DIFFERENTIAL_EXPRESSION = "differential_expression"
    DIRECTION_OF_CHANGE = "direction_of_change"
    CO_EXPRESSION = "co_expression"
    GENE_ANNOTATION = "gene_annotation"


class AnswerWords(NamedTuple):
    """The two words that a question offers as its answer."""

    affirming: str
    denying: str


YES_NO = AnswerWords("yes", "no")
INCREASE_DECREASE = AnswerWords("increase", "decrease")


@dataclass(frozen=True, slots=True)
class Knockdown:
    """What the two questions about a knockdown share."""

    perturbation: str
    measured_gene: str
    cell_line: str

    @property
    def genes(self) -> tuple[str, ...]:
        return (self.perturbation, self.measured_gene)

    @classmethod
    def about(cls, gene: str, other: str, cell_line: str) -> Self:
        return cls(gene, other, cell_line)

    @classmethod
    def read(cls, perturbation: str, measured_gene: str, cell_line: str) -> Self:
        return cls(perturbation, measured_gene, canonical_cell_line(cell_line))


@dataclass(frozen=True, slots=True)
class DifferentialExpression(Knockdown):
    kind: ClassVar = TaskKind.DIFFERENTIAL_EXPRESSION
    words: ClassVar[AnswerWords | None] = YES_NO

    @property
    def question(self) -> str:
        return (
            f"Is a knockdown of {self.perturbation} in {self.cell_line} cells likely to result in differential "
            f"expression of {self.measured_gene}? The answer is either yes or no."
        )


@dataclass(frozen=True, slots=True)
class DirectionOfChange(Knockdown):
    kind: ClassVar = TaskKind.DIRECTION_OF_CHANGE
    words: ClassVar[AnswerWords | None] = INCREASE_DECREASE

    @property
    def question(self) -> str:
        return (
            f"Is a knockdown of {self.perturbation} in {self.cell_line} cells likely to result decrease or increase "
            f"of {self.measured_gene}? The answer is either decrease or increase."
        )


@dataclass(frozen=True, slots=True)
class CoExpression:
    kind: ClassVar = TaskKind.CO_EXPRESSION
    words: ClassVar[AnswerWords | None] = YES_NO

    gene_a: str
    gene_b: str

    @property
    def genes(self) -> tuple[str, ...]:
        return (self.gene_a, self.gene_b)

    @classmethod
    def about(cls, gene: str, other: str, cell_line: str) -> Self:
        return cls(gene, other)

    @classmethod
    def read(cls, gene_a: str, gene_b: str) -> Self:
        return cls(gene_a, gene_b)

    @property
    def question(self) -> str:
        return (
            f"Are gene {self.gene_a} and gene {self.gene_b} likely to be co-expressed together? "
            "Give a binary yes/no answer only."
        )


@dataclass(frozen=True, slots=True)
class GeneAnnotation:
    kind: ClassVar = TaskKind.GENE_ANNOTATION
    words: ClassVar[AnswerWords | None] = None

    genes: tuple[str, ...]

    @classmethod
    def about(cls, gene: str, other: str, cell_line: str) -> Self:
        return cls((gene, other))

    @classmethod
    def read(cls, genes: Iterable[str]) -> Self:
        return cls(tuple(genes))

    @property
    def question(self) -> str:
        return f"What is known about the function of {', '.join(self.genes)}?"


PROSE = GeneAnnotation(())
"""A text about no question: what it says of genes can be checked, and nothing else."""

Task = DifferentialExpression | DirectionOfChange | CoExpression | GeneAnnotation
"""A kind's class has ``kind``; ``words``, or None if its question has no yes or no; ``genes`` and ``question``;
``about(gene, other, cell_line)``, the task of that kind about two genes; and ``read``, which takes the values of its
fields as they come from outside. The fields are texts, or tuples of texts."""

TASKS: dict[TaskKind, type[Task]] = {
    TaskKind.DIFFERENTIAL_EXPRESSION: DifferentialExpression,
    TaskKind.DIRECTION_OF_CHANGE: DirectionOfChange,
    TaskKind.CO_EXPRESSION: CoExpression,
    TaskKind.GENE_ANNOTATION: GeneAnnotation,
}


def make_task(kind: TaskKind, values: Iterable[Any]) -> Task:
    """The task of a kind from its fields' values, in order, as they come from outside: a message, JSON, a table."""
    return TASKS[kind].read(*values)


# Cellosaurus accession and spellings, written without what `canonical_cell_line` takes out. The clones of Jurkat and
# HepG2 that vendors sell are the ones that the screens used.
_CELL_LINES = {
    "k562": ("cvcl0004",),
    "rpe1": ("cvcl4388", "htertrpe1", "rpe1htert", "htertimmortalizedrpe1"),
    "hepg2": ("cvcl0027", "cvcl1098", "hepg2/c3a", "hepg2(c3a)", "hepg2c3a", "c3a"),
    "jurkat": ("cvcl0065", "cvcl0367", "jurkate61", "jurkat,clonee61", "jurkatclonee61", "jurkate6.1", "jurkatt"),
}
_CELL_LINE_OF = {alias: line for line, aliases in _CELL_LINES.items() for alias in (line, *aliases)}
_AROUND_A_NAME = re.compile(r"^(?:(?:the|human) )+|(?: cells?| cell lines?)+$", re.IGNORECASE)
_NOT_COMPARED = re.compile(r"[\s\-_]")
_ACCESSION = re.compile(r"(?<!\w)cvcl\w{4}(?!\w)")


def p_of(kind: TaskKind) -> str:
    """What a belief is the probability of, as sentences of evidence write it."""
    return "p(increase)" if kind is TaskKind.DIRECTION_OF_CHANGE else "p(yes)"


@lru_cache(maxsize=1024)
def canonical_cell_line(name: str) -> str:
    """The one spelling of a cell line: lower case, without space, hyphen or underscore ("K-562 cells" → "k562").

    The lines of the published screens are known by their other names and Cellosaurus ids too ("hTERT-RPE1",
    "CVCL_0004").
    """
    bare = _AROUND_A_NAME.sub("", " ".join(name.split()))
    compact = _NOT_COMPARED.sub("", bare).lower()
    if (accession := _ACCESSION.search(compact)) and accession[0] in _CELL_LINE_OF:
        return _CELL_LINE_OF[accession[0]]
    # A name of hyphens alone stays a name: an empty one would be refused, and a whole file with it.
    return _CELL_LINE_OF.get(compact, compact) or name


def nearest_cell_line(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that a misspelt name most likely means; None if none is near."""
    near = get_close_matches(canonical_cell_line(name), list(known), n=1, cutoff=0.6)
    return near[0] if near else None
