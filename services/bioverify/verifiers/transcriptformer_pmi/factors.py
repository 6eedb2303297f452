"""A symmetric gene × gene matrix that is kept as one short vector per gene. Apart from the build: services open it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bioverify.verifiers.transcriptformer_pmi.scaling import Halves

Int64s = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]


class Factors:
    """Read like the array that it stands for: some rows whole, or pairs of rows and columns; in half precision."""

    def __init__(self, vectors: Singles) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, place: slice | tuple[Int64s, Int64s]) -> Halves:
        if isinstance(place, slice):
            rows: Halves = (self._vectors[place] @ self._vectors.T).astype(np.float16)
            return rows
        first, second = (self._vectors[one].astype(np.float64) for one in place)
        # Multiplied first: the sum is then the same whichever gene was named first.
        values: Halves = (first * second).sum(axis=-1).astype(np.float16)
        return values
