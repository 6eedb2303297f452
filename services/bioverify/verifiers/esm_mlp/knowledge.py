"""Vectors per gene from what is known of genes together: networks, gene sets, descriptions.

Each file says of a gene some features, and rare ones liken genes more than common ones (`go_svd`: log-rarity, SVD). The
form is told by the file's head, as its provider writes it; a name that ends in ``.gz`` or ``.zip`` is unpacked:

* ``.gmt``: a gene set a line (name, description, genes): the sets that a gene is in. Reactome and MSigDB write it.
* co-essential modules as Wainberg et al. publish them (header ``Cluster number``): the modules that a gene is in.
* descriptions as STRING writes them (columns ``preferred_name`` and ``annotation``): words, and the symbol's stem.
* complexes as Complex Portal writes them (column ``Recommended name``).
* networks (`artifacts.links`): a gene's neighbours and itself. Of edges with a score only those of at least
  `LEAST_SCORE` count.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError, one_line
from bioverify.artifacts.links import (
    ACCESSION,
    HUMAN,
    LEAST_SCORE,
    STRING_ID,
    TABLES,
    names_of_proteins,
    open_lines,
    read_links,
)
from bioverify.artifacts.sources import (
    BIOGRID,
    COESSENTIAL_MODULES,
    COMPLEX_PORTAL,
    INTACT,
    REACTOME,
    STRING_LINKS,
    STRING_PROTEINS,
    LocatedSource,
    Sources,
)
from bioverify.artifacts.store import SourceRecord
from bioverify.core.genes import GeneResolver
from bioverify.verifiers.esm_mlp.embeddings import SOURCE_NAME, GeneVectors, read_vectors, under_current_symbols
from bioverify.verifiers.esm_mlp.vectors import go_svd

DIMENSIONS = 256
KNOWLEDGE = {
    "string_links": (STRING_LINKS, "STRING links"),
    "string": (STRING_PROTEINS, "STRING descriptions"),
    "coessential_modules": (COESSENTIAL_MODULES, "co-essential modules"),
    "complex_portal": (COMPLEX_PORTAL, "Complex Portal"),
    "reactome": (REACTOME, "Reactome"),
    "biogrid": (BIOGRID, "BioGRID"),
    "intact": (INTACT, "IntAct"),
}
"""Public sources by their names in settings, and how evidence calls them."""
_WORD = re.compile(r"[a-z][a-z0-9-]{2,}")
_STEM = re.compile(r"^([A-Z]{2,})[0-9]")

Features = Iterable[tuple[str, str]]
"""(name of a gene, feature)."""


def read_public(
    names: Sequence[str], sources: Sources, resolver: GeneResolver, *, progress: Callable[[str], None]
) -> tuple[dict[str, GeneVectors], list[SourceRecord]]:
    """A table of each of these of `KNOWLEDGE` that is to be had, by its name there. Raises ArtifactError."""
    tables: dict[str, GeneVectors] = {}
    records: list[SourceRecord] = []
    for name in names:
        source, told = KNOWLEDGE[name]
        located = sources.find(source)
        if located is None:
            progress(
                f"esm_mlp: {told} are not to be had, so the vectors are made without (bioverify data fetch {name})"
            )
            continue
        tables[name], proteins = _read_knowledge(told, located.path, sources, resolver)
        records += [located.record, *([proteins.record] if proteins else [])]
        progress(_told(tables[name], located.path))
    return tables, list(dict.fromkeys(records))


def read_sources(
    sources: Sources, resolver: GeneResolver, *, progress: Callable[[str], None]
) -> tuple[list[GeneVectors], list[SourceRecord]]:
    """All tables that the person named ``gene_vectors.NAME``, under current symbols. Raises ArtifactError."""
    licenses = {Path(file).name: source.license for source, _ in KNOWLEDGE.values() for file in source.file_names}
    tables, records = [], []
    for source_name, path in sorted(sources.explicit.items()):
        folder, _, name = source_name.partition(".")
        if folder != SOURCE_NAME:
            continue
        if not name or not path.is_file():
            raise ArtifactError(f"source {source_name}={path}: write {SOURCE_NAME}.NAME=FILE with an existing file")
        if _is_knowledge(path):
            table, proteins = _read_knowledge(name, path, sources, resolver)
            records += [proteins.record] if proteins else []
            progress(_told(table, path))
        else:
            written, vectors = read_vectors(path)
            table = under_current_symbols(name, written, vectors, resolver, path)
        tables.append(table)
        records.append(
            SourceRecord(
                name=source_name,
                kind="explicit",
                location=str(path),
                url="",
                sha256=sha256_of(path),
                license=licenses.get(path.name, "yours"),
            )
        )
    return tables, records


def _told(table: GeneVectors, path: Path) -> str:
    return f"esm_mlp: {table.vectors.shape[1]} dimensions from {len(table.symbols):,} genes of {path.name}"


def _is_knowledge(path: Path) -> bool:
    return Path(path.name.removesuffix(".gz")).suffix.lower() in {*TABLES, ".zip"}


def _read_knowledge(
    name: str, path: Path, sources: Sources, resolver: GeneResolver
) -> tuple[GeneVectors, LocatedSource | None]:
    """The vectors, and STRING's protein information if its ids had to be translated. Raises ArtifactError."""
    try:
        with open_lines(path) as lines:
            features = set(_features(path, lines))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, zipfile.BadZipFile) as error:
        raise ArtifactError(f"gene vectors {path}: cannot be read ({one_line(error)})") from error
    proteins = None
    names: Mapping[str, str] = {}
    if any(STRING_ID.fullmatch(gene) for gene, _ in islice(features, 1)):
        proteins = sources.locate(STRING_PROTEINS)
        names = names_of_proteins(proteins.path)
    of_gene: dict[str, set[str]] = {}
    symbols: dict[str, str] = {}
    for written in {gene for gene, _ in features}:
        symbol = resolver.resolve(names.get(written, written))
        if isinstance(symbol, str):
            symbols[written] = symbol
    for gene, feature in features:
        if gene in symbols:
            # A neighbour is the feature under its current symbol, so that two names of a gene are one.
            of_gene.setdefault(symbols[gene], set()).add(symbols.get(feature, feature))
    number = {one: index for index, one in enumerate(sorted(set().union(*of_gene.values())))}
    dimensions = min(DIMENSIONS, len(of_gene) - 1, len(number) - 1)
    if dimensions < 1:
        raise ArtifactError(
            f"gene vectors {path}: {len(of_gene)} human genes with {len(number)} features between them; expected a "
            f".gmt file, co-essential modules, STRING's descriptions, complexes, interactions, or two names a line"
        )
    indices = {gene: sorted(number[one] for one in of_gene[gene]) for gene in sorted(of_gene)}
    return GeneVectors(name, list(indices), go_svd(indices, len(number), dimensions)), proteins


