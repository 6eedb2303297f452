"""What verifiers share whose belief about a knockdown comes from models over genes, one per line and kind of question.

A question is looked up once: which line's model, which rows of the gene table, and how the genes are told to people
(``AARS1 (asked as AARS)``). A batch is then one call per model, in which equal questions are computed once.

A model that has no training row of the measured gene can say hardly more than how often genes respond at all. That is
the *base rate*: the sentence and the component ``base_rate`` say so, or, if the artifact was built so, the question
is not applicable. Training perturbations are dealt into folds and answered without their own, so rows of the gene that
all lie in the perturbation's fold do not count.

The gene's usual *rate* is that which its belief was made with, so that the component ``lift`` is what the perturbation
adds: a belief above a rate from other rows would be high exactly where the rows that the rate lacks are positive.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bioverify.core.answers import Answer
from bioverify.core.cell_lines import line_name
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import BASE_RATE, SIMULATED_REMARK, Evidence, NotApplicable, Outcome
from bioverify.core.tasks import (
    DifferentialExpression,
    DirectionOfChange,
    Knockdown,
    Task,
    TaskKind,
    canonical_cell_line,
    nearest_cell_line,
    p_of,
)
from bioverify.core.verifier import LIFT, Item, lift, refuse, score_by_belief

Int8s = npt.NDArray[np.int8]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RATE_PRIOR_ROWS = 2.0

KINDS = (TaskKind.DIFFERENTIAL_EXPRESSION, TaskKind.DIRECTION_OF_CHANGE)
COMPONENTS = {
    LIFT: (
        "The answer by how far the belief is above or below the rate at which the measured gene responds, from 0 to 1; "
        ".5: this perturbation does what others do. Absent without a training row of the gene."
    ),
    BASE_RATE: "1 if the belief rests on no training row of the measured gene, but on how often genes respond.",
    "no_answer.*": "1 if the completion holds no answer, with the reason in the name.",
}
BaseRate = Literal["score", "not_applicable"]
"""What a question gets whose measured gene has no training row."""


def asked_of(
    task: Task | None, lines: Collection[str]
) -> tuple[DifferentialExpression | DirectionOfChange, str] | NotApplicable:
    """The question about a knockdown and which of ``lines`` it is about; else why there is none."""
    if not isinstance(task, Knockdown):
        return refuse(task, KINDS)
    line = canonical_cell_line(task.cell_line)
    if line not in lines:
        near = nearest_cell_line(task.cell_line, lines)
        hint = f" Is {line_name(near)} meant?" if near else ""
        return NotApplicable("unknown_cell_line", f"{task.cell_line} is not one of {', '.join(lines)}.{hint}")
    return task, line


def gene_name(asked: str, current: str) -> str:
    """A gene as it was resolved, with the name that was asked if that is another."""
    return current if asked == current else f"{current} (asked as {asked})"


class LineModel(Protocol):
    """Beliefs of one cell line and kind of question. Genes are rows of the gene table."""

    @property
    def fold(self) -> Int8s:
        """Per gene the fold that a question about its knockdown is answered without; −1 for none."""
        ...

    @property
    def has_rows(self) -> npt.NDArray[np.bool_]:
        """Per fold, and last for no fold: whether each gene was measured in training rows outside of it."""
        ...

    def beliefs(self, perturbations: Int64s, genes: Int64s) -> list[float]: ...

    def rates(self, perturbations: Int64s, genes: Int64s) -> Floats:
        """Of each pair: the gene's rate in its line, by the training rows that the belief was made with, or NaN."""
        ...


def smoothed_rates(genes: Int64s, labels: Int8s, n_genes: int) -> Floats:
    """Per gene: (positives + 2 · prior) / (rows + 2), with the prior of all rows, which is its rate without any."""
    prior = float(labels.mean())
    measured = np.bincount(genes, minlength=n_genes)
    positives = np.bincount(genes, labels, n_genes)
    rates: Floats = (positives + RATE_PRIOR_ROWS * prior) / (measured + RATE_PRIOR_ROWS)
    return rates


