"""What the ``transcriptformer_pmi`` artifact is called, and its files. Apart from the build, which needs pyarrow."""

from __future__ import annotations

NAME = "transcriptformer_pmi"
MATRIX_FILE = "pmi.npy"
SYMBOLS_FILE = "symbols.arrows"
SCALING_FILE = "scaling.npy"
"""Quantiles of all pairs; the cutoff and the maximum are parameters in the manifest."""
