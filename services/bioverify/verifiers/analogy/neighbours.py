"""Kernel-weighted neighbours over perturbations and genes.

With R = label − smoothed rate of the measured gene over the measured pairs of one cell line, M their mask, and the
kernels w = exp((cos − 1)/τ) between perturbed and v between measured genes, the score of a pair is

    (wᵀ R v) / (wᵀ M v + 0.3):

how much more often than usual similar genes responded to similar perturbations; the 0.3 draws a pair with few
neighbours to zero. One kernel v is the measured gene alone. R is sparse, so a profile R v costs one pass over the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from bioverify.core.knockdowns import smoothed_rates
from bioverify.verifiers.analogy.elsewhere import TOLD, Elsewhere
from bioverify.verifiers.analogy.kept import Floats, Ints, Kept, Rows

PERTURBATION_WIDTHS = (0.05, 0.1, 0.2)
GENE_WIDTH = 0.1
"""τ of the kernels. The other kernel between genes, named 0.0, is this gene alone."""
SHRINKAGE = 0.3
KRIGING_WIDTH, KRIGING_GENE_SHARE, KRIGING_NOISE = 0.3, 0.2, 2.5
"""τ of both kernels, β and λ: between those that cross-validation over training perturbations chose for the two kinds
of question in K562 and HepG2 (β .1 to .3, λ 2 to 3)."""
KRIGING_STEPS = 20
STRENGTH_ROWS = 10.0
COMPONENTS = 8
"""Leading coordinates of each gene's vector, in the basis of the build."""

SCORES = ("neighbours", "kriging")
"""Of a pair: the mean of the neighbour scores, and kriging's."""
FEATURES = (
    *(f"neighbours_{tau_g}_{tau_p}" for tau_g in (0.0, GENE_WIDTH) for tau_p in PERTURBATION_WIDTHS),
    "gene_rate",
    "cosine",
    "nearest",
    *(f"strength_{tau_p}" for tau_p in PERTURBATION_WIDTHS),
    *(f"perturbed_{number}" for number in range(COMPONENTS)),
    *(f"measured_{number}" for number in range(COMPONENTS)),
    "kriging",
)
GENE_RATE = FEATURES.index("gene_rate")


def names_of_features(n_others: int) -> list[str]:
    """FEATURES, and what each other line tells."""
    return [*FEATURES, *(f"{told}_elsewhere_{number}" for number in range(n_others) for told in TOLD)]


WIDTHS = (*PERTURBATION_WIDTHS, KRIGING_WIDTH)
N_PROFILES = 5
FEATURE_DIGITS = 9
CHUNK = 256
"""Pairs at a time: what they need beside what is kept is at most some 30 MB."""


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


