"""How a gene may answer a perturbation, as one small number: as tables are read, and as the artifact stores it."""

from __future__ import annotations

DECREASED, UNCHANGED, INCREASED, CHANGED = -1, 0, 1, 2
"""CHANGED: it responds, and in which direction is not known."""
CONTRADICTED, DIRECTION_CONTRADICTED, NOT_MEASURED = 3, 4, 5
"""Of several rows or screens: one saw a change and one did not; both did, in opposite directions; none saw the pair."""
