"""What the ``esm_mlp`` artifact holds beside its vectors. Apart from the build, which needs torch; serving does not."""

from __future__ import annotations

NETS_FILE = "nets.safetensors"
