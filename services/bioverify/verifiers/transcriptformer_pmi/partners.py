"""Is a matrix worth asking? Whether it tells known partners from random pairs.

Known partners are two genes that the Gene Ontology annotates to one complex of at most `MOST_MEMBERS`. Random pairs are
made of the same genes, each as often as among the known ones, so a matrix that only knows which genes are in many
complexes, or expressed everywhere, has an AUC of one half.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bioverify.artifacts.go import Annotations
from bioverify.core.metrics import auc_per_gene
from bioverify.verifiers.transcriptformer_pmi.factors import Factors, Int64s
from bioverify.verifiers.transcriptformer_pmi.scaling import Halves

MOST_MEMBERS = 50
LEAST_PAIRS = 100
SHUFFLES = 2
SEED = 20250818


def known_partners(annotations: Annotations, symbols: Sequence[str]) -> Int64s:
    """Pairs of rows of ``symbols``, each once, the smaller row first."""
    row_of = {symbol: row for row, symbol in enumerate(symbols)}
    members: dict[int, list[str]] = {}
    for gene, terms in annotations.genes.items():
        for term in terms:
            if annotations.terms[term].aspect == "C" and "complex" in annotations.terms[term].name:
                members.setdefault(term, []).append(gene)
    pairs = set()
    for genes in members.values():
        if len(genes) <= MOST_MEMBERS:
            rows = sorted(row_of[gene] for gene in genes if gene in row_of)
            pairs |= {(one, other) for at, one in enumerate(rows) for other in rows[at + 1 :]}
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def partners_auc(matrix: Halves | Factors, pairs: Int64s) -> float | None:
    """AUC of the known pairs against random ones; None if there are fewer than `LEAST_PAIRS`."""
    if len(pairs) < LEAST_PAIRS:
        return None
    random, known = np.random.default_rng(SEED), {tuple(pair) for pair in pairs.tolist()}
    drawn = np.sort(np.concatenate([random.permutation(pairs.ravel()).reshape(-1, 2) for _ in range(SHUFFLES)]), axis=1)
    others = np.array([pair for pair in drawn.tolist() if pair[0] != pair[1] and tuple(pair) not in known])
    if not len(others):
        return None
    asked = np.concatenate([pairs, others])
    label = np.arange(len(asked)) < len(pairs)
    scores = matrix[asked[:, 0], asked[:, 1]].astype(np.float64)
    return round(auc_per_gene(np.zeros(len(asked), np.int64), label.astype(np.int8), scores)[0], 4)
