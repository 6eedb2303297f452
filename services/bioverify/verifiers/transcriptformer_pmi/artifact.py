"""What the ``transcriptformer_pmi`` artifact is called, and its files. Apart from the build, which needs pyarrow."""

from __future__ import annotations

NAME = "transcriptformer_pmi"
MATRIX_FILE = "pmi.npy"
FACTORS_FILE = "vectors.npy"
"""In place of the matrix: vectors whose inner products it holds (measure ``correlation``)."""
SYMBOLS_FILE = "symbols.arrows"
SCALING_FILE = "scaling.npy"
PARTNERS_AUC, WORTH_ASKING = "known_partners_auc", 0.55
"""The manifest's figure of `partners`, and what says so is below this."""
"""Quantiles of all pairs; the cutoff and the maximum are parameters in the manifest."""
