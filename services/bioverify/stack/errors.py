"""The one error of this package."""

from __future__ import annotations


class StackError(RuntimeError):
    """The local stack cannot be started or reached. The message names the process or port and what mends it."""
