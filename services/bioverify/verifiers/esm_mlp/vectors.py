"""A vector per gene from its Gene Ontology annotations, used if protein embeddings are not to be had.

Rows of the gene × term matrix are weighted by rarity of the term, log(genes / annotated genes), brought to length 1,
and reduced by a truncated singular value decomposition; the coordinates are then brought to length 1 again, times
√dimensions, so that a coordinate has about unit variance. The start vector is fixed and signs are canonical.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bioverify.artifacts.vectors import Vectors

_FEW = 64


def go_svd(genes: Mapping[str, Sequence[int]], n_terms: int, dimensions: int) -> Vectors:
    """One row per gene, in order. ``genes``: symbol → indices of its terms, below ``n_terms``, at least one each."""
    # Only builders have scipy; the service reads finished vectors.
    from scipy import sparse
    from scipy.sparse.linalg import svds

    lengths = [len(terms) for terms in genes.values()]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.concatenate([np.asarray(terms, np.int64) for terms in genes.values()])
    n_annotated = np.bincount(indices, minlength=n_terms)
    # A term of a single gene cannot liken it to another.
    weight = np.where(n_annotated > 1, np.log(len(genes) / np.maximum(n_annotated, 1)), 0.0)
    matrix = sparse.csr_array((weight[indices], indices, offsets), shape=(len(genes), n_terms))
    rows = sparse.diags_array(1.0 / np.maximum(np.sqrt(matrix.multiply(matrix).sum(axis=1)), 1e-9)) @ matrix

    if min(rows.shape) <= _FEW:
        # Of few genes or terms the start vector may span too little, and ARPACK goes on from a random one.
        left, singular, _ = np.linalg.svd(rows.toarray(), full_matrices=False)
    else:
        left, singular, _ = svds(rows, k=dimensions, v0=np.ones(min(rows.shape)), tol=1e-4)
    order = np.argsort(-singular)[:dimensions]
    coordinates = left[:, order] * singular[order]
    largest = coordinates[np.abs(coordinates).argmax(axis=0), np.arange(dimensions)]
    coordinates *= np.sign(largest)
    norms = np.maximum(np.linalg.norm(coordinates, axis=1, keepdims=True), 1e-9)
    scaled: Vectors = (np.sqrt(dimensions) * coordinates / norms).astype(np.float32)
    return scaled
