"""What the ``esm_mlp`` artifact is called, and its files. Apart from the build, which needs torch; serving does not."""

from __future__ import annotations

NAME = "esm_mlp"
SYMBOLS_FILE = "symbols.arrows"
VECTORS_FILE = "vectors.safetensors"
NETS_FILE = "nets.safetensors"
