"""Vectors per gene from what is known of genes together: networks, gene sets, descriptions.

Each file says of a gene some features, and rare ones liken genes more than common ones (`go_svd`: log-rarity, SVD). The
form is told by the file's head, as its provider writes it; a name that ends in ``.gz`` is unpacked:

* ``.gmt``: a gene set a line (name, description, genes): the sets that a gene is in. Reactome and MSigDB write it.
* co-essential modules as Wainberg et al. publish them (header ``Cluster number``): the modules that a gene is in.
* descriptions as STRING writes them (columns ``preferred_name`` and ``annotation``): words, and the symbol's stem.
* a list of edges: two names a line, and perhaps a score, divided by blanks or tabs: a gene's neighbours and itself.
  Only edges with the score of at least `LEAST_SCORE` count, which is STRING's "high confidence". Names may be STRING's
  protein ids; they are translated by its protein information.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO

from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError, one_line
from bioverify.artifacts.sources import ON_REQUEST, STRING_PROTEINS, LocatedSource, Sources
from bioverify.artifacts.store import SourceRecord
from bioverify.core.genes import GeneResolver
from bioverify.verifiers.esm_mlp.embeddings import SOURCE_NAME, GeneVectors, read_vectors, under_current_symbols
from bioverify.verifiers.esm_mlp.vectors import go_svd

DIMENSIONS = 256
LEAST_SCORE = 700
ENDINGS = (".gmt", ".txt", ".tsv")
_STRING_ID = re.compile(r"9606\.ENSP\d+")
_WORD = re.compile(r"[a-z][a-z0-9-]{2,}")
_STEM = re.compile(r"^([A-Z]{2,})[0-9]")

Features = Iterable[tuple[str, str]]
"""(name of a gene, feature)."""


def read_sources(
    sources: Sources, resolver: GeneResolver, *, progress: Callable[[str], None]
) -> tuple[list[GeneVectors], list[SourceRecord]]:
    """All tables that the person named ``gene_vectors.NAME``, under current symbols. Raises ArtifactError."""
    licenses = {Path(file).name: source.license for source in ON_REQUEST for file in source.file_names}
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
            progress(f"esm_mlp: {table.vectors.shape[1]} dimensions from {len(table.symbols):,} genes of {path.name}")
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


def _is_knowledge(path: Path) -> bool:
    return Path(path.name.removesuffix(".gz")).suffix.lower() in ENDINGS


def _read_knowledge(
    name: str, path: Path, sources: Sources, resolver: GeneResolver
) -> tuple[GeneVectors, LocatedSource | None]:
    """The vectors, and STRING's protein information if its ids had to be translated. Raises ArtifactError."""
    try:
        with _lines(path) as lines:
            features = list(_features(path, lines))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ArtifactError(f"gene vectors {path}: cannot be read ({one_line(error)})") from error
    proteins = None
    names: Mapping[str, str] = {}
    if any(_STRING_ID.fullmatch(gene) for gene, _ in features[:1]):
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
            f".gmt file, co-essential modules, STRING's descriptions, or two names a line"
        )
    indices = {gene: sorted(number[one] for one in of_gene[gene]) for gene in sorted(of_gene)}
    return GeneVectors(name, list(indices), go_svd(indices, len(number), dimensions)), proteins


def _features(path: Path, lines: Iterator[str]) -> Features:
    head = next(lines, "")
    columns = head.rstrip("\n").split("\t")
    if path.name.removesuffix(".gz").lower().endswith(".gmt"):
        return _of_sets(chain([head], lines), 2)
    if columns[0] == "Cluster number":
        return _of_sets(lines, 11)
    if {"preferred_name", "annotation"} <= set(columns):
        return _of_words(path, lines, columns.index("preferred_name"), columns.index("annotation"))
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
            for one, other in (fields[:2], fields[1::-1]):
                yield from ((one, other), (one, one))


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _names_of_proteins(path: Path) -> dict[str, str]:
    with _lines(path) as lines:
        split = (line.split("\t", 2) for line in lines)
        return {fields[0]: fields[1] for fields in split}


def _lines(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
