"""What all parts of analogy hold: measured pairs, and what was made lately."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


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


class Kept:
    """What was made lately, within ``size_bytes``; what was not asked for longest is forgotten first."""

    def __init__(self, size_bytes: int) -> None:
        self._free = size_bytes
        self._made: OrderedDict[tuple[int, ...], tuple[Any, int]] = OrderedDict()

    def get(self, key: tuple[int, ...]) -> Any:
        found = self._made.get(key)
        if found is None:
            return None
        self._made.move_to_end(key)
        return found[0]

    def put(self, key: tuple[int, ...], made: Any, size_bytes: int) -> None:
        self._made[key] = made, size_bytes
        self._free -= size_bytes
        while self._free < 0:
            self._free += self._made.popitem(last=False)[1][1]
