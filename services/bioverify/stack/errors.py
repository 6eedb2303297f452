"""The one error of this package."""

from __future__ import annotations

from bioverify.errors import BioverifyError


class StackError(BioverifyError, RuntimeError):
    """The local stack cannot be started or reached. The message names the process or port and what mends it."""