class Neighbours:
    """What is known of one line. A pair whose perturbation has a fold is answered without the rows of this fold.

    The cost of a pair is its two profiles: kernel weights of the perturbation over all others, and R v, M v and A v of
    the gene, which is a pass over the rows. Both are kept (`Kept`), so that a pair of known genes is one small product.
    Features are rounded, so that they do not depend on their company.
    """

    def __init__(
        self,
        rows: Rows,
        fold: npt.NDArray[np.int8],
        unit: Floats,
        components: Floats,
        solved: npt.NDArray[np.float32],
        kept: Kept,
        others: Sequence[Rows] = (),
    ) -> None:
        """``fold``: per gene of the vector table, −1 for no training perturbation. ``unit``: gene vectors of length 1.

        ``components``: per gene its leading coordinates. ``solved``: kriging's weights (`krige`), one row per fold
        without it and a last one with all rows; zero outside. ``others``: other lines' rows, one line each.
        """
        self._elsewhere = [Elsewhere(one, fold, unit, kept) for one in others]
        self._fold, self._unit, self._components, self._kept = fold, unit, components, kept
        # Of all rows: within a gene it must be constant, or trees learn that where the rate without a fold is low, the
        # fold's rows are positive.
        self.rate = smoothed_rates(rows.gene, rows.label, len(unit))
        self._perturbations, row_perturbation = np.unique(rows.perturbation, return_inverse=True)
        self._genes, row_gene = np.unique(rows.gene, return_inverse=True)
        self._of_perturbations, self._of_genes = unit[self._perturbations], unit[self._genes]
        shape = (len(self._perturbations), len(self._genes))
        order = np.lexsort((row_gene, row_perturbation))
        of_row = fold[rows.perturbation]
        position = row_perturbation, row_gene
        self._outside = {
            one: _Outside(rows, fold, order[of_row[order] != one] if one >= 0 else order, position, shape, solved[one])
            for one in (*range(len(solved) - 1), -1)
        }
        # For evidence: each gene's rows side by side.
        by_gene = np.argsort(row_gene, kind="stable")
        self._starts = np.searchsorted(row_gene[by_gene], np.arange(len(self._genes) + 1))
        self._row_perturbation, self._row_label = row_perturbation[by_gene], rows.label[by_gene]

    def features(self, perturbations: Ints, genes: Ints) -> tuple[Floats, Floats]:
        """Of each pair what trees read (`names_of_features`), and SCORES."""
        width = len(FEATURES) + len(TOLD) * len(self._elsewhere)
        made, scored = np.empty((len(genes), width)), np.empty((len(genes), len(SCORES)))
        # Pairs of one gene side by side, so that what does not fit into memory is not made twice.
        order = np.argsort(genes, kind="stable")
        for start in range(0, len(order), CHUNK):
            chosen = order[start : start + CHUNK]
            made[chosen], scored[chosen] = self._features(perturbations[chosen], genes[chosen])
        return made.round(FEATURE_DIGITS), scored.round(FEATURE_DIGITS)

    def _features(self, perturbations: Ints, genes: Ints) -> tuple[Floats, Floats]:
        weights = self._weights(perturbations)
        profiles = self._profiles(self._fold[perturbations].astype(np.int64), genes)
        sums = np.empty((len(genes), N_PROFILES, len(WIDTHS)))
        for own, weight, profile in zip(sums, weights, profiles, strict=True):
            np.dot(profile, weight.kernels.T, out=own)
        of_widths = sums[:, :, : len(PERTURBATION_WIDTHS)]
        scores = (of_widths[:, 0:4:2] / (of_widths[:, 1:4:2] + SHRINKAGE)).reshape(len(genes), -1)
        made = np.column_stack(
            [
                scores,
                self.rate[genes],
                np.einsum("ij,ij->i", self._unit[genes], self._unit[perturbations]),
                np.stack([weight.strength for weight in weights]),
                self._components[perturbations],
                self._components[genes],
                sums[:, -1, -1],
                *(one.features(perturbations, genes) for one in self._elsewhere),
            ]
        )
        return made, np.column_stack([scores.mean(axis=1), sums[:, -1, -1]])

    def _weights(self, perturbations: Ints) -> list[_Weights]:
        """Of each pair's perturbation."""
        asked, of_pair = np.unique(perturbations, return_inverse=True)
        known = [self._kept.get((id(self), row)) for row in asked.tolist()]
        missing = np.flatnonzero([one is None for one in known])
        if len(missing):
            cosines = self._unit[asked[missing]] @ self._of_perturbations.T
            folds = self._fold[asked[missing]]
            for fold in np.unique(folds).tolist():
                outside, chosen = self._outside[fold], missing[folds == fold]
                cosine = cosines[folds == fold][:, outside.perturbations]
                narrow = _kernels(cosine, PERTURBATION_WIDTHS)
                kernels = np.stack([*narrow, *_kernels(cosine, (KRIGING_WIDTH,))], axis=1)
                of_widths = kernels[:, :-1]
                strength = (of_widths @ outside.residual_sum) / (of_widths @ outside.count + STRENGTH_ROWS)
                told = np.column_stack([cosine.max(axis=1), strength])
                for row, at in enumerate(chosen.tolist()):
                    # Copied, or a single one that is kept would keep all that were made with it.
                    known[at] = _Weights(cosine[row].copy(), kernels[row].copy(), told[row].copy())
                    self._kept.put((id(self), int(asked[at])), known[at], kernels[row].nbytes + cosine[row].nbytes)
        return [known[at] for at in of_pair.tolist()]

    def _profiles(self, folds: Ints, genes: Ints) -> list[Floats]:
        """Of each pair's gene outside of its fold: R v and M v of this gene alone and of genes like it, and A v."""
        codes, of_pair = np.unique((folds + 1) * len(self._unit) + genes, return_inverse=True)
        fold, gene = codes // len(self._unit) - 1, codes % len(self._unit)
        keys = [(id(self), *key) for key in zip(fold.tolist(), gene.tolist(), strict=True)]
        known = [self._kept.get(key) for key in keys]
        missing = np.flatnonzero([one is None for one in known])
        if len(missing):
            wide, narrow = self._gene_kernels(gene[missing])
            for one in np.unique(fold[missing]).tolist():
                chosen = np.flatnonzero(fold[missing] == one)
                made = self._made(self._outside[one], gene[missing[chosen]], wide[:, chosen], narrow[:, chosen])
                for at, profile in zip(missing[chosen].tolist(), made, strict=True):
                    known[at] = profile
                    self._kept.put(keys[at], profile, profile.nbytes)
        return [known[at] for at in of_pair.tolist()]

    def _gene_kernels(self, genes: Ints) -> tuple[Floats, Floats]:
        """Measured genes × ``genes``: (same gene + β v) of kriging, and v of the neighbours."""
        wide, narrow = _kernels(self._of_genes @ self._unit[genes].T, (KRIGING_WIDTH, GENE_WIDTH))
        wide *= KRIGING_GENE_SHARE
        at = np.searchsorted(self._genes, genes).clip(max=len(self._genes) - 1)
        is_measured = np.flatnonzero(self._genes[at] == genes)
        wide[at[is_measured], is_measured] += 1.0
        return wide, narrow

    def _made(self, outside: _Outside, genes: Ints, wide: Floats, narrow: Floats) -> list[Floats]:
        near = outside.residual @ narrow, outside.mask @ narrow, outside.solved @ wide
        profiles = []
        for column, gene in enumerate(genes.tolist()):
            profile = np.zeros((N_PROFILES, len(outside.perturbations)))
            measured, label = self._rows_of(outside, gene)
            np.add.at(profile[0], measured, label - outside.rate[gene])
            np.add.at(profile[1], measured, 1.0)
            for row, matrix in enumerate(near, 2):
                profile[row] = matrix[:, column]
            profiles.append(profile)
        return profiles

    def _rows_of(self, outside: _Outside, gene: int) -> tuple[Ints, npt.NDArray[np.int8]]:
        """Under which of the perturbations outside the gene was measured, and the labels."""
        at = int(np.searchsorted(self._genes, gene))
        if at == len(self._genes) or self._genes[at] != gene:
            return np.empty(0, np.int64), np.empty(0, np.int8)
        rows = slice(self._starts[at], self._starts[at + 1])
        place = outside.place[self._row_perturbation[rows]]
        return place[place >= 0], self._row_label[rows][place >= 0]

    def analogues(self, perturbation: int, gene: int) -> Analogues:
        """What evidence tells: how the gene responded under other perturbations, the most similar first."""
        outside = self._outside[int(self._fold[perturbation])]
        measured, label = self._rows_of(outside, gene)
        known = self._kept.get((id(self), perturbation)) or self._weights(np.array([perturbation]))[0]
        cosine, weights = known.cosine[measured], known.kernels[: len(PERTURBATION_WIDTHS), measured]
        order = np.argsort(-cosine.round(FEATURE_DIGITS), kind="stable")
        usual = float(outside.rate[gene])
        shares = (weights @ label + SHRINKAGE * usual) / (weights.sum(axis=1) + SHRINKAGE)
        others = self._perturbations[outside.perturbations[measured[order]]]
        return Analogues(others.tolist(), cosine[order].tolist(), float(shares.mean()))