def _features(path: Path, lines: Iterator[str]) -> Features:
    head = next(lines, "")
    columns = head.rstrip("\n").split("\t")
    if path.name.removesuffix(".gz").removesuffix(".zip").lower().endswith(".gmt"):
        return _of_sets(chain([head], lines), 2)
    if columns[0] == "Cluster number":
        return _of_sets(lines, 11)
    if {"preferred_name", "annotation"} <= set(columns):
        return _of_words(path, lines, columns.index("preferred_name"), columns.index("annotation"))
    if "Recommended name" in columns:
        return _of_complexes(columns, lines)
    return _of_links(path, chain([head], lines))


def _of_sets(lines: Iterable[str], first: int) -> Features:
    """``first``: the column of the first gene; the first column names the set."""
    for number, line in enumerate(lines):
        fields = line.rstrip("\n").split("\t")
        yield from ((gene, f"{number} {fields[0]}") for gene in fields[first:] if gene)


def _of_words(path: Path, lines: Iterable[str], gene: int, text: int) -> Features:
    for number, line in enumerate(lines, 2):
        fields = line.rstrip("\n").split("\t")
        if len(fields) <= max(gene, text):
            raise ArtifactError(f"gene vectors {path}: line {number} has {len(fields)} columns, fewer than its header")
        if fields[text] != "annotation not available":
            yield from ((fields[gene], f"word {word}") for word in set(_WORD.findall(fields[text].lower())))
        if stem := _STEM.match(fields[gene]):
            yield fields[gene], f"stem {stem[1]}"


def _of_complexes(columns: Sequence[str], lines: Iterable[str]) -> Features:
    """Nested complexes are expanded in a column of their own, which older files lack."""
    members = "Expanded participant list"
    if members not in columns:
        members = "Identifiers (and stoichiometry) of molecules in complex"
    at, taxon = columns.index(members), columns.index("Taxonomy identifier")
    for line in lines:
        fields = line.rstrip("\n").split("\t")
        if len(fields) > max(at, taxon) and fields[taxon] == HUMAN:
            accessions = (ACCESSION.fullmatch(one) for one in fields[at].split("|"))
            yield from ((one[1], f"complex {fields[0]}") for one in accessions if one)


def _of_links(path: Path, lines: Iterator[str]) -> Features:
    for one, other in read_links(path, lines, least_score=LEAST_SCORE):
        yield from ((one, other), (one, one), (other, one), (other, other))
