"""Makes the ``genes`` artifact: every name that a human gene goes by (opened by `bioverify.artifacts.resolver`).

Sources understood: NCBI's Homo_sapiens.gene_info, a table with the columns symbol, type, aliases, ensembl_gene_ids and
uniprot_ids (lists joined by "|"), and the compact table that ships with the package. NCBI's table has no UniProt ids:
they are then taken from the official GO annotations, which are made to UniProt entries. Regions that are no genes
(enhancers and the like) are left out. If two genes share a current symbol, the protein-coding one has it.

A gene is shown under the name that the nomenclature committee (HGNC) gave it, and it keeps what it was called before.
That comes from HGNC's complete set. Without it a small table that ships with the package has the previous symbols that
are another gene's alias today, and names of clones, as Ensembl's ids decide them. An alias that several genes share,
and that was the official symbol of none, stays ambiguous: to guess would be to invent an experiment.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bioverify.artifacts.arrow import read_parquet, write_served
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.go import read_uniprot_ids
from bioverify.artifacts.resolver import CURRENT_FILE, OTHER_NAMES_FILE, PREVIOUS_FILE
from bioverify.artifacts.sources import GENES, GO_ANNOTATIONS, HGNC, LocatedSource, Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.core.genes import GeneResolver

_NO_GENE = "biological-region"
_MITOCHONDRIAL = {
    "COX1": "MT-CO1",
    "COX2": "MT-CO2",
    "COX3": "MT-CO3",
    "CYTB": "MT-CYB",
    **{name: f"MT-{name}" for name in ("ATP6", "ATP8", "ND1", "ND2", "ND3", "ND4", "ND4L", "ND5", "ND6")},
}
"""NCBI's symbols of the mitochondrial genes of proteins → HGNC's. Not every table has HGNC's, and COX1 and COX2 are
better known as the cyclooxygenases."""
_MITOCHONDRIAL_RNA = {
    "tRNA": (re.compile(r"TRN([A-Z][12]?)"), r"MT-T\1"),
    "rRNA": (re.compile(r"RNR([12])"), r"MT-RNR\1"),
}
_ENSEMBL = re.compile(r"(?:^|\|)Ensembl:(ENSG\d+)")
_HGNC_ID = re.compile(r"(?:^|\|)HGNC:(HGNC:\d+)")


@dataclass(frozen=True, slots=True)
class Gene:
    symbol: str
    kind: str
    """NCBI's type of gene: protein-coding, ncRNA, pseudo, …"""
    aliases: tuple[str, ...]
    ensembl: tuple[str, ...]
    uniprot: tuple[str, ...]
    ncbi: str = ""
    """The number of the gene in NCBI Gene."""
    hgnc: str = ""
    """"HGNC:" and a number."""
    previous: tuple[str, ...] = ()
    """Symbols that were official once."""
    name: str = ""
    """In words; empty in the compact form."""

    @property
    def ids(self) -> tuple[str, ...]:
        """As `GeneResolver` has them."""
        ncbi = (f"NCBIGENE:{self.ncbi}",) if self.ncbi else ()
        return (*self.ensembl, *self.uniprot, *ncbi, *((self.hgnc,) if self.hgnc else ()))


@dataclass(frozen=True, slots=True)
class OfficialName:
    """A row of HGNC's: what the committee calls a gene, and what it called it before. An empty id is not known."""

    symbol: str
    previous: tuple[str, ...]
    ensembl: str
    ncbi: str = ""
    hgnc: str = ""


def build(store: ArtifactStore, sources: Sources, *, progress: Callable[[str], None]) -> Manifest:
    """Make the ``genes`` artifact. Raises ArtifactError if no gene table is to be had, or one is no gene table."""
    located, named = sources.locate(GENES), locate_official_names(sources)
    files = ", ".join(f"{one.path.name} ({one.kind})" for one in (located, *named))
    progress(f"genes: reading {files}")
    records = [located.record, *(one.record for one in named)]
    genes = read_genes(located, [name for one in named for name in read_official_names(one.path)])
    if not any(gene.uniprot for gene in genes):
        annotations = sources.locate(GO_ANNOTATIONS)
        uniprot = read_uniprot_ids(annotations.path)
        genes = [replace(gene, uniprot=uniprot.get(gene.symbol, ())) for gene in genes]
        if uniprot:
            records.append(annotations.record)
    resolver = make_resolver(genes)
    ambiguous = sum(len(candidates) > 1 for candidates in resolver.other_names.values()) - len(resolver.meant)
    with store.building("genes") as folder:
        write_resolver(resolver, folder.path)
        manifest = folder.commit(
            description="Symbols, aliases and ids of human genes.",
            license="; ".join(dict.fromkeys(record.license for record in records)),
            sources=records,
            parameters={"ids": list(resolver.ids)},
            counts={
                "genes_with_uniprot_id": sum(bool(gene.uniprot) for gene in genes),
                "genes_with_hgnc_id": sum(bool(gene.hgnc) for gene in genes),
                "genes": len(genes),
                "protein_coding_genes": sum(gene.kind == "protein-coding" for gene in genes),
                "other_names": len(resolver.other_names),
                "names_decided_by_hgnc": len(resolver.meant),
                "ambiguous_names": ambiguous,
            },
        )
    progress(f"genes: {len(genes):,} genes, {len(resolver.other_names):,} other names ({ambiguous:,} ambiguous)")
    return manifest


