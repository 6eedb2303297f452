"""Trains rbio's classifier: Linear(2d, 64)–ReLU–Linear(64, 1) on [perturbed; measured], logits, class-balanced batches.

One thread and one seed per net, so the same rows give the same weights. Batches are larger and steps fewer than in the
published recipe (batches of 32, 30 epochs), which brings all nets to about a minute on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bioverify.verifiers.esm_mlp.net import HIDDEN_UNITS, make_net

BATCH_ROWS = 512
STEPS = 800
LEARNING_RATE = 2e-3
SEED = 20250818
_LOGIT_ROWS = 8192

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


def train(rows: Rows, vectors: npt.NDArray[np.float32], *, steps: int = STEPS, seed: int = SEED) -> torch.nn.Sequential:
    """A trained net in single precision. ``rows`` must hold both labels."""
    with _one_thread():
        torch.manual_seed(seed)
        random = np.random.default_rng(seed)
        table = torch.from_numpy(vectors)
        net = make_net(vectors.shape[1])
        optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
        loss_of = torch.nn.BCEWithLogitsLoss()
        by_label = [np.flatnonzero(rows.label == label) for label in (0, 1)]
        labels = torch.cat([torch.zeros(BATCH_ROWS // 2), torch.ones(BATCH_ROWS // 2)])
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * (1.0 - step / steps)
            chosen = np.concatenate([random.choice(indices, BATCH_ROWS // 2) for indices in by_label])
            pairs = torch.cat([table[rows.perturbation[chosen]], table[rows.measured_gene[chosen]]], dim=1)
            loss = loss_of(net(pairs).squeeze(1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net.eval()


def logits(net: torch.nn.Sequential, rows: Rows, vectors: npt.NDArray[np.float32]) -> Floats:
    with _one_thread(), torch.inference_mode():
        table = torch.from_numpy(vectors)
        parts = []
        for start in range(0, len(rows), _LOGIT_ROWS):
            chunk = slice(start, start + _LOGIT_ROWS)
            pairs = torch.cat([table[rows.perturbation[chunk]], table[rows.measured_gene[chunk]]], dim=1)
            parts.append(net(pairs).squeeze(1))
        scores: Floats = torch.cat(parts).double().numpy()
        return scores


def auc_per_gene(rows: Rows, scores: Floats) -> tuple[float, int]:
    """PerturbQA's metric: ROC-AUC per measured gene, unweighted mean over genes with both labels, and their number.

    NaN without such a gene. AUC is the share of (positive, negative) pairs in order, ties counting one half.
    """
    order = np.lexsort((scores, rows.measured_gene))
    genes, ordered, labels = rows.measured_gene[order], scores[order], rows.label[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, genes[1:] != genes[:-1]])
    sizes = np.diff(np.r_[starts, len(genes)])
    tie_starts = np.flatnonzero(np.r_[True, (genes[1:] != genes[:-1]) | (ordered[1:] != ordered[:-1])])
    tie_sizes = np.diff(np.r_[tie_starts, len(genes)])
    mean_position = np.repeat(tie_starts + (tie_sizes - 1) / 2.0, tie_sizes)
    rank = mean_position - np.repeat(starts, sizes) + 1.0
    positives = np.add.reduceat(labels, starts)
    negatives = sizes - positives
    rank_sums = np.add.reduceat(rank * labels, starts)
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan"), 0
    auc = (rank_sums[both] - positives[both] * (positives[both] + 1) / 2) / (positives[both] * negatives[both])
    return float(auc.mean()), int(both.sum())


@contextmanager
def _one_thread() -> Iterator[None]:
    # Sums in another order give other weights; and two spinning threads cost more than they bring at this size.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


PARAMETERS: dict[str, str | int | float | bool | list[str] | dict[str, str]] = {
    "hidden_units": HIDDEN_UNITS,
    "batch_rows": BATCH_ROWS,
    "learning_rate": LEARNING_RATE,
    "learning_rate_schedule": "linear to 0",
    "optimizer": "Adam",
    "loss": "binary cross-entropy, classes balanced in every batch",
    "seed": SEED,
}
