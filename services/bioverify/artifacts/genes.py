"""Makes the ``genes`` artifact: every name that a human gene goes by (opened by `bioverify.artifacts.resolver`).

Sources understood: NCBI's Homo_sapiens.gene_info, a table with the columns symbol, type, aliases, ensembl_gene_ids and
uniprot_ids (lists joined by "|"), and the compact table that ships with the package. NCBI's table has no UniProt ids:
they are then taken from the official GO annotations, which are made to UniProt entries. Regions that are no genes
(enhancers and the like) are left out. Where two genes share a current symbol, the protein-coding one has it. An alias
that several genes share stays ambiguous: to guess would be to invent an experiment.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bioverify.artifacts.arrow import read_parquet, write_served
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.go import read_uniprot_ids
from bioverify.artifacts.resolver import CURRENT_FILE, OTHER_NAMES_FILE
from bioverify.artifacts.sources import GENES, GO_ANNOTATIONS, LocatedSource, Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.core.genes import GeneResolver

_NO_GENE = "biological-region"
_MITOCHONDRIAL_NAMES = {"COX1": "MT-CO1", "COX2": "MT-CO2", "COX3": "MT-CO3", "CYTB": "MT-CYB"}
"""Where HGNC's name is more than "MT-" and NCBI's symbol. Tables without the authority's symbol lack them."""
_ENSEMBL = re.compile(r"(?:^|\|)Ensembl:(ENSG\d+)")


@dataclass(frozen=True, slots=True)
class Gene:
    symbol: str
    kind: str
    """NCBI's type of gene: protein-coding, ncRNA, pseudo, …"""
    aliases: tuple[str, ...]
    ensembl: tuple[str, ...]
    uniprot: tuple[str, ...]


def build(store: ArtifactStore, sources: Sources, *, progress: Callable[[str], None]) -> Manifest:
    """Make the ``genes`` artifact. Raises ArtifactError where no gene table is to be had or it is no gene table."""
    located = sources.locate(GENES)
    progress(f"genes: reading {located.path.name} ({located.kind})")
    genes = read_genes(located)
    records = [located.record]
    if not any(gene.uniprot for gene in genes):
        annotations = sources.locate(GO_ANNOTATIONS)
        uniprot = read_uniprot_ids(annotations.path)
        genes = [replace(gene, uniprot=uniprot.get(gene.symbol, ())) for gene in genes]
        if uniprot:
            records.append(annotations.record)
    resolver = make_resolver(genes)
    ambiguous = sum(len(candidates) > 1 for candidates in resolver.other_names.values())
    with store.building("genes") as folder:
        write_resolver(resolver, folder.path)
        manifest = folder.commit(
            description="Symbols, aliases, Ensembl and UniProt ids of human genes.",
            license="; ".join(dict.fromkeys(record.license for record in records)),
            sources=records,
            counts={
                "genes_with_uniprot_id": sum(bool(gene.uniprot) for gene in genes),
                "genes": len(genes),
                "protein_coding_genes": sum(gene.kind == "protein-coding" for gene in genes),
                "other_names": len(resolver.other_names),
                "ambiguous_names": ambiguous,
            },
        )
    progress(f"genes: {len(genes):,} genes, {len(resolver.other_names):,} other names ({ambiguous:,} ambiguous)")
    return manifest


def read_genes(located: LocatedSource) -> list[Gene]:
    """All genes of a gene table, protein-coding first, then by symbol; one per current symbol."""
    genes = _read_compact(located.path) if located.path.suffix == ".parquet" else list(_read_table(located.path))
    genes = [gene for gene in genes if gene.kind != _NO_GENE]
    genes.sort(key=lambda gene: (gene.kind != "protein-coding", gene.symbol))
    return list({gene.symbol.upper(): gene for gene in reversed(genes)}.values())[::-1]


def write_genes(genes: list[Gene], path: Path) -> None:
    columns = {
        "symbol": pa.array([gene.symbol for gene in genes]),
        "kind": pa.array([gene.kind for gene in genes]).dictionary_encode(),
        "aliases": pa.array([gene.aliases for gene in genes], pa.list_(pa.string())),
        "ensembl": pa.array([gene.ensembl for gene in genes], pa.list_(pa.string())),
        "uniprot": pa.array([gene.uniprot for gene in genes], pa.list_(pa.string())),
    }
    pq.write_table(pa.table(columns), path, compression="zstd", compression_level=19)


