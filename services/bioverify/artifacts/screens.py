"""The form of a screen in memory: one row per question, whatever it was read from."""

from __future__ import annotations

import pyarrow as pa

from bioverify.core.tasks import TaskKind


def screen_rows(
    line: str,
    task_kind: TaskKind,
    *,
    perturbation: pa.ChunkedArray,
    measured_gene: pa.ChunkedArray,
    label: pa.ChunkedArray,
    split: pa.ChunkedArray,
) -> pa.Table:
    """The columns line, task_kind, perturbation, measured_gene, label (int8), split; texts dictionary-encoded."""
    n_rows = len(label)
    columns = {
        "line": pa.chunked_array([pa.repeat(pa.scalar(line), n_rows)]),
        "task_kind": pa.chunked_array([pa.repeat(pa.scalar(task_kind.value), n_rows)]),
        "perturbation": perturbation,
        "measured_gene": measured_gene,
        "label": label,
        "split": split,
    }
    return pa.table(
        {name: column if name == "label" else column.dictionary_encode() for name, column in columns.items()}
    )
