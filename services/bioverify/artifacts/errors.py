"""The one error of this package. Its message says which file, what was expected and which command mends it."""

from __future__ import annotations

from bioverify.errors import BioverifyError


class ArtifactError(BioverifyError):
    """An artifact or one of its source files is missing, damaged, or not what was expected."""
