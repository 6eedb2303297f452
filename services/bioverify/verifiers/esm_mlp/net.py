"""rbio's net, as a plain torch module, and its weights as safetensors."""

from __future__ import annotations

import torch

HIDDEN_UNITS = 64


def make_net(dimensions: int) -> torch.nn.Sequential:
    """[perturbed; measured] (batch × 2·dimensions) → logit of "yes" (batch × 1)."""
    return torch.nn.Sequential(
        torch.nn.Linear(2 * dimensions, HIDDEN_UNITS), torch.nn.ReLU(), torch.nn.Linear(HIDDEN_UNITS, 1)
    )
