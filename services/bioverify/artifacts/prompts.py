"""The ``prompts`` artifact: the questions that training and evaluation draw from, with their labels.

One row per measured pair, kind of question and line, of all splits; the reader chooses the split. Symbols are as the
screen writes them, because that is what published runs asked.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest, OpenArtifact
from bioverify.artifacts.tables import read_table, write_table
from bioverify.core.tasks import TaskKind

FILE = "prompts.parquet"


def build(store: ArtifactStore, sources: Sources, *, progress: Callable[[str], None]) -> Manifest:
    """Make the ``prompts`` artifact from PerturbQA, or from the simulated screen."""
    screens = read_tables(sources, progress=progress)
    table = screens.rows.append_column("simulated", pa.repeat(pa.scalar(screens.simulated), screens.rows.num_rows))
    with store.building("prompts") as folder:
        write_table(table, folder.path / FILE)
        manifest = folder.commit(
            description="Questions for training and evaluation, with labels: differential expression and direction.",
            license=screens.license,
            sources=screens.records,
            simulated=screens.simulated,
            counts={
                f"{kind}.{split}": _count(table, kind, split)
                for kind in (TaskKind.DIFFERENTIAL_EXPRESSION, TaskKind.DIRECTION_OF_CHANGE)
                for split in ("train", "test")
            },
        )
    progress(f"prompts: {table.num_rows:,} questions")
    return manifest


def open_prompts(store: ArtifactStore) -> tuple[pa.Table, OpenArtifact]:
    """Columns: line, task_kind, perturbation, measured_gene, label (int8), split, simulated (bool).

    Raises ArtifactError where the artifact is missing or damaged.
    """
    artifact = store.open("prompts")
    return read_table(artifact.path / FILE), artifact


def _count(table: pa.Table, kind: TaskKind, split: str) -> int:
    chosen = pc.and_(pc.equal(table["task_kind"], kind.value), pc.equal(table["split"], split))
    return int(pc.sum(chosen).as_py() or 0)
