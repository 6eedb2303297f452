"""Kernel-weighted neighbours over perturbations and genes.

With R = label − smoothed rate of the measured gene over the measured pairs of one cell line, M their mask, and the
kernels w = exp((cos − 1)/τ) between perturbed and v between measured genes, the score of a pair is

    (wᵀ R v) / (wᵀ M v + 0.3):

how much more often than usual similar genes responded to similar perturbations; the 0.3 draws a pair with few
neighbours to zero. One kernel v is the measured gene alone. R is sparse, so a profile R v costs one pass over the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

PERTURBATION_WIDTHS = (0.05, 0.1, 0.2)
GENE_WIDTHS = (0.0, 0.1)
"""τ of the kernels. 0: this gene alone."""
SHRINKAGE = 0.3
KRIGING_WIDTH, KRIGING_GENE_SHARE, KRIGING_NOISE = 0.3, 0.2, 2.5
"""τ of both kernels, β and λ: between those that cross-validation over training perturbations chose for the two kinds
of question in K562 and HepG2 (β .1 to .3, λ 2 to 3)."""
KRIGING_STEPS = 20
STRENGTH_ROWS = 10.0
RATE_PRIOR_ROWS = 2.0
COMPONENTS = 8
"""Leading coordinates of each gene's vector, in the basis of the build."""

SCORES = ("neighbours", "kriging")
"""Of a pair, beside the trees' features: the mean of the neighbour scores, and kriging's."""
FEATURES = (
    *(f"neighbours_{tau_g}_{tau_p}" for tau_g in GENE_WIDTHS for tau_p in PERTURBATION_WIDTHS),
    "gene_rate",
    "cosine",
    "nearest",
    *(f"strength_{tau_p}" for tau_p in PERTURBATION_WIDTHS),
    *(f"perturbed_{number}" for number in range(COMPONENTS)),
    *(f"measured_{number}" for number in range(COMPONENTS)),
)
N_NEIGHBOUR_SCORES = len(PERTURBATION_WIDTHS) * len(GENE_WIDTHS)
FEATURE_DIGITS = 9

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def unit_vectors(vectors: npt.NDArray[np.float32]) -> Floats:
    """Length 1 in double precision; a vector of zeros stays one."""
    double = vectors.astype(np.float64)
    unit: Floats = double / np.maximum(np.linalg.norm(double, axis=1, keepdims=True), 1e-12)
    return unit


def leading_components(unit: Floats) -> Floats:
    """The first coordinates in the basis of the vectors' own second moments, signs canonical."""
    _, basis = np.linalg.eigh(unit.T @ unit)
    leading = basis[:, ::-1][:, :COMPONENTS]
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
    made: Floats = unit @ leading
    return made


@dataclass(frozen=True)
class Rows:
    """Measured pairs of one line: rows of the vector table, and labels 0 or 1; all of one length."""

    perturbation: Ints
    gene: Ints
    label: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.label)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Rows:
        return Rows(self.perturbation[chosen], self.gene[chosen], self.label[chosen])


