"""What the ``esm_mlp`` artifact is called, and its files. Apart from the build, which needs torch; serving does not."""

from __future__ import annotations

from bioverify.artifacts.vectors import JOINT_FILE, NAME, SYMBOLS_FILE, VECTORS_FILE

__all__ = ["JOINT_FILE", "NAME", "NETS_FILE", "SYMBOLS_FILE", "VECTORS_FILE"]

NETS_FILE = "nets.safetensors"
