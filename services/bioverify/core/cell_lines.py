"""The cell lines that were screened, as files and as people write them."""

from __future__ import annotations

CELL_LINES = ("k562", "rpe1", "hepg2", "jurkat")
CELL_LINE_NAMES = {"k562": "K562", "rpe1": "RPE1", "hepg2": "HepG2", "jurkat": "Jurkat"}


def line_name(line: str) -> str:
    """As people write it; a line of the user's own as it is."""
    return CELL_LINE_NAMES.get(line, line)