class Neighbours:
    """What is known of one line from ``rows``. Features are rounded, so that they do not depend on their company."""

    def __init__(self, rows: Rows, unit: Floats, components: Floats, rate: Floats, solved: Floats) -> None:
        """``unit``: gene vectors of length 1. ``components``: per gene its leading coordinates.

        ``solved``: kriging's weight of every row (`krige`).
        ``rate``: per gene the feature ``gene_rate``, not of ``rows`` alone: within a gene it must be constant, or trees
        learn that where the rate without a fold is low, the fold's rows are positive.
        """
        self._unit, self._components, self._gene_rate = unit, components, rate
        self.perturbations, self._row_perturbation = np.unique(rows.perturbation, return_inverse=True)
        self.genes, self._row_gene = np.unique(rows.gene, return_inverse=True)
        self._label = rows.label
        own_rate = smoothed_rate(rows, len(unit))[rows.gene]
        shape = (len(self.perturbations), len(self.genes))
        position = (self._row_perturbation, self._row_gene)
        self._residual = sparse.csr_array((rows.label - own_rate, position), shape)
        self._mask = sparse.csr_array((np.ones(len(rows)), position), shape)
        self._solved = sparse.csr_array((solved, position), shape)

    def features(self, pairs: Rows) -> tuple[Floats, Floats]:
        """pairs × FEATURES, and pairs × SCORES; labels are not read."""
        made, scored = np.empty((len(pairs), len(FEATURES))), np.empty((len(pairs), len(SCORES)))
        genes, of_gene = np.unique(pairs.gene, return_inverse=True)
        profiles, kriged = self._profiles(genes), self._kriging_profiles(genes)
        order = np.argsort(pairs.perturbation, kind="stable")
        starts = np.flatnonzero(np.diff(pairs.perturbation[order])) + 1
        row_residual, row_count = self._residual.sum(axis=1), self._mask.sum(axis=1)
        for rows in np.split(order, starts) if len(order) else ():
            perturbation = int(pairs.perturbation[rows[0]])
            cosine = self._unit[self.perturbations] @ self._unit[perturbation]
            weight = np.exp((cosine[:, None] - 1.0) / np.array(PERTURBATION_WIDTHS))
            scores = [
                (residual[of_gene[rows]] @ weight) / (mask[of_gene[rows]] @ weight + SHRINKAGE)
                for residual, mask in profiles
            ]
            near = np.exp((cosine - 1.0) / KRIGING_WIDTH)
            scored[rows] = np.column_stack([np.hstack(scores).mean(axis=1), kriged[of_gene[rows]] @ near])
            strength = (row_residual @ weight) / (row_count @ weight + STRENGTH_ROWS)
            gene = pairs.gene[rows]
            made[rows] = np.column_stack(
                [
                    *scores,
                    self._gene_rate[gene],
                    self._unit[gene] @ self._unit[perturbation],
                    np.full(len(rows), cosine.max()),
                    np.tile(strength, (len(rows), 1)),
                    np.tile(self._components[perturbation], (len(rows), 1)),
                    self._components[gene],
                ]
            )
        return made.round(FEATURE_DIGITS), scored.round(FEATURE_DIGITS)

    def nearest(self, perturbation: int, gene: int, limit: int) -> list[tuple[int, float, int]]:
        """(perturbed gene, cosine, label) of the most similar perturbations under which ``gene`` was measured."""
        position = int(np.searchsorted(self.genes, gene))
        if position == len(self.genes) or self.genes[position] != gene:
            return []
        rows = np.flatnonzero(self._row_gene == position)
        others = self.perturbations[self._row_perturbation[rows]]
        cosine = self._unit[others] @ self._unit[perturbation]
        chosen = np.argsort(-cosine.round(FEATURE_DIGITS), kind="stable")[:limit]
        return [(int(others[one]), float(cosine[one]), int(self._label[rows[one]])) for one in chosen]

    def _profiles(self, genes: Ints) -> list[tuple[Floats, Floats]]:
        """Per gene kernel R v and M v, each measured genes asked × perturbations."""
        cosine = self._unit[self.genes] @ self._unit[genes].T
        made = []
        for tau in GENE_WIDTHS:
            kernel = np.exp((cosine - 1.0) / tau) if tau else (self.genes[:, None] == genes[None, :]).astype(np.float64)
            residual, mask = (np.ascontiguousarray((matrix @ kernel).T) for matrix in (self._residual, self._mask))
            made.append((residual, mask))
        return made

    def _kriging_profiles(self, genes: Ints) -> Floats:
        """A (same gene + β v), genes asked × perturbations."""
        cosine = self._unit[self.genes] @ self._unit[genes].T
        kernel = KRIGING_GENE_SHARE * np.exp((cosine - 1.0) / KRIGING_WIDTH)
        kernel += self.genes[:, None] == genes[None, :]
        made: Floats = np.ascontiguousarray((self._solved @ kernel).T)
        return made


def krige(rows: Rows, unit: Floats) -> npt.NDArray[np.float32]:
    """Kriging's weight of every row. Single precision: the kernel of 7,000 genes is the largest thing in a build."""
    perturbations, of_row = np.unique(rows.perturbation, return_inverse=True)
    genes, gene_of_row = np.unique(rows.gene, return_inverse=True)
    single = unit.astype(np.float32)
    near = np.exp((single[perturbations] @ single[perturbations].T - 1.0) / np.float32(KRIGING_WIDTH))
    alike = np.exp((single[genes] @ single[genes].T - 1.0) / np.float32(KRIGING_WIDTH))
    alike *= np.float32(KRIGING_GENE_SHARE)
    alike[np.diag_indices(len(genes))] += 1.0
    target = (rows.label - smoothed_rate(rows, len(unit))[rows.gene]).astype(np.float32)

    def covariance(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        sparse_weights = sparse.csr_array((weights, (of_row, gene_of_row)), (len(perturbations), len(genes)))
        spread: npt.NDArray[np.float32] = (near @ (sparse_weights @ alike))[of_row, gene_of_row]
        return spread + np.float32(KRIGING_NOISE) * weights

    weights, rest = np.zeros_like(target), target.copy()
    direction, length = rest.copy(), float(rest @ rest)
    enough = 1e-4 * length
    for _ in range(KRIGING_STEPS):
        if length <= enough:
            break
        moved = covariance(direction)
        step = np.float32(length / float(direction @ moved))
        weights += step * direction
        rest -= step * moved
        shorter = float(rest @ rest)
        direction = rest + np.float32(shorter / length) * direction
        length = shorter
    return weights


def smoothed_rate(rows: Rows, n_genes: int) -> Floats:
    """Per gene of the vector table: (positives + 2 · prior) / (rows + 2); the prior where it was not measured."""
    prior = float(rows.label.mean())
    measured = np.bincount(rows.gene, minlength=n_genes)
    positives = np.bincount(rows.gene, rows.label, n_genes)
    rate: Floats = (positives + RATE_PRIOR_ROWS * prior) / (measured + RATE_PRIOR_ROWS)
    return rate
