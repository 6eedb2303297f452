"""The held-out questions: rows of the ``prompts`` artifact in the ``test`` split, and never another.

The training rows are here too, because baselines are made of them. Co-expression has no held-out rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bioverify.core.completions import PromptForm
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, TaskKind
from bioverify.errors import BioverifyError
from bioverify_trainer.preset import PromptPreset
from bioverify_trainer.prompts import Turn, make_prompt

TASKS = {"de": TaskKind.DIFFERENTIAL_EXPRESSION, "direction": TaskKind.DIRECTION_OF_CHANGE}
"""Names of the tasks on the command line and in tables."""

Ints = npt.NDArray[np.integer[Any]]


class EvaluationError(BioverifyError):
    """An evaluation that cannot be done; the message says what to do."""


@dataclass(frozen=True)
class Rows:
    """Measured pairs of one kind of question; all arrays have one entry per row.

    ``line``, ``perturbation`` and ``measured_gene`` are codes into the screens' names.
    """

    screens: Screens
    kind: TaskKind
    line: Ints
    perturbation: Ints
    measured_gene: Ints
    label: Ints

    def __len__(self) -> int:
        return len(self.label)

    def where(self, chosen: npt.NDArray[Any]) -> Rows:
        """The rows that a mask or an array of positions chooses."""
        return replace(
            self,
            line=self.line[chosen],
            perturbation=self.perturbation[chosen],
            measured_gene=self.measured_gene[chosen],
            label=self.label[chosen],
        )

    def questions(self) -> dict[tuple[str, str, str], int]:
        """Row by (perturbation, measured gene, line)."""
        genes, lines = self.screens.genes, self.screens.lines
        columns = zip(self.perturbation.tolist(), self.measured_gene.tolist(), self.line.tolist(), strict=True)
        return {(genes[one], genes[other], lines[line]): row for row, (one, other, line) in enumerate(columns)}

    def task(self, row: int) -> DifferentialExpression | DirectionOfChange:
        make = DifferentialExpression if self.kind is TaskKind.DIFFERENTIAL_EXPRESSION else DirectionOfChange
        genes = self.screens.genes
        line = self.screens.lines[self.line[row]]
        return make(genes[self.perturbation[row]], genes[self.measured_gene[row]], line)

    def sample(self, n: int, *, per_gene: int, seed: int, or_fewer: bool = False) -> Rows:
        """About ``n`` rows, half of them positive: genes with both labels, ``per_gene`` rows each, half of each label.

        Per-gene AUC does not depend on the share of positives, and needs both labels of a gene; rows drawn singly would
        hardly ever hold them. A gene of a line that has too few rows of a label is left out. Raises EvaluationError if
        too few genes are left; with ``or_fewer`` only if none is.
        """
        rng = np.random.default_rng(seed)
        order = np.lexsort((rng.random(len(self)), self.label, self.measured_gene, self.line))
        group = np.stack([self.line, self.measured_gene, self.label])[:, order]
        starts = np.flatnonzero(np.r_[True, (group[:, 1:] != group[:, :-1]).any(axis=0)])
        half = per_gene // 2
        enough = starts[np.diff(np.r_[starts, len(order)]) >= half]
        # Both labels of a gene stand beside each other.
        both = enough[np.flatnonzero((group[:2, enough[1:]] == group[:2, enough[:-1]]).all(axis=0))[:, None] + [0, 1]]
        if n // per_gene > len(both) and not (or_fewer and len(both)):
            raise EvaluationError(
                f"{n} questions with {per_gene} of a gene need {n // per_gene} genes, but only {len(both)} have so "
                "many rows of each label; ask for fewer questions, or fewer of a gene"
            )
        chosen = rng.permutation(both)[: n // per_gene]
        return self.where(np.sort(order[(chosen[:, :, None] + np.arange(half)).ravel()]))


@dataclass(frozen=True)
class Screens:
    """Names behind the codes, and the rows of each kind. ``simulated``: they come from a generator."""

    lines: tuple[str, ...]
    genes: tuple[str, ...]
    simulated: bool
    table: pa.Table

    @classmethod
    def read(cls, table: pa.Table) -> Screens:
        """``table``: the columns of the ``prompts`` artifact."""
        kinds = pc.is_in(table["task_kind"].cast(pa.string()), pa.array([str(kind) for kind in TASKS.values()]))
        table = table.filter(kinds)
        genes = set[str]()
        for name in ("perturbation", "measured_gene"):
            genes |= set(table[name].unique().to_pylist())
        lines = tuple(dict.fromkeys(table["line"].unique().to_pylist()))
        return cls(lines, tuple(sorted(genes)), bool(pc.any(table["simulated"]).as_py()), table)

    def rows(self, kind: TaskKind, split: str, lines: Sequence[str] = ()) -> Rows:
        """The rows of a kind and a split ("train" or "test"), of all lines or of those named."""
        chosen = pc.and_(pc.equal(self.table["task_kind"], str(kind)), pc.equal(self.table["split"], split))
        if lines:
            chosen = pc.and_(chosen, pc.is_in(self.table["line"].cast(pa.string()), pa.array(list(lines))))
        table = self.table.filter(chosen)
        gene_codes = {gene: code for code, gene in enumerate(self.genes)}
        line_codes = {line: code for code, line in enumerate(self.lines)}
        return Rows(
            self,
            kind,
            _codes(table["line"], line_codes),
            _codes(table["perturbation"], gene_codes),
            _codes(table["measured_gene"], gene_codes),
            table["label"].to_numpy().astype(np.int64),
        )


def make_question(task: DifferentialExpression | DirectionOfChange, prompts: PromptPreset) -> list[Turn]:
    """The conversation up to the completion, as the preset wants it."""
    return make_prompt(
        task, PromptForm.ANSWER, example_turns=prompts.example_turns, chain_of_thought=prompts.chain_of_thought
    )


def _codes(column: pa.ChunkedArray, codes: dict[str, int]) -> Ints:
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    # The dictionary may hold names that only rows of other kinds have.
    own = np.array([codes.get(value, -1) for value in encoded.dictionary.to_pylist()], np.int64)
    chosen: Ints = own[encoded.indices.to_numpy()]
    return chosen
