"""What the ``go_rouge`` artifact is called, and its files. Apart from the build: serving needs no pyarrow."""

from __future__ import annotations

NAME = "go_rouge"
TERMS_FILE = "terms.arrows"
GENES_FILE = "genes.arrows"
