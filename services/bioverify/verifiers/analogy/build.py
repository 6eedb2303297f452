"""Makes the ``analogy`` artifact: measured pairs with kriging's weights, gene vectors, a few trees per line and kind.

Vectors are those of the ``esm_mlp`` artifact, whatever they were made of. Only training rows are read. Figures are out
of fold over training perturbations, ranked within a fold.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bioverify.artifacts import vectors as gene_vectors
from bioverify.artifacts.arrow import write_served
from bioverify.artifacts.go import Annotations, read_annotations
from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest, OpenArtifact
from bioverify.artifacts.tables import read_served
from bioverify.core.cell_lines import CELL_LINE_NAMES, CELL_LINES
from bioverify.core.knockdowns import KINDS, canary_pair
from bioverify.core.metrics import auc_per_gene, calibration_figures, sigmoid
from bioverify.core.tasks import TaskKind
from bioverify.core.verifier import canaries_of
from bioverify.verifiers.analogy.artifact import (
    MEMBERS_FILE,
    NAME,
    ROWS_FILE,
    SETS_FILE,
    SYMBOLS_FILE,
    TESTED_FILE,
    VECTORS_FILE,
    others_of,
    solved_column,
    trees_file,
)
from bioverify.verifiers.analogy.fit import FOLDS, ROUNDS, TREE_PARAMETERS, fit
from bioverify.verifiers.analogy.gene_sets import MOST_MEMBERS
from bioverify.verifiers.analogy.kept import Floats, Rows
from bioverify.verifiers.analogy.neighbours import (
    GENE_WIDTH,
    KRIGING_GENE_SHARE,
    KRIGING_NOISE,
    KRIGING_WIDTH,
    PERTURBATION_WIDTHS,
    SCORES,
    SHRINKAGE,
    leading_components,
    unit_vectors,
)
from bioverify.verifiers.analogy.settings import Settings
from bioverify.verifiers.analogy.verifier import open_verifier

SEED = 20250818
ONE_IN = 20
MOST_AT_ONCE = 2
"""Of lines and kinds that are fitted: each keeps profiles of up to `KEPT_BYTES` beside its features."""


def build(
    store: ArtifactStore,
    sources: Sources,
    *,
    progress: Callable[[str], None],
    settings: Settings | None = None,
    folds: int = FOLDS,
) -> Manifest:
    """Make the artifact, after ``genes`` and ``esm_mlp``."""
    settings = settings or Settings()
    resolver, genes = open_genes(store)
    embedded = store.open("esm_mlp")
    symbols = read_served(embedded, gene_vectors.SYMBOLS_FILE).strings("symbol")
    vector_name, vectors = _vectors(embedded, settings.reduce_to)
    unit = unit_vectors(vectors)
    components = leading_components(unit)
    row_of = {symbol: row for row, symbol in enumerate(symbols)}
    annotations = read_annotations(sources, resolver, progress=progress)
    set_names, sets_of = telling_sets(annotations, symbols)
    screens = read_tables(sources, progress=progress)
    training = screens.rows.filter(pc.equal(screens.rows["split"], "train"))

    def rows_of_genes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        encoded = column.combine_chunks()
        resolved = [resolver.resolve(written) for written in encoded.dictionary.to_pylist()]
        of_name = np.array([row_of.get(gene, -1) if isinstance(gene, str) else -1 for gene in resolved], np.int64)
        chosen: npt.NDArray[np.int64] = of_name[encoded.indices.to_numpy()]
        return chosen

    index = {name: rows_of_genes(training[name]) for name in ("perturbation", "measured_gene")}
    # Of the rows that are held out nothing but what they perturb.
    held_out = screens.rows.filter(pc.not_equal(screens.rows["split"], "train")).select(["line", "perturbation"])
    tested_pairs = np.unique(
        np.column_stack(
            [_positions(np.asarray(held_out["line"].to_pylist()), CELL_LINES), rows_of_genes(held_out["perturbation"])]
        ),
        axis=0,
    )
    tested_pairs = tested_pairs[tested_pairs[:, 1] >= 0]
    known = (index["perturbation"] >= 0) & (index["measured_gene"] >= 0)
    line, kind = (np.asarray(training[name].to_pylist()) for name in ("line", "task_kind"))
    line_number = _positions(line, CELL_LINES)
    every = Rows(index["perturbation"], index["measured_gene"], training["label"].to_numpy())

    quality: dict[str, float] = {}
    weights: dict[str, str] = {}
    solved = np.zeros((folds + 1, len(every)), np.float32)
    canary = ""
    parts = [
        (one_line, one_kind, known & (line == one_line) & (kind == one_kind.value))
        for one_kind in KINDS
        for one_line in CELL_LINES
    ]

    def others(one_line: str, one_kind: TaskKind) -> list[Rows]:
        of_kind, number = known & (kind == one_kind.value), CELL_LINES.index(one_line)
        tested = tested_pairs[tested_pairs[:, 0] == number, 1]
        return others_of(number, line_number[of_kind], every.where(of_kind), tested)

    # Each is fitted on one thread; most of its time is in libraries that let others run.
    with store.building(NAME) as folder, ThreadPoolExecutor(min(MOST_AT_ONCE, os.cpu_count() or 1)) as threads:
        fitted = threads.map(
            lambda part: _fit(every.where(part[-1]), others(*part[:2]), unit, components, folds), parts
        )
        for (one_line, one_kind, chosen), one in zip(parts, fitted, strict=True):
            solved[:, chosen] = one.solved
            key = f"{one_line}.{one_kind}"
            weights[key] = " ".join(map(repr, one.weights))
            for number, trees in enumerate(one.trees):
                trees.save_model(folder.path / trees_file(one_line, one_kind, number))
            quality |= {f"{key}.{name}": round(value, 4) for name, value in one.figures.items() if not np.isnan(value)}
            canary = canary or one.canary
            progress(
                f"analogy: {CELL_LINE_NAMES[one_line]}, {one_kind}: {chosen.sum():,} rows, per-gene AUC out of fold "
                f"{one.figures['auc_per_gene']:.3f} (neighbours alone {one.figures['auc_per_gene_neighbours']:.3f})"
            )
        np.save(folder.path / VECTORS_FILE, vectors, allow_pickle=False)
        write_served(pa.table({"symbol": symbols}), folder.path / SYMBOLS_FILE)
        write_served(pa.table({"name": pa.array(set_names, pa.string())}), folder.path / SETS_FILE)
        write_served(pa.table({"sets": pa.array(sets_of, pa.list_(pa.int32()))}), folder.path / MEMBERS_FILE)
        table = {"line": line_number[known], "kind": _positions(kind[known], KINDS)}
        table["label"] = every.label[known]
        table |= {name: values[known].astype(np.int32) for name, values in index.items()}
        table |= {solved_column(one): solved[one, known] for one in (*range(folds), -1)}
        write_served(pa.table(table), folder.path / ROWS_FILE)
        tested = {"line": tested_pairs[:, 0].astype(np.int8), "perturbation": tested_pairs[:, 1].astype(np.int32)}
        write_served(pa.table(tested), folder.path / TESTED_FILE)
        return folder.commit(
            canaries=lambda built: canaries_of(open_verifier(built)),
            description="How genes responded under similar perturbations: measured pairs, kriging, gene vectors, trees"
            + (", from a simulated screen, not from experiments." if screens.simulated else "."),
            license="; ".join(
                dict.fromkeys(
                    [screens.license, embedded.manifest.license, *(one.license for one in annotations.records)]
                )
            ),
            sources=[*screens.records, *annotations.records],
            simulated=screens.simulated,
            inputs=[genes, embedded],
            parameters={
                "vectors": vector_name,
                "similar": str(_similar(unit, [np.unique(every.perturbation[chosen]) for _, _, chosen in parts])),
                "base_rate": settings.base_rate,
                "folds": folds,
                "perturbation_widths": [str(tau) for tau in PERTURBATION_WIDTHS],
                "gene_widths": ["0.0", str(GENE_WIDTH)],
                "shrinkage": SHRINKAGE,
                "trees": {name: str(value) for name, value in TREE_PARAMETERS.items()} | {"rounds": str(ROUNDS)},
                "seed": SEED,
                "kriging": {
                    "width": str(KRIGING_WIDTH),
                    "gene_share": str(KRIGING_GENE_SHARE),
                    "noise": str(KRIGING_NOISE),
                },
                "weights": weights,
                "canary_belief": canary,
            },
            counts={
                "vectors": len(symbols),
                "gene_sets": len(set_names),
                "rows": int(known.sum()),
                "rows_without_vector": int((~known).sum()),
            },
            coverage={"rows_with_vectors": float(known.mean())},
            quality=quality,
        )


def _similar(unit: Floats, perturbations: Sequence[npt.NDArray[np.int64]]) -> float:
    """The least cosine of what evidence calls similar: one in `ONE_IN` random pairs of a line's perturbations is so."""
    shares = []
    for own in perturbations:
        cosines = unit[own] @ unit[own].T
        shares.append(np.quantile(cosines[np.triu_indices(len(own), 1)], 1.0 - 1.0 / ONE_IN))
    return round(float(np.mean(shares)), 2)


