"""Makes the ``go_rouge`` artifact: names of Gene Ontology terms, and the terms annotated to each gene."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from bioverify.artifacts.arrow import write_served
from bioverify.artifacts.go import GoSettings, read_annotations
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import CC_BY, Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.core.verifier import canaries_of
from bioverify.verifiers.go_rouge.artifact import GENES_FILE, NAME, TERMS_FILE
from bioverify.verifiers.go_rouge.verifier import open_verifier


def build(
    store: ArtifactStore,
    sources: Sources,
    *,
    progress: Callable[[str], None],
    settings: GoSettings = GoSettings(),  # noqa: B008  frozen
) -> Manifest:
    """Make the artifact. Terms are ordered by name, and so are each gene's."""
    resolver, genes = open_genes(store)
    annotations = read_annotations(sources, resolver, progress=progress, settings=settings)
    has_definitions = settings.text == "definitions"
    terms = pa.table(
        {
            "id": [term.id for term in annotations.terms],
            "name": [term.name for term in annotations.terms],
            "aspect": [term.aspect for term in annotations.terms],
            "definition": [term.definition if has_definitions else "" for term in annotations.terms],
        }
    )
    of_genes = pa.table(
        {
            "symbol": list(annotations.genes),
            "terms": pa.array(list(annotations.genes.values()), pa.list_(pa.int32())),
        }
    )
    with store.building(NAME) as folder:
        write_served(terms, folder.path / TERMS_FILE)
        write_served(of_genes, folder.path / GENES_FILE)
        manifest = folder.commit(
            canaries=lambda built: canaries_of(open_verifier(built)),
            description="Gene Ontology terms annotated to human genes.",
            license=CC_BY,
            sources=annotations.records,
            inputs=[genes],
            parameters={
                "dropped": [
                    "qualifier NOT",
                    "evidence code ND",
                    *([] if settings.electronic else ["evidence code IEA"]),
                ],
                "terms": settings.terms,
                "text": settings.text,
            },
            counts=annotations.counts,
        )
    progress(f"go_rouge: {len(annotations.genes):,} genes, {len(annotations.terms):,} terms")
    return manifest
