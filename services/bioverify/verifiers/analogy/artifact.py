"""What the ``analogy`` artifact is called, and its files. Apart from the build: serving needs no pyarrow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.analogy.kept import Rows

NAME = "analogy"
SYMBOLS_FILE, VECTORS_FILE = "symbols.arrows", "vectors.npy"
SETS_FILE, MEMBERS_FILE = "gene_sets.arrows", "members.arrows"
"""``name`` of each complex and process, the more telling first; per gene the ``sets`` that it is in, in this order."""
ROWS_FILE = "rows.arrows"
"""``line`` and ``kind``: positions in CELL_LINES and KINDS. ``perturbation`` and ``measured_gene``: vectors' rows.
``label``. Kriging's weights: `solved_column`."""

TESTED_FILE = "tested.arrows"
"""``line``, ``perturbation``: what each line tests, of which other lines' rows tell it nothing."""


def trees_file(line: str, kind: TaskKind, number: int) -> str:
    """``number``: of the fold; beyond the folds, of those that start from the gene's rate (`LineModel`)."""
    return f"trees-{line}-{kind}-{number}.txt"


def solved_column(fold: int) -> str:
    """Kriging's weights without a fold; −1: with all rows."""
    return f"solved_without_{fold}" if fold >= 0 else "solved"


def others_of(line: int, of_row: npt.NDArray[np.int8], rows: Rows, tested: npt.NDArray[np.int64]) -> list[Rows]:
    """The rows of each other line that has some, without what this line tests. ``rows``: of one kind of question."""
    allowed = ~np.isin(rows.perturbation, tested)
    chosen = (allowed & (of_row == other) for other in range(len(CELL_LINES)) if other != line)
    return [rows.where(one) for one in chosen if one.any()]