class Analogues(NamedTuple):
    """``perturbations`` under which the gene was measured, the most similar first, and their ``cosines``.

    ``share``: in how many the gene responded, each weighted as the neighbour score weights it, and the rate outside the
    perturbation's fold with the weight that the score has for nothing; the mean over the widths.
    """

    perturbations: Sequence[int]
    cosines: Sequence[float]
    share: float


class _Weights(NamedTuple):
    """``kernels``: WIDTHS × perturbations. ``strength``: the nearest cosine, and the predicted strength per width."""

    cosine: Floats
    kernels: Floats
    strength: Floats


class _Outside:
    """The rows outside of one fold, as matrices of their perturbations × all genes."""

    def __init__(
        self,
        rows: Rows,
        fold: npt.NDArray[np.int8],
        kept: Ints,
        position: tuple[Ints, Ints],
        shape: tuple[int, int],
        solved: npt.NDArray[np.float32],
    ) -> None:
        """``kept``: which rows, by perturbation. ``position``: of all rows, in all perturbations and genes."""
        self.perturbations, of_row = np.unique(position[0][kept], return_inverse=True)
        self.place = np.full(shape[0], -1, np.int64)
        self.place[self.perturbations] = np.arange(len(self.perturbations))
        chosen = Rows(rows.perturbation[kept], rows.gene[kept], rows.label[kept])
        self.rate = smoothed_rates(chosen.gene, chosen.label, len(fold))
        starts = np.searchsorted(of_row, np.arange(len(self.perturbations) + 1)).astype(np.int32)
        columns = position[1][kept].astype(np.int32)
        shape = (len(self.perturbations), shape[1])
        self.residual, self.mask, self.solved = (
            sparse.csr_array((values, columns, starts), shape)
            for values in (
                chosen.label - self.rate[chosen.gene],
                np.ones(len(kept)),
                solved[kept].astype(np.float64),
            )
        )
        self.residual_sum, self.count = self.residual.sum(axis=1), self.mask.sum(axis=1)


def _kernels(cosine: Floats, widths: Sequence[float]) -> list[Floats]:
    """exp((cosine − 1)/τ) for each τ, of which the widest is a multiple: one exponential, then products."""
    widest = np.exp((cosine - 1.0) / max(widths))
    return [reduce(np.multiply, [widest] * round(max(widths) / tau)) for tau in widths]


def krige(rows: Rows, unit: Floats) -> npt.NDArray[np.float32]:
    """Kriging's weight of every row. Single precision: the kernel of 7,000 genes is the largest thing in a build."""
    perturbations, of_row = np.unique(rows.perturbation, return_inverse=True)
    genes, gene_of_row = np.unique(rows.gene, return_inverse=True)
    single = unit.astype(np.float32)
    near = np.exp((single[perturbations] @ single[perturbations].T - 1.0) / np.float32(KRIGING_WIDTH))
    alike = np.exp((single[genes] @ single[genes].T - 1.0) / np.float32(KRIGING_WIDTH))
    alike *= np.float32(KRIGING_GENE_SHARE)
    alike[np.diag_indices(len(genes))] += 1.0
    target = (rows.label - smoothed_rates(rows.gene, rows.label, len(unit))[rows.gene]).astype(np.float32)

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
