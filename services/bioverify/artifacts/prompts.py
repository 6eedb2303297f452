"""The ``prompts`` artifact: the questions that training and evaluation draw from, with their labels.

One row per measured pair, kind of question and line, of all splits; the reader chooses the split. Symbols are as the
screen writes them, because that is what published runs asked. Co-expression is asked of the pairs that the artifact
``transcriptformer_pmi`` offers for training: their genes stand as perturbation and measured gene, without a line.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from bioverify.artifacts.arrow import read_parquet, write_parquet
from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.screens import screen_rows
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest, OpenArtifact
from bioverify.core.tasks import TaskKind

FILE = "prompts.parquet"
CO_EXPRESSION_FILE = "co_expression.parquet"
"""Of the artifact ``transcriptformer_pmi``: columns gene_a, gene_b, label."""


def build(store: ArtifactStore, sources: Sources, *, progress: Callable[[str], None]) -> Manifest:
    """Make the ``prompts`` artifact from PerturbQA, or from the simulated screen, and from the co-expressed pairs."""
    co_expression = store.open("transcriptformer_pmi")
    screens = read_tables(sources, progress=progress)
    table = pa.concat_tables(
        [
            _with_simulated(screens.rows, screens.simulated),
            _with_simulated(
                _co_expression_rows(read_parquet(co_expression.path / CO_EXPRESSION_FILE)), simulated=False
            ),
        ]
    ).unify_dictionaries()
    with store.building("prompts") as folder:
        write_parquet(table, folder.path / FILE)
        manifest = folder.commit(
            description="Questions for training and evaluation, with labels: responses to knockdowns, co-expression.",
            license=screens.license,
            sources=screens.records,
            inputs=[co_expression],
            simulated=screens.simulated,
            counts={
                f"{kind}.{split}": _count(table, kind, split)
                for kind in (TaskKind.DIFFERENTIAL_EXPRESSION, TaskKind.DIRECTION_OF_CHANGE, TaskKind.CO_EXPRESSION)
                for split in ("train", "test")
            },
        )
    progress(f"prompts: {table.num_rows:,} questions")
    return manifest


def open_prompts(store: ArtifactStore) -> tuple[pa.Table, OpenArtifact]:
    """Columns: line, task_kind, perturbation, measured_gene, label (int8), split, simulated (bool).

    Raises ArtifactError if the artifact is missing or damaged.
    """
    artifact = store.open("prompts")
    return read_parquet(artifact.path / FILE), artifact


def _with_simulated(rows: pa.Table, simulated: bool) -> pa.Table:
    return rows.append_column("simulated", pa.repeat(pa.scalar(simulated), rows.num_rows))


def _co_expression_rows(pairs: pa.Table) -> pa.Table:
    return screen_rows(
        "",
        TaskKind.CO_EXPRESSION,
        perturbation=pairs["gene_a"],
        measured_gene=pairs["gene_b"],
        label=pairs["label"],
        split=pa.chunked_array([pa.repeat(pa.scalar("train"), pairs.num_rows)]),
    )


def _count(table: pa.Table, kind: TaskKind, split: str) -> int:
    chosen = pc.and_(pc.equal(table["task_kind"], kind.value), pc.equal(table["split"], split))
    return int(pc.sum(chosen).as_py() or 0)
