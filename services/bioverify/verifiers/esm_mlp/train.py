"""Trains the nets: rbio's as published, the two-tower net in sixty steps over all rows at once.

rbio: Adam 1e-3 on batches of 32, half of them positive; an epoch draws as many rows as there are. Two towers: AdamW
3e-3 with weight decay .1, every step over all rows; gene biases start at the logit of the gene's smoothed rate. One
thread and one seed per net, so the same rows give the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bioverify.artifacts.vectors import Vectors
from bioverify.core.knockdowns import smoothed_rates
from bioverify.verifiers.esm_mlp.net import RbioNet, TwoTowerNet
from bioverify.verifiers.esm_mlp.settings import SEED

RBIO_BATCH_ROWS, RBIO_LEARNING_RATE = 32, 1e-3
TWO_TOWER_LEARNING_RATE, TWO_TOWER_WEIGHT_DECAY = 3e-3, 0.1
_LOGIT_ROWS = 65536

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Training or test rows: indices into the vector table, and labels 0 or 1; all of one length."""

    perturbation: Int64s
    measured_gene: Int64s
    label: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.label)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Rows:
        return Rows(self.perturbation[chosen], self.measured_gene[chosen], self.label[chosen])


def train_rbio(rows: Rows, vectors: Vectors, *, epochs: float, seed: int = SEED) -> RbioNet:
    """rbio's net. ``rows`` must hold both labels. ``epochs``: 30 as published; a fraction is a part of one."""
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random = np.random.default_rng(seed)
        table = torch.from_numpy(vectors)
        net = RbioNet(vectors.shape[1])
        optimizer = torch.optim.Adam(net.parameters(), lr=RBIO_LEARNING_RATE)
        loss_of = torch.nn.BCEWithLogitsLoss()
        by_label = [np.flatnonzero(rows.label == label) for label in (0, 1)]
        half = RBIO_BATCH_ROWS // 2
        labels = torch.cat([torch.zeros(half), torch.ones(half)])
        for _ in range(max(1, round(epochs * len(rows) / RBIO_BATCH_ROWS))):
            chosen = np.concatenate([indices[random.integers(0, len(indices), half)] for indices in by_label])
            perturbation, measured = (torch.from_numpy(c[chosen]) for c in (rows.perturbation, rows.measured_gene))
            loss = loss_of(net(table, perturbation, measured), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net.eval()


def train_two_tower(rows: Rows, vectors: Vectors, *, steps: int, seed: int = SEED) -> TwoTowerNet:
    """The two-tower net. ``rows`` must hold both labels."""
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        genes, of_gene = np.unique(rows.measured_gene, return_inverse=True)
        # One more, without rows: the prior.
        rate = smoothed_rates(of_gene, rows.label, len(genes) + 1)
        bias = torch.from_numpy(np.log(rate / (1.0 - rate)).astype(np.float32))
        net = TwoTowerNet(vectors.shape[1], torch.from_numpy(genes), bias)
        table, label = torch.from_numpy(vectors), torch.from_numpy(rows.label.astype(np.float32))
        perturbation, measured = (
            torch.unique(torch.from_numpy(one), return_inverse=True) for one in (rows.perturbation, rows.measured_gene)
        )
        optimizer = torch.optim.AdamW(net.parameters(), lr=TWO_TOWER_LEARNING_RATE, weight_decay=TWO_TOWER_WEIGHT_DECAY)
        loss_of = torch.nn.BCEWithLogitsLoss()
        for _ in range(steps):
            loss = loss_of(net.of_unique(table, perturbation, measured), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net.eval()


def logits(net: RbioNet | TwoTowerNet, rows: Rows, vectors: Vectors) -> Floats:
    with _one_thread(), torch.inference_mode():
        table = torch.from_numpy(vectors)
        parts = []
        for start in range(0, len(rows), _LOGIT_ROWS):
            chunk = slice(start, start + _LOGIT_ROWS)
            perturbation, measured = rows.perturbation[chunk], rows.measured_gene[chunk]
            parts.append(net(table, torch.from_numpy(perturbation), torch.from_numpy(measured)))
        scores: Floats = torch.cat(parts).double().numpy() if parts else np.zeros(0)
        return scores


@contextmanager
def _one_thread() -> Iterator[None]:
    # Sums in another order give other weights; and two spinning threads cost more than they bring at this size.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
