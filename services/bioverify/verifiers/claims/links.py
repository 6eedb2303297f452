"""What the networks of the build say of two genes: that they interact, are co-expressed, or which regulates which."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    names: Sequence[str]
    """Of the networks, as evidence calls them."""
    says: Sequence[str]
    """Of each: `settings.Says`."""
    n_genes: int
    pairs: memoryview
    """As in `artifact.LINKS_FILE`, sorted."""
    networks: memoryview
    """Of each pair its network."""

    def find(self, gene: int, other: int, says: str) -> int:
        """The first network that says it; −1 if none does."""
        first, second = (gene, other) if says == "regulates" else sorted((gene, other))
        pair = first * self.n_genes + second
        at = bisect_left(self.pairs, pair)
        while at < len(self.pairs) and self.pairs[at] == pair:
            network: int = self.networks[at]
            if self.says[network] == says:
                return network
            at += 1
        return -1