def rates_outside_folds(perturbations: Int64s, genes: Int64s, labels: Int8s, fold: Int8s, folds: int) -> Floats:
    """Per fold, and last for no fold: `smoothed_rates` of the rows outside of it; NaN for genes that these lack.

    All are NaN if these rows have one label: no belief can be above or below that.
    """
    rates = np.full((folds + 1, len(fold)), np.nan)
    of_row = fold[perturbations]
    for one in (*range(folds), -1):
        outside = of_row != one if one >= 0 else np.ones(len(genes), np.bool_)
        if len(np.unique(labels[outside])) == 2:
            own = smoothed_rates(genes[outside], labels[outside], len(fold))
            known = np.unique(genes[outside])
            rates[one, known] = own[known]
    return rates


def rows_outside_folds(perturbations: Int64s, genes: Int64s, fold: Int8s, folds: int) -> npt.NDArray[np.bool_]:
    """`LineModel.has_rows` of a model that learned from these rows."""
    has_rows = np.zeros((folds + 1, len(fold)), np.bool_)
    of_row = fold[perturbations]
    for one in (*range(folds), -1):
        has_rows[one, genes[of_row != one] if one >= 0 else genes] = True
    return has_rows


def canary_pair(fold: Int8s, has_rows: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The first gene as the perturbation, and the first gene after it of which its answer has training rows."""
    return 0, int(np.argmax(has_rows[fold[0], 1:])) + 1


class Question(NamedTuple):
    """``perturbation``, ``gene``: rows of the gene table. ``asked``: as the two were asked, which evidence tells."""

    line: str
    kind: TaskKind
    perturbation: int
    gene: int
    asked: tuple[str, ...]


class KnockdownModels:
    """The models of all lines, and the genes that they know."""

    def __init__(
        self,
        resolver: GeneResolver,
        symbols: Sequence[str],
        models: Mapping[tuple[str, TaskKind], LineModel],
        *,
        vector_name: str,
        own_lines: bool,
        scores_base_rate: bool,
        simulated: bool,
    ) -> None:
        """``own_lines``: each line's model was trained on its own rows; else on those of all others.

        ``vector_name``: what the genes are known by. ``scores_base_rate``: else a base rate is not applicable.
        """
        self._resolver, self._symbols, self._models = resolver, symbols, models
        self._row = {symbol: row for row, symbol in enumerate(symbols)}
        self._lines = tuple(dict.fromkeys(line for line, _ in models))
        self._vector_name, self._own_lines, self._simulated = vector_name, own_lines, simulated
        self._scores_base_rate = scores_base_rate

    def score(
        self, items: Sequence[Item], explain: Callable[[Question, float], str], *, with_evidence: bool
    ) -> list[Outcome]:
        """One outcome per item, in order. ``explain``: what follows upon genes, line and p in the sentence.

        Not applicable: ``unknown_gene``, ``ambiguous_gene``, ``unknown_cell_line``, ``no_vector``, and
        ``no_training_row`` if the artifact was built so.
        """
        outcomes: list[Outcome | None] = [None] * len(items)
        asked: dict[tuple[str, TaskKind], dict[Question, list[int]]] = defaultdict(lambda: defaultdict(list))
        for position, item in enumerate(items):
            found = self._find(item.task)
            if isinstance(found, NotApplicable):
                outcomes[position] = found
            else:
                asked[found[:2]][found].append(position)
        for key, positions_of in asked.items():
            pairs = np.array([(one.perturbation, one.gene) for one in positions_of], np.int64)
            model = self._models[key]
            beliefs = model.beliefs(pairs[:, 0], pairs[:, 1])
            learned = model.has_rows[model.fold[pairs[:, 0]], pairs[:, 1]].tolist()
            rates = model.rates(pairs[:, 0], pairs[:, 1]).tolist()
            for question, belief, is_learned, rate in zip(positions_of, beliefs, learned, rates, strict=True):
                evidence = self._evidence(question, belief, explain, is_learned=is_learned) if with_evidence else ()
                for position in positions_of[question]:
                    answer = items[position].answer
                    components = _components(belief, rate, answer, is_learned=is_learned)
                    outcomes[position] = score_by_belief(belief, answer, evidence, components)
        return [outcome for outcome in outcomes if outcome is not None]

    def fold(self, task: Task) -> int:
        """The fold of training perturbations that the answer is made without; −1 for none, or for no answer."""
        found = self._find(task)
        if isinstance(found, NotApplicable):
            return -1
        return int(self._models[found.line, found.kind].fold[found.perturbation])

    def canary(self, belief: float, explain: Callable[[Question, float], str]) -> tuple[Item, Outcome]:
        """``belief``: in "yes" for `canary_pair` in the first line, from the build."""
        line = self._lines[0]
        model = self._models[line, TaskKind.DIFFERENTIAL_EXPRESSION]
        pair = canary_pair(model.fold, model.has_rows)
        perturbation, gene = (self._symbols[row] for row in pair)
        question = Question(line, TaskKind.DIFFERENTIAL_EXPRESSION, *pair, (perturbation, gene))
        item = Item(DifferentialExpression(perturbation, gene, line), answer=True)
        rate = float(model.rates(np.array(pair[:1]), np.array(pair[1:]))[0])
        evidence = self._evidence(question, belief, explain, is_learned=True)
        return item, score_by_belief(belief, True, evidence, _components(belief, rate, True, is_learned=True))

    def trained_on(self, line: str) -> str:
        """The lines whose rows the line's models learned from."""
        return ", ".join(line_name(one) for one in self._lines if (one == line) is self._own_lines)

    def _find(self, task: Task | None) -> Question | NotApplicable:
        asked = asked_of(task, self._lines)
        if isinstance(asked, NotApplicable):
            return asked
        known, line = asked
        genes = known.genes
        rows = self._resolver.rows(genes, self._row, self._without_vector)
        if isinstance(rows, NotApplicable):
            return rows
        perturbation, gene = rows
        question = Question(line, known.kind, perturbation, gene, genes)
        if not self._scores_base_rate:
            model = self._models[question[:2]]
            if not model.has_rows[model.fold[perturbation], gene]:
                return NotApplicable("no_training_row", f"{self._without_rows(question)} ({self._vector_name}).")
        return question

    def _without_vector(self, symbol: str) -> NotApplicable:
        return NotApplicable("no_vector", f"{symbol} has no vector ({self._vector_name}).")

    def _without_rows(self, question: Question) -> str:
        text = f"{self._symbols[question.gene]} has no training row in {self.trained_on(question.line)}"
        if self._models[question.line, question.kind].has_rows[-1, question.gene]:
            text += f" outside the fold of {self._symbols[question.perturbation]}"
        return text

    def _evidence(
        self, question: Question, belief: float, explain: Callable[[Question, float], str], *, is_learned: bool
    ) -> tuple[Evidence, ...]:
        symbols = self._symbols[question.perturbation], self._symbols[question.gene]
        perturbation, gene = map(gene_name, question.asked, symbols)
        p = p_of(question.kind)
        text = f"{gene} under knockdown of {perturbation} in {line_name(question.line)}: {p} = {belief:.2f}"
        if not is_learned:
            text += f", base rate: {self._without_rows(question)}"
        text += explain(question, belief)
        if self._simulated:
            text = f"{text} ({SIMULATED_REMARK})"
        return (Evidence(text, source=self._vector_name, simulated=self._simulated),)


def _components(belief: float, rate: float, answer: Answer | None, *, is_learned: bool) -> dict[str, float]:
    components = {} if is_learned else {BASE_RATE: 1.0}
    return components if math.isnan(rate) else {**components, LIFT: lift(belief, rate, answer)}
