"""Vectors per gene from what is known of genes together: networks, gene sets, descriptions.

Each file says of a gene some features, and rare ones liken genes more than common ones (`go_svd`: log-rarity, SVD). The
form is told by the file's head, as its provider writes it; a name that ends in ``.gz`` or ``.zip`` is unpacked:

* ``.gmt``: a gene set a line (name, description, genes): the sets that a gene is in. Reactome and MSigDB write it.
* co-essential modules as Wainberg et al. publish them (header ``Cluster number``): the modules that a gene is in.
* descriptions as STRING writes them (columns ``preferred_name`` and ``annotation``): words, and the symbol's stem.
* complexes as Complex Portal writes them (column ``Recommended name``), and interactions as BioGRID (TAB3) and IntAct
  (MITAB) do: those between human proteins, of BioGRID the physical ones, of IntAct with a MI score of `LEAST_MISCORE`.
* a list of edges: two names a line, and perhaps a score, divided by blanks or tabs: a gene's neighbours and itself.
  Only edges with the score of at least `LEAST_SCORE` count, which is STRING's "high confidence". Names may be STRING's
  protein ids; they are translated by its protein information.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError, one_line
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
LEAST_SCORE = 700
LEAST_MISCORE = 0.45
"""IntAct calls it medium confidence. Not measured here."""
HUMAN = "9606"
ENDINGS = (".gmt", ".txt", ".tsv")
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
_STRING_ID = re.compile(r"9606\.ENSP\d+")
_WORD = re.compile(r"[a-z][a-z0-9-]{2,}")
_STEM = re.compile(r"^([A-Z]{2,})[0-9]")
_ACCESSION = re.compile(r"(?:uniprotkb:)?([A-Z][A-Z0-9]{5,9})(?:-\w+)?(?:\(\d*\))?")
_MISCORE = re.compile(r"intact-miscore:([0-9.]+)")

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
    return Path(path.name.removesuffix(".gz")).suffix.lower() in {*ENDINGS, ".zip"}


def _read_knowledge(
    name: str, path: Path, sources: Sources, resolver: GeneResolver
) -> tuple[GeneVectors, LocatedSource | None]:
    """The vectors, and STRING's protein information if its ids had to be translated. Raises ArtifactError."""
    try:
        with _lines(path) as lines:
            features = set(_features(path, lines))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, zipfile.BadZipFile) as error:
        raise ArtifactError(f"gene vectors {path}: cannot be read ({one_line(error)})") from error
    proteins = None
    names: Mapping[str, str] = {}
    if any(_STRING_ID.fullmatch(gene) for gene, _ in islice(features, 1)):
        proteins = sources.locate(STRING_PROTEINS)
        names = _names_of_proteins(proteins.path)
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
    if "Official Symbol Interactor A" in columns:
        return _of_interactions(columns, lines)
    if len(columns) > 14 and columns[0].startswith("#ID(s) interactor A"):
        return _of_mitab(lines)
    has_header = len(head.split()) > 2 and not _is_number(head.split()[2])
    return _of_edges(path, lines if has_header else chain([head], lines))


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
            accessions = (_ACCESSION.fullmatch(one) for one in fields[at].split("|"))
            yield from ((one[1], f"complex {fields[0]}") for one in accessions if one)


def _of_interactions(columns: Sequence[str], lines: Iterable[str]) -> Features:
    """BioGRID's TAB3."""
    place = {name: number for number, name in enumerate(columns)}
    human = place["Organism ID Interactor A"], place["Organism ID Interactor B"]
    symbols = place["Official Symbol Interactor A"], place["Official Symbol Interactor B"]
    kind = place["Experimental System Type"]
    for line in lines:
        fields = line.rstrip("\n").split("\t")
        if {fields[one] for one in human} == {HUMAN} and fields[kind] == "physical":
            yield from _neighbours(*(fields[one] for one in symbols))


def _of_mitab(lines: Iterable[str]) -> Features:
    """PSI-MI TAB 2.7: ids in columns 0 and 1, species in 9 and 10, scores in 14."""
    for line in lines:
        fields = line.rstrip("\n").split("\t")
        if len(fields) <= 14 or not all(fields[column].startswith(f"taxid:{HUMAN}(") for column in (9, 10)):
            continue
        score = _MISCORE.search(fields[14])
        found = [_ACCESSION.fullmatch(one) for one in fields[:2]]
        accessions = [one[1] for one in found if one]
        if score and float(score[1]) >= LEAST_MISCORE and len(accessions) == 2:
            yield from _neighbours(*accessions)


def _neighbours(one: str, other: str) -> Features:
    return (one, other), (one, one), (other, one), (other, other)


def _of_edges(path: Path, lines: Iterable[str]) -> Features:
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or line.startswith("#"):
            continue
        if len(fields) not in {2, 3} or (len(fields) == 3 and not _is_number(fields[2])):
            raise ArtifactError(
                f"gene vectors {path}: edge {number} is {line.strip()[:60]!r}; expected two names, and perhaps a score"
            )
        if len(fields) == 2 or float(fields[2]) >= LEAST_SCORE:
            yield from _neighbours(fields[0], fields[1])


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _names_of_proteins(path: Path) -> dict[str, str]:
    with _lines(path) as lines:
        split = (line.split("\t", 2) for line in lines)
        return {fields[0]: fields[1] for fields in split}


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """Of an archive the largest table: IntAct puts the few negative results into another one."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            tables = [one for one in archive.infolist() if Path(one.filename).suffix.lower() in ENDINGS]
            if not tables:
                raise ArtifactError(f"gene vectors {path}: holds no file that ends in {', '.join(ENDINGS)}")
            largest = max(tables, key=lambda one: one.file_size)
            with archive.open(largest) as member, io.TextIOWrapper(member, encoding="utf-8") as lines:
                yield lines
    else:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            yield lines
