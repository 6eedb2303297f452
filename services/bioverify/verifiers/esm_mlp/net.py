"""The two nets, as plain torch modules that are stored as safetensors.

Both map (perturbed gene, measured gene) to the logit of "yes". ``RbioNet`` is the published one, a layer over both
vectors side by side; a perturbation's effect on one gene says little about the next. ``TwoTowerNet`` brings each vector
into a small space of its own role and takes the inner product, so what was learned of a gene holds for every
perturbation; what a gene's vector does not tell, its own free vector and bias learn from the training rows.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy import sparse
from torch import Tensor, nn

HIDDEN_UNITS = 64
TOWER_UNITS, TOWER_DIMENSIONS = 256, 64
INPUT_DROPOUT, HIDDEN_DROPOUT = 0.3, 0.6
_PIECE = 8192


class RbioNet(nn.Module):
    """Linear(2d, 64)–ReLU–Linear(64, 1) on [perturbed; measured]."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * dimensions, HIDDEN_UNITS), nn.ReLU(), nn.Linear(HIDDEN_UNITS, 1))

    def forward(self, vectors: Tensor, perturbation: Tensor, measured: Tensor) -> Tensor:
        """``vectors``: genes × d; two index arrays of one length → logits of that length."""
        logits: Tensor = self.layers(torch.cat([vectors[perturbation], vectors[measured]], dim=1)).squeeze(1)
        return logits


class TwoTowerNet(nn.Module):
    """⟨tower(perturbed), tower(measured) + free vector⟩ / √64 + bias of the measured gene + scalar of the perturbed.

    Genes that no training row measured have a free vector of zero and the mean bias.
    """

    def __init__(self, dimensions: int, gene_of_parameter: Tensor, bias: Tensor) -> None:
        """``gene_of_parameter``: sorted rows of ``vectors`` with parameters. ``bias``: their logits, and one more."""
        super().__init__()
        self.perturbed = _tower(dimensions)
        self.measured = _tower(dimensions)
        self.strength = nn.Linear(TOWER_DIMENSIONS, 1)
        self.register_buffer("genes", gene_of_parameter)
        self.free = nn.Parameter(torch.zeros(len(gene_of_parameter) + 1, TOWER_DIMENSIONS))
        self.bias = nn.Parameter(bias)

    def forward(self, vectors: Tensor, perturbation: Tensor, measured: Tensor) -> Tensor:
        """``vectors``: genes × d; two index arrays of one length → logits of that length."""
        return self.of_unique(
            vectors, torch.unique(perturbation, return_inverse=True), torch.unique(measured, return_inverse=True)
        )

    def of_unique(
        self, vectors: Tensor, perturbation: tuple[Tensor, Tensor], measured: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The same of (distinct genes, index into them per pair): training finds them once, not at every step."""
        perturbed = self.perturbed(vectors[perturbation[0]])
        parameter = self._parameter(measured[0])
        gene = self.measured(vectors[measured[0]]) + self.free[parameter]
        products: Tensor = _Products.apply(perturbed, gene, perturbation[1], measured[1])  # type: ignore[no-untyped-call]
        strength = self.strength(perturbed).squeeze(1).index_select(0, perturbation[1])
        bias = self.bias[parameter].index_select(0, measured[1])
        logits: Tensor = products / TOWER_DIMENSIONS**0.5 + strength + bias
        return logits

    def _parameter(self, gene: Tensor) -> Tensor:
        genes: Tensor = self.get_buffer("genes")
        position = torch.searchsorted(genes, gene).clamp(max=len(genes) - 1)
        return torch.where(genes[position] == gene, position, len(genes))


class _Dropout(nn.Module):
    """As `nn.Dropout`, by 16 random bits a value: torch's own draws take more than the rest of a training step."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        is_kept = bits[: values.numel()].view_as(values) >= round(self.share * 2**16) - 2**15
        return values * is_kept.to(values.dtype).div_(1.0 - self.share)


class _Products(torch.autograd.Function):
    """⟨left[i], right[j]⟩ of each pair (i, j).

    A screen measures one or two in a hundred of all pairs: with a product of all with all a training step takes half as
    long again.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, i: Tensor, j: Tensor) -> Tensor:
        ctx.save_for_backward(left, right, i, j)
        # A piece at a time stays in the processor's cache.
        pieces = zip(torch.split(i, _PIECE), torch.split(j, _PIECE), strict=True)
        return torch.cat([(left.index_select(0, a) * right.index_select(0, b)).sum(1) for a, b in pieces])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        left, right, i, j = ctx.saved_tensors
        shape = len(left), len(right)
        weights = sparse.csr_array((gradients[0].numpy(), (i.numpy(), j.numpy())), shape)
        of_left, of_right = weights @ right.detach().numpy(), weights.T @ left.detach().numpy()
        return torch.from_numpy(of_left), torch.from_numpy(of_right), None, None


def _tower(dimensions: int) -> nn.Sequential:
    return nn.Sequential(
        _Dropout(INPUT_DROPOUT),
        nn.Linear(dimensions, TOWER_UNITS),
        nn.ReLU(),
        _Dropout(HIDDEN_DROPOUT),
        nn.Linear(TOWER_UNITS, TOWER_DIMENSIONS),
    )
