"""Verifiers as a service for reasoning in biology.

``with bioverify.local() as client``: the services of this machine, started for it if none run.
"""

from __future__ import annotations

from typing import Any

# As in pyproject.toml, which a test asserts: asking the installed package for it takes 36 ms of CPU, and a health probe
# would pay them every ten seconds.
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # By name and at its use: everything stands on this module, and what starts a stack knows everything.
    if name == "local":
        import importlib

        return importlib.import_module("bioverify.cli.trying").local
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
