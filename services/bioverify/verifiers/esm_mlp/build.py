"""Makes the ``esm_mlp`` artifact: one vector per gene, and per cell line and kind of question one trained net.

A line's net is trained on the training rows of the *other* lines (leave one line out), in the strict form: without the
perturbations that the line itself tests, which other lines' training rows would otherwise give away. Quality is
PerturbQA's per-gene AUC on a quarter of the training perturbations: a second net is trained without these
perturbations in any line and asked about the left-out line's rows of them; a third is trained on shuffled vectors, and
its figure must stay near one half. No test row is read, beyond the names of the tested perturbations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors

from bioverify.artifacts.genes import open_genes
from bioverify.artifacts.go import read_annotations
from bioverify.artifacts.perturbqa import CELL_LINE_NAMES, CELL_LINES, read_tables
from bioverify.artifacts.sources import CC_BY, Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.artifacts.tables import write_table
from bioverify.core.genes import GeneResolver
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.esm_mlp.train import PARAMETERS, SEED, STEPS, Rows, auc_per_gene, logits, train
from bioverify.verifiers.esm_mlp.vectors import DIMENSIONS, Vectors, go_svd

NAME = "esm_mlp"
SYMBOLS_FILE = "symbols.parquet"
VECTORS_FILE = "vectors.safetensors"
NETS_FILE = "nets.safetensors"
KINDS = (TaskKind.DIFFERENTIAL_EXPRESSION, TaskKind.DIRECTION_OF_CHANGE)
HELD_OUT_EVERY = 4

Texts = npt.NDArray[np.str_]


@dataclass(frozen=True)
class _Table:
    """All rows whose genes have vectors."""

    rows: Rows
    line: Texts
    kind: Texts
    split: Texts


def build(
    store: ArtifactStore,
    sources: Sources,
    *,
    progress: Callable[[str], None],
    dimensions: int = DIMENSIONS,
    steps: int = STEPS,
) -> Manifest:
    """Make the artifact. Takes about a minute on one core with the real screens."""
    resolver, genes = open_genes(store)
    annotations = read_annotations(sources, resolver, progress=progress)
    progress(f"esm_mlp: {dimensions} dimensions from {len(annotations.genes):,} annotated genes")
    vectors = go_svd(annotations.genes, len(annotations.terms), dimensions)
    vector_name = f"GO-SVD {dimensions}-d, not ESM2"
    symbols = list(annotations.genes)
    screens = read_tables(sources, progress=progress)
    table, covered = _with_vectors(screens.rows, resolver, symbols)

    weights = {}
    quality: dict[str, float] = {}
    counts = {"vectors": len(symbols), "rows_without_vector": screens.rows.num_rows - len(table.rows)}
    for kind in KINDS:
        for line in CELL_LINES:
            training, own = _leave_out(table, line, kind)
            counts[f"{line}.{kind}.training_rows"] = len(training)
            for name, tensor in train(training, vectors, steps=steps).state_dict().items():
                weights[f"{line}.{kind}.{name}"] = tensor
            real, shuffled = _held_out_aucs(training, own, vectors, steps)
            quality |= {
                f"{line}.{kind}.{name}": round(auc, 4)
                for name, auc in (("auc_per_gene", real), ("auc_per_gene_shuffled_vectors", shuffled))
                if not math.isnan(auc)
            }
            progress(
                f"esm_mlp: {CELL_LINE_NAMES[line]}, {kind}: {len(training):,} rows of other lines, "
                f"per-gene AUC {real:.3f} (shuffled vectors {shuffled:.3f})"
            )
    with store.building(NAME) as folder:
        save_arrays({"vectors": vectors}, folder.path / VECTORS_FILE)
        save_tensors(weights, folder.path / NETS_FILE)
        write_table(pa.table({"symbol": symbols}), folder.path / SYMBOLS_FILE)
        return folder.commit(
            description=f"Classifiers over gene vectors ({vector_name}), one per cell line, leave one line out (strict)"
            + (", trained on a simulated screen, not on experiments." if screens.simulated else "."),
            license=f"{screens.license}; {CC_BY}",
            sources=[*screens.records, *annotations.records],
            simulated=screens.simulated,
            inputs=[genes],
            parameters={**PARAMETERS, "steps": steps, "vectors": vector_name, "transfer": "leave one line out, strict"},
            counts=counts,
            coverage={"rows_with_vectors": covered},
            quality=quality,
        )


def _with_vectors(rows: pa.Table, resolver: GeneResolver, symbols: list[str]) -> tuple[_Table, float]:
    row_of = {symbol: row for row, symbol in enumerate(symbols)}

    def indices(name: str) -> npt.NDArray[np.int64]:
        encoded = rows[name].combine_chunks()
        resolved = [resolver.resolve(written) for written in encoded.dictionary.to_pylist()]
        of_name = np.array([row_of.get(gene, -1) if isinstance(gene, str) else -1 for gene in resolved], np.int64)
        chosen: npt.NDArray[np.int64] = of_name[encoded.indices.to_numpy()]
        return chosen

    def texts(name: str) -> Texts:
        encoded = rows[name].combine_chunks()
        chosen: Texts = np.array(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
        return chosen

    every = Rows(indices("perturbation"), indices("measured_gene"), rows["label"].to_numpy())
    known = (every.perturbation >= 0) & (every.measured_gene >= 0)
    line, kind, split = texts("line")[known], texts("task_kind")[known], texts("split")[known]
    return _Table(every.where(known), line, kind, split), float(known.mean())


def _leave_out(table: _Table, line: str, kind: TaskKind) -> tuple[Rows, Rows]:
    """Training rows for the line's net, and the line's own training rows, of one kind of question."""
    tested = np.unique(table.rows.perturbation[(table.line == line) & (table.split == "test")])
    is_training = (table.kind == kind.value) & (table.split == "train")
    is_given_away = np.isin(table.rows.perturbation, tested)
    own = table.rows.where(is_training & (table.line == line))
    return table.rows.where(is_training & (table.line != line) & ~is_given_away), own


def _held_out_aucs(training: Rows, own: Rows, vectors: Vectors, steps: int) -> tuple[float, float]:
    """Per-gene AUC on a quarter of the line's training perturbations: with the vectors, and with shuffled ones."""
    held_out = np.unique(own.perturbation)[::HELD_OUT_EVERY]
    remaining = training.where(~np.isin(training.perturbation, held_out))
    asked = own.where(np.isin(own.perturbation, held_out))
    shuffled = np.random.default_rng(SEED).permutation(vectors)
    real_auc, control_auc = (
        auc_per_gene(asked, logits(train(remaining, table, steps=steps), asked, table))[0]
        for table in (vectors, shuffled)
    )
    return real_auc, control_auc
