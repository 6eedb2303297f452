"""Makes the small set that ships with the package, from the public files: ``python -m bioverify.artifacts.bundle``.

Shipped are the names of human genes, their direct Gene Ontology annotations, and in which of 700 blood cells each of
765 genes was detected: with these, every verifier opens without a network. No screen is shipped; if PerturbQA is not to
be had, `bioverify.artifacts.simulated` makes one from the shipped annotations.

Of HGNC's complete set there ships what a table of expression in tissues tells of it, whose symbols are older than its
Ensembl ids: a symbol of then that is ambiguous or unknown today is the previous symbol of the gene that has the id.
"""

from __future__ import annotations

import csv
import gzip
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bioverify.artifacts.cells import read_h5ad
from bioverify.artifacts.cells import write_compact as write_detection
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.genes import Gene, make_resolver, read_genes, write_genes
from bioverify.artifacts.go import read_annotations
from bioverify.artifacts.go import write_compact as write_annotations
from bioverify.artifacts.sources import (
    BLOOD_CELLS,
    BUNDLED_FOLDER,
    GENES,
    GO_ANNOTATIONS,
    GO_TERMS,
    HGNC,
    TISSUES,
    Sources,
)
from bioverify.core.outcomes import NotApplicable

_GENCODE_30 = (("ENSG00000036549", "AC118549.1"),)
"""What GENCODE 30 to 33, and so many references of 10x Genomics, call a gene that has a symbol: ZZZ3."""
_CLONE = re.compile(r"A[CLP]\d{6}\.\d+|Z\d{5}\.\d+")


def make_bundle(sources: Sources, folder: Path) -> None:
    """Write the five files into ``folder``. Raises ArtifactError if a public file is not to be had."""
    located = [sources.locate(source) for source in (GENES, GO_TERMS, GO_ANNOTATIONS, BLOOD_CELLS, TISSUES)]
    for item in located:
        if item.kind == "bundled":
            raise ArtifactError(f"source {item.source.name}: the bundle is made from the public file, not from itself")
    genes = read_genes(located[0])
    resolver = make_resolver(genes)
    # UniProt ids are as long as everything else together, and placeholders (LOC…) without a name are asked of nobody.
    slim = [replace(gene, uniprot=()) for gene in genes if gene.aliases or not gene.symbol.startswith("LOC")]
    write_genes(slim, folder / GENES.bundled)
    with gzip.open(located[4].path, "rt", encoding="utf-8") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        symbols_then = [*_GENCODE_30, *((row["ensembl_gene_id"], row["symbol"]) for row in rows)]
    write_previous(genes, symbols_then, folder / HGNC.bundled)
    annotations = read_annotations(sources, resolver, progress=sources.tell)
    write_annotations(annotations, folder / GO_TERMS.bundled, folder / GO_ANNOTATIONS.bundled)
    symbols, detected = read_h5ad(located[3].path)
    write_detection(symbols, detected, folder / BLOOD_CELLS.bundled)


def write_previous(genes: Sequence[Gene], symbols_then: Sequence[tuple[str, str]], path: Path) -> None:
    """In the columns of HGNC's set: of pairs of Ensembl id and symbol, those whose symbol does not say which gene.

    Names of clones become previous symbols as well, if the gene is no placeholder and has no other id: the second id of
    a gene is often that of a neighbour read through into it. A symbol that another gene has today, or that NCBI does
    not know as a name of the gene, is left out: there the ids disagree.
    """
    resolver = make_resolver(list(genes))
    has_one_id = {gene.symbol for gene in genes if len(gene.ensembl) == 1 and not gene.symbol.startswith("LOC")}
    rows = set()
    for ensembl, symbol in symbols_then:
        gene, now = resolver.resolve(ensembl), resolver.resolve(symbol)
        if not isinstance(gene, str) or not isinstance(now, NotApplicable):
            continue
        is_known_name = gene in resolver.other_names.get(symbol.upper(), ())
        if is_known_name or (_CLONE.fullmatch(symbol) and gene in has_one_id):
            rows.add((gene, symbol, ensembl))
    with path.open("w", encoding="utf-8", newline="") as file:
        written = csv.writer(file, delimiter="\t", lineterminator="\n")
        written.writerow(("symbol", "prev_symbol", "ensembl_gene_id"))
        written.writerows(sorted(rows))


def main() -> None:
    sources = Sources.default(tell=lambda message: print(message, file=sys.stderr))
    BUNDLED_FOLDER.mkdir(exist_ok=True)
    make_bundle(sources, BUNDLED_FOLDER)
    for path in sorted(path for path in BUNDLED_FOLDER.iterdir() if path.suffix in {".parquet", ".tsv"}):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
