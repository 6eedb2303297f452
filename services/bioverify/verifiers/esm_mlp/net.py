"""The two nets, as plain torch modules that are stored as safetensors.

Both map (perturbed gene, measured gene) to the logit of "yes". ``RbioNet`` is the published one, a layer over both
vectors side by side; a perturbation's effect on one gene says little about the next. ``TwoTowerNet`` brings each vector
into a small space of its own role and takes the inner product, so what was learned of a gene holds for every
perturbation; what a gene's vector does not tell, its own free vector and bias learn from the training rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN_UNITS = 64
TOWER_UNITS, TOWER_DIMENSIONS = 256, 64
INPUT_DROPOUT, HIDDEN_DROPOUT = 0.3, 0.6


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
        # One matrix product over all pairs is cheaper than a gather of as many vectors as there are rows.
        pairs = perturbed @ gene.T / TOWER_DIMENSIONS**0.5 + self.strength(perturbed) + self.bias[parameter]
        logits: Tensor = pairs.flatten().index_select(0, perturbation[1] * len(gene) + measured[1])
        return logits

    def _parameter(self, gene: Tensor) -> Tensor:
        genes: Tensor = self.get_buffer("genes")
        position = torch.searchsorted(genes, gene).clamp(max=len(genes) - 1)
        return torch.where(genes[position] == gene, position, len(genes))


def _tower(dimensions: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(INPUT_DROPOUT),
        nn.Linear(dimensions, TOWER_UNITS),
        nn.ReLU(),
        nn.Dropout(HIDDEN_DROPOUT),
        nn.Linear(TOWER_UNITS, TOWER_DIMENSIONS),
    )
