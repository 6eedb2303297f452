"""The trained nets as they are served: NumPy in double precision, without torch.

Both nets split into what they make of each gene in its role and a cheap step that joins the two: of rbio's net the
first layer is linear in [perturbed; measured], of the two-tower net the towers are. What is made of a gene is kept, so
that a pair costs two gathers and a product of 64 numbers, whatever the width of the vectors. Tests hold it to the torch
modules in `net`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bioverify.core.metrics import sigmoid

BELIEF_DIGITS = 9
"""Beliefs are computed in double precision and rounded, so that they do not depend on the company in a batch."""
MAX_KEPT_GENES = 4096

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Weights = Mapping[str, npt.NDArray[np.float32]]


class ServedNet(Protocol):
    """What one net makes of genes, and of pairs of what it made. Rows of ``vectors`` are ``genes``' own."""

    @abstractmethod
    def perturbed(self, vectors: Floats, genes: Int64s) -> Floats: ...

    @abstractmethod
    def measured(self, vectors: Floats, genes: Int64s) -> Floats: ...

    @abstractmethod
    def join(self, perturbed: Floats, measured: Floats) -> Floats: ...


class ServedRbioNet:
    """Linear(2d, 64)–ReLU–Linear(64, 1) on [perturbed; measured]."""

    def __init__(self, weights: Weights) -> None:
        first, second = weights["layers.0.weight"].astype(np.float64), weights["layers.2.weight"].astype(np.float64)
        dimensions = first.shape[1] // 2
        self._of_perturbed, self._of_measured = first[:, :dimensions].T, first[:, dimensions:].T
        self._first_bias = weights["layers.0.bias"].astype(np.float64)
        self._second, self._second_bias = second[0], float(weights["layers.2.bias"][0])

    def perturbed(self, vectors: Floats, genes: Int64s) -> Floats:
        return vectors @ self._of_perturbed + self._first_bias

    def measured(self, vectors: Floats, genes: Int64s) -> Floats:
        return vectors @ self._of_measured

    def join(self, perturbed: Floats, measured: Floats) -> Floats:
        hidden = perturbed + measured
        logits: Floats = np.maximum(hidden, 0.0, out=hidden) @ self._second + self._second_bias
        return logits


class ServedTwoTowerNet:
    """⟨tower(perturbed), tower(measured) + free vector⟩ / √64 + bias of the measured gene + scalar of the perturbed.

    The two scalars ride along as a last column each.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = {name: one.astype(np.float64) for name, one in weights.items() if name not in ("genes", "free")}
        self._genes = weights["genes"].astype(np.int64)
        # As it is stored: it has a row per gene, and is widened where it is used.
        self._free = weights["free"]

    def perturbed(self, vectors: Floats, genes: Int64s) -> Floats:
        own = self._tower("perturbed", vectors)
        strength = own @ self._weights["strength.weight"].T + self._weights["strength.bias"]
        return np.concatenate([own / np.sqrt(own.shape[1]), strength], axis=1)

    def measured(self, vectors: Floats, genes: Int64s) -> Floats:
        at = np.searchsorted(self._genes, genes).clip(max=len(self._genes) - 1)
        parameter = np.where(self._genes[at] == genes, at, len(self._genes))
        own = self._tower("measured", vectors) + self._free[parameter]
        return np.concatenate([own, self._weights["bias"][parameter, None]], axis=1)

    def join(self, perturbed: Floats, measured: Floats) -> Floats:
        products = np.einsum("ij,ij->i", perturbed[:, :-1], measured[:, :-1])
        logits: Floats = products + perturbed[:, -1] + measured[:, -1]
        return logits

    def _tower(self, role: str, vectors: Floats) -> Floats:
        hidden = vectors @ self._weights[f"{role}.1.weight"].T + self._weights[f"{role}.1.bias"]
        rows: Floats = np.maximum(hidden, 0.0) @ self._weights[f"{role}.4.weight"].T + self._weights[f"{role}.4.bias"]
        return rows


class _Kept:
    """What the nets make of a gene in one role, once. Everything is forgotten when more genes come than may be kept."""

    def __init__(self, nets: Sequence[ServedNet], vectors: npt.NDArray[np.float32], role: str) -> None:
        self._make = [getattr(net, role) for net in nets]
        self._vectors = vectors
        self._place = np.full(len(vectors), -1, np.int64)
        self._rows = np.empty((0, 0, 0))
        self._n_kept = 0

    def __call__(self, genes: Int64s) -> Floats:
        """``genes`` × nets × width."""
        missing = np.unique(genes[self._place[genes] < 0])
        if self._n_kept + len(missing) > MAX_KEPT_GENES:
            self._place[:] = -1
            self._n_kept = 0
            missing = np.unique(genes)
            if len(missing) > MAX_KEPT_GENES:
                return self._made(missing)[np.searchsorted(missing, genes)]
        if len(missing):
            made = self._made(missing)
            if not self._rows.size:
                self._rows = np.empty((MAX_KEPT_GENES, *made.shape[1:]))
            places = np.arange(self._n_kept, self._n_kept + len(missing))
            self._rows[places] = made
            self._place[missing] = places
            self._n_kept += len(missing)
        return self._rows[self._place[genes]]

    def _made(self, genes: Int64s) -> Floats:
        own = self._vectors[genes].astype(np.float64)
        return np.stack([make(own, genes) for make in self._make], axis=1)


class LineNets:
    """The nets of one cell line and kind of question, and their calibration.

    Each net was trained without one fold of perturbations. A perturbation of a fold is asked of the one net that has
    not seen it, any other of all nets, whose logits are averaged: no belief is ever a memory of its own label.
    """

    def __init__(
        self,
        nets: Sequence[ServedNet],
        vectors: npt.NDArray[np.float32],
        fold: npt.NDArray[np.int8],
        has_rows: npt.NDArray[np.bool_],
        rates: npt.NDArray[np.float32],
        scale: float,
        offset: float,
    ) -> None:
        """``vectors``: genes × d. ``fold``: per gene the net that was trained without it, −1 for all.

        ``has_rows``: `rows_outside_folds` of what the nets were trained on. ``rates``: of each gene in the line, per
        fold without it and a last row for none. Belief = σ(scale · logit + offset).
        """
        self.fold, self.has_rows, self._rates = fold, has_rows, rates
        self._nets, self._scale, self._offset = nets, scale, offset
        self._perturbed, self._measured = (_Kept(nets, vectors, role) for role in ("perturbed", "measured"))

    def beliefs(self, perturbations: Int64s, genes: Int64s) -> list[float]:
        """Two arrays of rows of one length → beliefs in (0, 1)."""
        left, right = self._perturbed(perturbations), self._measured(genes)
        logits = np.stack([net.join(left[:, at], right[:, at]) for at, net in enumerate(self._nets)])
        fold = self.fold[perturbations].astype(np.int64)
        own = logits[fold.clip(min=0), np.arange(len(fold))]
        chosen = np.where(fold >= 0, own, logits.mean(axis=0))
        beliefs: list[float] = np.round(sigmoid(self._scale * chosen + self._offset), BELIEF_DIGITS).tolist()
        return beliefs

    def rates(self, perturbations: Int64s, genes: Int64s) -> Floats:
        """How often each gene responds, by the rows of the line that its net has seen; NaN without any."""
        rates: Floats = self._rates[self.fold[perturbations], genes].astype(np.float64)
        return rates
