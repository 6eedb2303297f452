"""What the ``experimental`` artifact is called, and its files. Apart from the build: serving needs no pyarrow."""

from __future__ import annotations

from urllib.parse import quote

from bioverify.core.tasks import TaskKind

NAME = "experimental"
SYMBOLS_FILE = "symbols.arrows"
SCREENS_FILE = "screens.json"
PERTURBQA, GENE_SETS = "perturbqa", "perturbqa-sets"
"""What the build calls PerturbQA's screens."""
KINDS = (TaskKind.DIFFERENTIAL_EXPRESSION, TaskKind.DIRECTION_OF_CHANGE)


def pairs_file(screen: str, line: str) -> str:
    return f"{screen}.{quote(line, safe='')}.pairs.npy"


def responses_file(screen: str, line: str) -> str:
    return f"{screen}.{quote(line, safe='')}.responses.npy"


def contradictions_file(screen: str, line: str) -> str:
    return f"{screen}.{quote(line, safe='')}.contradictions.npy"