class _Fitted(NamedTuple):
    """What the artifact keeps of a line and kind: not the profiles that its model holds."""

    solved: npt.NDArray[np.float32]
    trees: Sequence[lightgbm.Booster]
    weights: Sequence[float]
    figures: dict[str, float]
    canary: str


def _fit(rows: Rows, others: Sequence[Rows], unit: Floats, components: Floats, folds: int) -> _Fitted:
    model, scored, logits = fit(rows, others, unit, components, folds, SEED)
    within_fold = rows.gene * 128 + model.fold[rows.perturbation]
    figures = {
        "auc_per_gene": auc_per_gene(within_fold, rows.label, logits)[0],
        **{
            f"auc_per_gene_{name}": auc_per_gene(within_fold, rows.label, scored[:, column])[0]
            for column, name in enumerate(SCORES)
        },
        **calibration_figures(rows.label, sigmoid(logits)),
    }
    perturbation, gene = canary_pair(model.fold, model.has_rows)
    canary = repr(model.beliefs(np.array([perturbation]), np.array([gene]))[0])
    return _Fitted(model.solved, model.trees, model.weights, figures, canary)


def telling_sets(annotations: Annotations, symbols: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Names of the sets, the more telling first, and per symbol the sets that it is in."""
    members = Counter(term for terms in annotations.genes.values() for term in terms)
    ranked = []
    for term, size in members.items():
        about = annotations.terms[term]
        is_complex = about.aspect == "C" and "complex" in about.name
        if 2 <= size <= MOST_MEMBERS and (is_complex or about.aspect == "P"):
            ranked.append((not is_complex, size, about.name, term))
    number = {term: place for place, (*_, term) in enumerate(sorted(ranked))}
    names = [name for _, _, name, _ in sorted(ranked)]
    return names, [sorted(number[term] for term in annotations.genes.get(one, ()) if term in number) for one in symbols]


def _vectors(embedded: OpenArtifact, most: int | None) -> tuple[str, gene_vectors.Vectors]:
    """What genes are compared by: the vectors of ``esm_mlp`` with all their dimensions, or the leading ``most``."""
    from safetensors.numpy import load_file

    file, told = embedded.path / gene_vectors.JOINT_FILE, "joint_vectors"
    if not file.is_file():
        file, told = embedded.path / gene_vectors.VECTORS_FILE, "vectors"
    joint, name = load_file(file)["vectors"], str(embedded.parameter(told))
    vectors = gene_vectors.leading(joint, most)
    return (name if vectors is joint else f"{name}, PCA {most}-d"), vectors


def _positions(column: npt.NDArray[np.str_], among: Sequence[str]) -> npt.NDArray[np.int8]:
    position = {name: number for number, name in enumerate(among)}
    return np.array([position[name] for name in column.tolist()], np.int8)