def read_genes(located: LocatedSource, official: Sequence[OfficialName] = ()) -> list[Gene]:
    """All genes of a gene table, protein-coding first, then by symbol; one per current symbol."""
    genes = _read_compact(located.path) if located.path.suffix == ".parquet" else list(_read_table(located.path))
    genes = _with_official_names([gene for gene in genes if gene.kind != _NO_GENE], official)
    genes.sort(key=lambda gene: (gene.kind != "protein-coding", gene.symbol))
    return list({gene.symbol.upper(): gene for gene in reversed(genes)}.values())[::-1]


def locate_official_names(sources: Sources) -> list[LocatedSource]:
    """HGNC's complete set if it is to be had, and what ships: what Ensembl called a clone HGNC does not know."""
    located = sources.locate(HGNC)
    return [located] if located.kind == "bundled" else [located, sources.locate_bundled(HGNC)]


def read_official_names(path: Path) -> list[OfficialName]:
    """Rows of HGNC's complete set, or of a table with its columns symbol, prev_symbol and ensembl_gene_id."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        if not {"symbol", "prev_symbol", "ensembl_gene_id"} <= set(rows.fieldnames or ()):
            raise ArtifactError(
                f"source hgnc: {path} has the columns {', '.join(rows.fieldnames or ())[:120]}; expected those of "
                f"HGNC's complete set, symbol, prev_symbol and ensembl_gene_id among them"
            )
        return [
            OfficialName(
                symbol=row["symbol"],
                previous=_names(row["prev_symbol"]),
                ensembl=row["ensembl_gene_id"],
                ncbi=row.get("entrez_id") or "",
                hgnc=row.get("hgnc_id") or "",
            )
            for row in rows
        ]


def _with_official_names(genes: list[Gene], official: Sequence[OfficialName]) -> list[Gene]:
    """Genes and rows are matched by NCBI's id, else by Ensembl's, else by the symbol."""
    by_id = {f"ncbi:{gene.ncbi}": at for at, gene in enumerate(genes) if gene.ncbi}
    by_id |= {name: at for at, gene in reversed(list(enumerate(genes))) for name in (*gene.ensembl, gene.symbol)}
    named = list(genes)
    for row in official:
        places = (by_id.get(name) for name in (f"ncbi:{row.ncbi}", row.ensembl, row.symbol))
        at = next((place for place in places if place is not None), None)
        if at is None:
            continue
        gene = named[at]
        # Rows without HGNC's id are ours: they tell previous symbols, and may be older than the gene table.
        symbol = row.symbol if row.hgnc else gene.symbol
        named[at] = replace(
            gene,
            symbol=symbol,
            aliases=gene.aliases if symbol == gene.symbol else (gene.symbol, *gene.aliases),
            hgnc=gene.hgnc or row.hgnc,
            previous=(*gene.previous, *row.previous),
        )
    return [_with_mitochondrial_name(gene) for gene in named]


def _with_mitochondrial_name(gene: Gene) -> Gene:
    symbol = _MITOCHONDRIAL.get(gene.symbol) if gene.kind == "protein-coding" else None
    if gene.kind in _MITOCHONDRIAL_RNA:
        form, written = _MITOCHONDRIAL_RNA[gene.kind]
        found = form.fullmatch(gene.symbol)
        symbol = found.expand(written) if found else None
    return gene if symbol is None else replace(gene, symbol=symbol, aliases=(gene.symbol, *gene.aliases))


def write_genes(genes: list[Gene], path: Path) -> None:
    columns = {
        "symbol": pa.array([gene.symbol for gene in genes]),
        "kind": pa.array([gene.kind for gene in genes]).dictionary_encode(),
        "aliases": pa.array([gene.aliases for gene in genes], pa.list_(pa.string())),
        "ensembl": pa.array([gene.ensembl for gene in genes], pa.list_(pa.string())),
        "uniprot": pa.array([gene.uniprot for gene in genes], pa.list_(pa.string())),
        "ncbi": pa.array([int(gene.ncbi or 0) for gene in genes], pa.int32()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd", compression_level=19)


def make_resolver(genes: list[Gene]) -> GeneResolver:
    """The earlier gene keeps a symbol that two share; other names keep all their genes."""
    current: dict[str, str] = {}
    for gene in genes:
        current.setdefault(gene.symbol.upper(), gene.symbol)
    other_names: dict[str, tuple[str, ...]] = {}
    had_before: dict[str, set[str]] = {}
    for gene in genes:
        alone = (gene.symbol,)  # one tuple for all names of the gene: 200,000 names would make as many
        for name in (*gene.previous, *gene.aliases, *gene.ids):
            key = name.upper()
            if gene.kind == "pseudo" and key in _MITOCHONDRIAL:
                continue  # copies of mitochondrial genes in the nucleus, of which nobody asks by this name
            known = other_names.get(key)
            if known is None:
                other_names[key] = alone
            elif gene.symbol not in known:
                other_names[key] = (*known, gene.symbol)
        for name in gene.previous:
            had_before.setdefault(name.upper(), set()).add(gene.symbol)
    previous = {
        key: next(iter(symbols))
        for key, symbols in had_before.items()
        if len(symbols) == 1 and len(other_names[key]) > 1 and key not in current
    }
    examples = (
        ("Ensembl (ENSG00000090861)", any(gene.ensembl for gene in genes)),
        ("NCBI Gene (NCBIGene:16)", any(gene.ncbi for gene in genes)),
        ("HGNC (HGNC:20)", any(gene.hgnc for gene in genes)),
        ("UniProt (P49588)", any(gene.uniprot for gene in genes)),
    )
    return GeneResolver(current, other_names, previous, tuple(told for told, is_known in examples if is_known))


def write_resolver(resolver: GeneResolver, folder: Path) -> None:
    """All mappings flat and sorted, so that opening them makes no object per name: `bioverify.artifacts.resolver`."""
    keys = sorted(resolver.current, key=str.encode)
    symbols = [resolver.current[key] for key in keys]
    row = {symbol: index for index, symbol in enumerate(symbols)}
    names = sorted(resolver.other_names, key=str.encode)
    candidates = [[row[symbol] for symbol in resolver.other_names[name]] for name in names]
    current = {"key": pa.array(keys, pa.string()), "symbol": pa.array(symbols, pa.string())}
    other = {"name": pa.array(names, pa.string()), "symbols": pa.array(candidates, pa.list_(pa.int32()))}
    write_served(pa.table(current), folder / CURRENT_FILE)
    write_served(pa.table(other), folder / OTHER_NAMES_FILE)
    decided = sorted(resolver.meant, key=str.encode)
    rows = [row[resolver.meant[name]] for name in decided]
    previous = {"name": pa.array(decided, pa.string()), "symbol": pa.array(rows, pa.int32())}
    write_served(pa.table(previous), folder / PREVIOUS_FILE)


def _read_compact(path: Path) -> list[Gene]:
    columns = read_parquet(path).to_pydict()
    return [
        Gene(symbol, kind, tuple(aliases), tuple(ensembl), tuple(uniprot), ncbi=str(ncbi or ""))
        for symbol, kind, aliases, ensembl, uniprot, ncbi in zip(
            *(columns[name] for name in ("symbol", "kind", "aliases", "ensembl", "uniprot", "ncbi")), strict=True
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
                    ncbi=fields[column["ncbi_gene_id"]] if "ncbi_gene_id" in column else "",
                    name=fields[column["name"]] if "name" in column else "",
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
        symbol, names = authority, (symbol, *names)
    references = fields[column["dbXrefs"]]
    full_name = fields[column["description"]] if "description" in column else "-"
    hgnc = _HGNC_ID.search(references)
    return Gene(
        symbol=symbol,
        kind=fields[column["type_of_gene"]],
        aliases=names,
        ensembl=tuple(_ENSEMBL.findall(references)),
        uniprot=(),
        ncbi=fields[column["GeneID"]] if "GeneID" in column else "",
        hgnc=hgnc[1] if hgnc else "",
        name="" if full_name == "-" else full_name,
    )


def _names(joined: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in joined.split("|") if name not in {"", "-"}))
