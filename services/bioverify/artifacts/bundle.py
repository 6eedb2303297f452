"""Makes the small set that ships with the package, from the public files: ``python -m bioverify.artifacts.bundle``.

Shipped are the names of human genes, their direct Gene Ontology annotations, and in which of 700 blood cells each of
765 genes was detected: with these, every verifier opens without a network. No screen is shipped; where PerturbQA is
not to be had, `bioverify.artifacts.simulated` makes one from the shipped annotations.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from bioverify.artifacts.cells import read_h5ad
from bioverify.artifacts.cells import write_compact as write_detection
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.genes import make_resolver, read_genes, write_genes
from bioverify.artifacts.go import read_annotations
from bioverify.artifacts.go import write_compact as write_annotations
from bioverify.artifacts.sources import BLOOD_CELLS, BUNDLED_FOLDER, GENES, GO_ANNOTATIONS, GO_TERMS, Sources


def make_bundle(sources: Sources, folder: Path) -> None:
    """Write the four files into ``folder``. Raises ArtifactError where a public file is not to be had."""
    located = [sources.locate(source) for source in (GENES, GO_TERMS, GO_ANNOTATIONS, BLOOD_CELLS)]
    for item in located:
        if item.kind == "bundled":
            raise ArtifactError(f"source {item.source.name}: the bundle is made from the public file, not from itself")
    genes = read_genes(located[0])
    resolver = make_resolver(genes)
    # UniProt ids are as long as everything else together, and placeholders (LOC…) are asked of nobody.
    slim = [replace(gene, uniprot=()) for gene in genes if not gene.symbol.startswith("LOC")]
    write_genes(slim, folder / GENES.bundled)
    annotations = read_annotations(sources, resolver, progress=sources.tell)
    write_annotations(annotations, folder / GO_TERMS.bundled, folder / GO_ANNOTATIONS.bundled)
    symbols, detected = read_h5ad(located[3].path)
    write_detection(symbols, detected, folder / BLOOD_CELLS.bundled)


def main() -> None:
    sources = Sources.default(tell=lambda message: print(message, file=sys.stderr))
    BUNDLED_FOLDER.mkdir(exist_ok=True)
    make_bundle(sources, BUNDLED_FOLDER)
    for path in sorted(BUNDLED_FOLDER.glob("*.parquet")):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