def make_resolver(genes: list[Gene]) -> GeneResolver:
    """The earlier gene keeps a symbol that two share; other names keep all their genes."""
    current: dict[str, str] = {}
    for gene in genes:
        current.setdefault(gene.symbol.upper(), gene.symbol)
    other_names: dict[str, tuple[str, ...]] = {}
    for gene in genes:
        alone = (gene.symbol,)  # one tuple for all names of the gene: 200,000 names would make as many
        for name in (*gene.aliases, *gene.ensembl, *gene.uniprot):
            key = name.upper()
            known = other_names.get(key)
            if known is None:
                other_names[key] = alone
            elif gene.symbol not in known:
                other_names[key] = (*known, gene.symbol)
    for symbol, name in _MITOCHONDRIAL_NAMES.items():
        # Wins over nuclear pseudogenes that carry the name as an alias.
        if symbol in current:
            other_names[name] = (symbol,)
    return GeneResolver(current, other_names)


def write_resolver(resolver: GeneResolver, folder: Path) -> None:
    """Both mappings flat and sorted, so that opening them makes no object per name: `bioverify.artifacts.resolver`."""
    keys = sorted(resolver.current, key=str.encode)
    symbols = [resolver.current[key] for key in keys]
    row = {symbol: index for index, symbol in enumerate(symbols)}
    names = sorted(resolver.other_names, key=str.encode)
    candidates = [[row[symbol] for symbol in resolver.other_names[name]] for name in names]
    current = {"key": pa.array(keys, pa.string()), "symbol": pa.array(symbols, pa.string())}
    other = {"name": pa.array(names, pa.string()), "symbols": pa.array(candidates, pa.list_(pa.int32()))}
    write_served(pa.table(current), folder / CURRENT_FILE)
    write_served(pa.table(other), folder / OTHER_NAMES_FILE)


def _read_compact(path: Path) -> list[Gene]:
    columns = read_parquet(path).to_pydict()
    return [
        Gene(symbol, kind, tuple(aliases), tuple(ensembl), tuple(uniprot))
        for symbol, kind, aliases, ensembl, uniprot in zip(
            columns["symbol"], columns["kind"], columns["aliases"], columns["ensembl"], columns["uniprot"], strict=True
        )
    ]


def _read_table(path: Path) -> Iterator[Gene]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        header = next(lines, "").lstrip("#").rstrip("\n").split("\t")
        column = {name: index for index, name in enumerate(header)}
        if {"Symbol", "Synonyms", "dbXrefs", "type_of_gene"} <= column.keys():
            for line in lines:
                yield _from_gene_info(line.rstrip("\n").split("\t"), column)
        elif {"symbol", "type", "aliases", "ensembl_gene_ids", "uniprot_ids"} <= column.keys():
            for line in lines:
                fields = line.rstrip("\n").split("\t")
                yield Gene(
                    symbol=fields[column["symbol"]],
                    kind=fields[column["type"]],
                    aliases=_names(fields[column["aliases"]]),
                    ensembl=_names(fields[column["ensembl_gene_ids"]]),
                    uniprot=_names(fields[column["uniprot_ids"]]),
                )
        else:
            raise ArtifactError(
                f"source genes: {path} has the columns {', '.join(header)[:120]}; expected those of NCBI gene_info "
                f"(Symbol, Synonyms, dbXrefs, type_of_gene) or symbol, type, aliases, ensembl_gene_ids, uniprot_ids"
            )


def _from_gene_info(fields: list[str], column: dict[str, int]) -> Gene:
    symbol = fields[column["Symbol"]]
    authority = fields[column["Symbol_from_nomenclature_authority"]]
    names = _names(fields[column["Synonyms"]])
    if authority not in {"-", symbol}:
        names = (authority, *names)
    return Gene(
        symbol=symbol,
        kind=fields[column["type_of_gene"]],
        aliases=names,
        ensembl=tuple(_ENSEMBL.findall(fields[column["dbXrefs"]])),
        uniprot=(),
    )


def _names(joined: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in joined.split("|") if name not in {"", "-"}))
