"""The one error of this package. Its message says which file, what was expected and which command mends it."""

from __future__ import annotations

from bioverify.errors import BioverifyError


class ArtifactError(BioverifyError):
    """An artifact or one of its source files is missing, damaged, or not what was expected."""


def one_line(told: object) -> str:
    """What a library says, or a text out of a file, fit to stand in a sentence."""
    line = " ".join(str(told).split())
    return line if len(line) <= 300 else f"{line[:300]}…"
