"""Makes the ``experimental`` artifact: per cell line one sorted array of measured pairs and one of their responses.

A pair is one number, index of the perturbation × number of genes + index of the measured gene, so that a batch is
looked up by binary search in a memory-mapped array. Symbols become current ones first. Two old symbols may then name
one gene: pairs that agree are merged, pairs that contradict each other are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bioverify.artifacts.genes import open_genes
from bioverify.artifacts.perturbqa import CELL_LINES, read_tables
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.artifacts.tables import write_table
from bioverify.core.genes import GeneResolver
from bioverify.core.tasks import TaskKind

NAME = "experimental"
SYMBOLS_FILE = "symbols.parquet"

DECREASED, UNCHANGED, INCREASED, CHANGED = -1, 0, 1, 2
"""Responses as stored (int8); CHANGED where a pair responds and its direction is not known."""

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]


def pairs_file(line: str) -> str:
    return f"{line}.pairs.npy"


def responses_file(line: str) -> str:
    return f"{line}.responses.npy"


def build(
    store: ArtifactStore,
    sources: Sources,
    *,
    progress: Callable[[str], None],
    splits: Sequence[str] = ("train",),
) -> Manifest:
    """Make the artifact of the rows of ``splits``; by default test labels never enter it, so no reward leaks them."""
    resolver, genes = open_genes(store)
    screens = read_tables(sources, progress=progress)
    rows = screens.rows.filter(pc.is_in(screens.rows["split"], value_set=pa.array(list(splits))))
    current, unresolved = _current_symbols(rows, resolver)
    symbols = sorted(set(current.values()))
    index = {symbol: position for position, symbol in enumerate(symbols)}
    counts = {"symbols": len(symbols), "unresolved_symbols": len(unresolved), "contradicting_pairs": 0}

    with store.building(NAME) as folder:
        write_table(pa.table({"symbol": symbols}), folder.path / SYMBOLS_FILE)
        for line in CELL_LINES:
            pairs, responses, n_contradicting = _one_line(rows, line, current, index)
            np.save(folder.path / pairs_file(line), pairs, allow_pickle=False)
            np.save(folder.path / responses_file(line), responses, allow_pickle=False)
            counts[f"{line}.pairs"] = len(pairs)
            counts[f"{line}.responding"] = int(np.count_nonzero(responses))
            counts["contradicting_pairs"] += n_contradicting
            progress(f"experimental: {line}, {len(pairs):,} measured pairs")
        all_symbols = len(current) + len(unresolved)
        return folder.commit(
            description="Measured responses to knockdowns in four cell lines"
            + (" (simulated screen, not an experiment)." if screens.simulated else " (PerturbQA)."),
            license=screens.license,
            sources=screens.records,
            simulated=screens.simulated,
            inputs=[genes],
            parameters={"splits": list(splits)},
            counts=counts,
            coverage={"resolved_symbols": len(current) / all_symbols if all_symbols else 0.0},
        )


def _current_symbols(rows: pa.Table, resolver: GeneResolver) -> tuple[dict[str, str], set[str]]:
    """Symbol of the source → current symbol, and those that have none."""
    names = set(pc.unique(rows["perturbation"]).to_pylist()) | set(pc.unique(rows["measured_gene"]).to_pylist())
    resolved = {name: resolver.resolve(name) for name in names}
    current = {name: symbol for name, symbol in resolved.items() if isinstance(symbol, str)}
    return current, names - current.keys()


def _one_line(rows: pa.Table, line: str, current: dict[str, str], index: dict[str, int]) -> tuple[Int64s, Int8s, int]:
    """Sorted pairs, their responses, and how many pairs were dropped for contradicting rows."""
    of_line = rows.filter(pc.equal(rows["line"], line))

    def of_kind(kind: TaskKind) -> tuple[Int64s, Int8s]:
        chosen = of_line.filter(pc.equal(of_line["task_kind"], kind.value))
        perturbation = _indices(chosen["perturbation"], current, index)
        measured = _indices(chosen["measured_gene"], current, index)
        is_known = (perturbation >= 0) & (measured >= 0)
        pairs = perturbation * len(index) + measured
        return pairs[is_known], chosen["label"].to_numpy()[is_known]

    de_pairs, de_labels = of_kind(TaskKind.DIFFERENTIAL_EXPRESSION)
    dir_pairs, dir_labels = of_kind(TaskKind.DIRECTION_OF_CHANGE)
    pairs, de_low, de_high = _range_by_pair(de_pairs, de_labels)
    directed, dir_low, dir_high = _range_by_pair(dir_pairs, dir_labels)

    responses = np.where(de_high == 1, CHANGED, UNCHANGED).astype(np.int8)
    has_direction = np.isin(directed, pairs) & (dir_low == dir_high)
    responses[np.searchsorted(pairs, directed[has_direction])] = np.where(
        dir_low[has_direction] == 1, INCREASED, DECREASED
    )
    agrees = de_low == de_high
    n_contradicting = int(np.count_nonzero(~agrees)) + int(np.count_nonzero(dir_low != dir_high))
    return pairs[agrees], responses[agrees], n_contradicting


def _indices(column: pa.ChunkedArray, current: dict[str, str], index: dict[str, int]) -> Int64s:
    """Index of each row's current symbol, −1 where it has none."""
    encoded = column.combine_chunks()
    names = encoded.dictionary.to_pylist()
    of_name = np.array([index[current[name]] if name in current else -1 for name in names], np.int64)
    chosen: Int64s = of_name[encoded.indices.to_numpy()]
    return chosen


def _range_by_pair(pairs: Int64s, labels: Int8s) -> tuple[Int64s, Int8s, Int8s]:
    """Distinct pairs in order, and the lowest and highest label of each."""
    order = np.lexsort((labels, pairs))
    distinct, first, n_rows = np.unique(pairs[order], return_index=True, return_counts=True)
    ordered = labels[order]
    return distinct, ordered[first], ordered[first + n_rows - 1]
