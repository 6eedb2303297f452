"""Human Gene Ontology annotations: which terms are directly annotated to which gene.

The ontology (OBO) is read by pronto, the annotations (GAF) by Arrow's CSV reader. Dropped and counted are annotations
of other species, those with the qualifier NOT, which say what a gene does not do, and those with the evidence code ND,
by which nothing is known. Symbols are resolved to current ones. The compact form that ships with the package holds the
same after these steps.

`GoSettings` may leave out what no curator looked at (evidence code IEA), add the terms that follow from the annotated
ones (over is_a and part_of, without the three roots, which hold of everything), and keep the terms' definitions.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from bioverify.artifacts.arrow import read_parquet
from bioverify.artifacts.errors import ArtifactError, one_line
from bioverify.artifacts.packed import UNREADABLE, open_bytes
from bioverify.artifacts.sources import GO_ANNOTATIONS, GO_TERMS, Sources
from bioverify.artifacts.store import SourceRecord
from bioverify.core.genes import GeneResolver

ASPECT_OF_NAMESPACE = {"cellular_component": "C", "molecular_function": "F", "biological_process": "P"}
_GAF_COLUMNS = (15, 16, 17)
"""Of GAF 1.0, of some exports of it, and of GAF 2. The columns that are read stand at the same places."""
_DATABASE, _ACCESSION, _SYMBOL, _QUALIFIER, _TERM, _EVIDENCE_CODE, _TAXON = "f0", "f1", "f2", "f3", "f4", "f6", "f12"
_HUMAN = "taxon:9606"
_COMMENT = re.compile(rb"^!.*(?:\n|\Z)", re.MULTILINE)


class GoSettings(BaseModel):
    """Which annotations count, and what is kept of a term."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    electronic: bool = True
    """Whether annotations that no curator looked at (IEA) count."""
    terms: Literal["direct", "ancestors"] = "direct"
    text: Literal["names", "definitions"] = "names"
    """Of a term: its name, or its name and its definition."""


@dataclass(frozen=True)
class Term:
    id: str
    name: str
    aspect: str
    """C, F or P."""
    definition: str = ""
    """Empty in the compact form."""


@dataclass(frozen=True)
class _Ontology:
    terms: dict[str, Term]
    """Live terms by id and by alternative id."""
    parents: dict[str, list[str]]
    """Id → ids that it is a kind of or a part of. Empty in the compact form."""
    synonyms: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Id → other names and their scopes (EXACT, NARROW, BROAD, RELATED), those of obsolete terms that it replaces
    among them. Empty in the compact form."""
    regulated: dict[str, list[str]] = field(default_factory=dict)
    """Id → ids of what it regulates, positively, negatively or somehow. Empty in the compact form."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Id of an obsolete term → of the one that replaces it. Empty in the compact form."""

    def with_ancestors(self, terms: set[Term]) -> set[Term]:
        found: set[Term] = set()
        waiting = list(terms)
        while waiting:
            term = waiting.pop()
            if term not in found and self.parents[term.id]:  # a root has no parent
                found.add(term)
                waiting.extend(self.terms[parent] for parent in self.parents[term.id])
        return found


@dataclass(frozen=True)
class Annotations:
    """``genes``: current symbol → indices into ``terms``, each set sorted by term name."""

    terms: list[Term]
    genes: dict[str, list[int]]
    counts: dict[str, int]
    records: list[SourceRecord]


@dataclass(frozen=True)
class Facts:
    """The whole ontology, and annotations with their evidence. Of the compact form: no parents, synonyms and codes."""

    terms: dict[str, Term]
    """By id and by alternative id."""
    parents: dict[str, list[str]]
    synonyms: dict[str, list[tuple[str, str]]]
    regulated: dict[str, list[str]]
    replaced: dict[str, str]
    affirmed: dict[tuple[str, str], set[str]]
    """(current symbol, term id) → evidence codes."""
    denied: dict[tuple[str, str], set[str]]
    """The same of annotations with the qualifier NOT."""
    records: list[SourceRecord]


def read_facts(sources: Sources, resolver: GeneResolver, *, progress: Callable[[str], None]) -> Facts:
    """All terms, and what is said of human genes, with what it rests on."""
    terms_file, annotations_file = sources.locate(GO_TERMS), sources.locate(GO_ANNOTATIONS)
    progress(f"GO: reading {terms_file.path.name} and {annotations_file.path.name} ({annotations_file.kind})")
    compact = terms_file.path.suffix == ".parquet"
    ontology = _read_compact_terms(terms_file.path) if compact else _read_ontology(terms_file.path)
    rows: list[tuple[str, str, str, bool]]
    if annotations_file.path.suffix == ".parquet":
        rows = [(symbol, term, "", False) for symbol, term in _read_compact_pairs(annotations_file.path)[0]]
    else:
        table, _ = _human_annotations(annotations_file.path, [_SYMBOL, _QUALIFIER, _TERM, _EVIDENCE_CODE])
        said = [table[name].to_pylist() for name in (_SYMBOL, _TERM, _EVIDENCE_CODE, _QUALIFIER)]
        rows = [(*row[:3], "NOT" in row[3].split("|")) for row in zip(*said, strict=True) if row[2] != "ND"]
    symbols = {row[0] for row in rows}
    resolver = resolver.of_column(symbols)
    # Once per gene: its annotations are more than a resolver remembers.
    gene_of = {symbol: resolver.resolve(symbol) for symbol in symbols}
    affirmed: dict[tuple[str, str], set[str]] = {}
    denied: dict[tuple[str, str], set[str]] = {}
    for symbol, term_id, code, is_denied in rows:
        gene, term = gene_of[symbol], ontology.terms.get(term_id)
        if isinstance(gene, str) and term is not None:
            (denied if is_denied else affirmed).setdefault((gene, term.id), set()).add(code)
    return Facts(
        ontology.terms,
        ontology.parents,
        ontology.synonyms,
        ontology.regulated,
        ontology.replaced,
        affirmed,
        denied,
        [terms_file.record, annotations_file.record],
    )


def read_annotations(
    sources: Sources,
    resolver: GeneResolver,
    *,
    progress: Callable[[str], None],
    settings: GoSettings = GoSettings(),  # noqa: B008  frozen
) -> Annotations:
    """All human annotations that count. ``terms`` holds the annotated terms only, by name.

    Raises ArtifactError if the settings ask for what the compact form leaves out.
    """
    terms_file, annotations_file = sources.locate(GO_TERMS), sources.locate(GO_ANNOTATIONS)
    if settings != GoSettings():
        for located in (terms_file, annotations_file):
            if located.path.suffix == ".parquet":
                raise ArtifactError(
                    f"source {located.source.name}: the settings ({settings}) ask for evidence codes, relations or "
                    f"definitions, which the compact form that ships with the package leaves out. "
                    f"Run: bioverify data fetch go-basic.obo goa_human.gaf"
                )
    progress(f"GO: reading {terms_file.path.name} ({terms_file.kind})")
    compact = terms_file.path.suffix == ".parquet"
    ontology = _read_compact_terms(terms_file.path) if compact else _read_ontology(terms_file.path)
    n_terms = len({term.id for term in ontology.terms.values()})
    progress(f"GO: {n_terms:,} terms; reading {annotations_file.path.name} ({annotations_file.kind})")
    if annotations_file.path.suffix == ".parquet":
        pairs, counts = _read_compact_pairs(annotations_file.path)
    else:
        pairs, counts = _read_gaf(annotations_file.path, electronic=settings.electronic)

    of_symbol: dict[str, set[Term]] = {}
    unresolved: set[str] = set()
    n_without_term = 0
    resolver = resolver.of_column(symbol for symbol, _ in pairs)
    for symbol, term_id in pairs:
        gene = resolver.resolve(symbol)
        term = ontology.terms.get(term_id)
        if not isinstance(gene, str):
            unresolved.add(symbol)
        elif term is None:
            n_without_term += 1
        else:
            of_symbol.setdefault(gene, set()).add(term)
    if settings.terms == "ancestors":
        of_symbol = {symbol: ontology.with_ancestors(own) for symbol, own in of_symbol.items()}
        of_symbol = {symbol: own for symbol, own in of_symbol.items() if own}
    used = sorted({term for own in of_symbol.values() for term in own}, key=lambda term: (term.name, term.id))
    index = {term: position for position, term in enumerate(used)}
    genes = {symbol: sorted(index[term] for term in of_symbol[symbol]) for symbol in sorted(of_symbol)}
    counts |= {
        "ontology_terms": n_terms,
        "terms": len(used),
        "genes": len(genes),
        "gene_term_pairs": sum(map(len, genes.values())),
        "unresolved_symbols": len(unresolved),
        "pairs_of_unknown_terms": n_without_term,
    }
    return Annotations(used, genes, counts, [terms_file.record, annotations_file.record])


def write_compact(annotations: Annotations, terms_path: Path, annotations_path: Path) -> None:
    """The shipped form: terms by number, and per gene the numbers of its terms."""
    numbers = [_term_number(term.id) for term in annotations.terms]
    terms = pa.table(
        {
            "number": pa.array(numbers, pa.int32()),
            "name": pa.array([term.name for term in annotations.terms]),
            "aspect": pa.array([term.aspect for term in annotations.terms]).dictionary_encode(),
        }
    )
    genes = pa.table(
        {
            "symbol": pa.array(list(annotations.genes)),
            "terms": pa.array(
                [sorted(numbers[index] for index in own) for own in annotations.genes.values()], pa.list_(pa.int32())
            ),
        }
    )
    pq.write_table(terms, terms_path, compression="zstd", compression_level=19)
    pq.write_table(genes, annotations_path, compression="zstd", compression_level=19)


def _term_number(term_id: str) -> int:
    return int(term_id.removeprefix("GO:"))


def _read_compact_terms(path: Path) -> _Ontology:
    columns = read_parquet(path).to_pydict()
    terms = [
        Term(f"GO:{number:07}", name, aspect)
        for number, name, aspect in zip(columns["number"], columns["name"], columns["aspect"], strict=True)
    ]
    return _Ontology({term.id: term for term in terms}, {})


def _read_compact_pairs(path: Path) -> tuple[list[tuple[str, str]], dict[str, int]]:
    columns = read_parquet(path).to_pydict()
    pairs = [
        (symbol, f"GO:{number:07}")
        for symbol, numbers in zip(columns["symbol"], columns["terms"], strict=True)
        for number in numbers
    ]
    return pairs, {"annotations": len(pairs)}


@lru_cache(maxsize=1)  # two verifiers build from it in one run, and parsing takes ten seconds
def _read_ontology(path: Path) -> _Ontology:
    import pronto  # only builders have it

    with warnings.catch_warnings():
        # pronto warns of OBO clauses that it does not know; names and namespaces are not among them.
        warnings.simplefilter("ignore")
        ontology = pronto.Ontology(path)  # type: ignore[attr-defined]
    terms: dict[str, Term] = {}
    parents: dict[str, list[str]] = {}
    synonyms: dict[str, list[tuple[str, str]]] = {}
    relationships = _read_relationships(path)
    regulated: dict[str, list[str]] = {}
    replaced: dict[str, str] = {}
    for entry in ontology.terms():
        names = [(synonym.description, str(synonym.scope)) for synonym in entry.synonyms]
        if entry.obsolete:
            for replacing in entry.replaced_by:
                replaced.setdefault(entry.id, replacing.id)
                bare = str(entry.name).removeprefix("obsolete ")
                synonyms.setdefault(replacing.id, []).extend([(bare, "EXACT"), *names])
        if entry.obsolete or entry.name is None or entry.namespace not in ASPECT_OF_NAMESPACE:
            continue
        definition = str(entry.definition or "")
        term = Term(entry.id, entry.name, ASPECT_OF_NAMESPACE[entry.namespace], definition)
        for alternative in entry.alternate_ids:
            terms.setdefault(alternative, term)
        terms[term.id] = term
        synonyms.setdefault(term.id, []).extend(names)
        own = relationships.get(term.id, ())
        wholes = [other for kind, other in own if kind == "part_of"]
        parents[term.id] = [*(one.id for one in entry.superclasses(distance=1, with_self=False)), *wholes]
        regulated[term.id] = [other for kind, other in own if kind.endswith("regulates")]
    if not terms:
        raise ArtifactError(f"source go-basic.obo: {path} holds no term of the Gene Ontology")
    return _Ontology(terms, parents, synonyms, regulated, replaced)


def _read_relationships(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Id → (kind, other id). Read here, because pronto leaves out those whose kind the file does not define."""
    found: dict[str, list[tuple[str, str]]] = {}
    term_id = ""
    with open_bytes(path) as lines:
        for line in lines:
            if line.startswith(b"id: "):
                term_id = line[4:].decode().strip()
            elif line.startswith(b"relationship: "):
                kind, other = line.decode().split()[1:3]
                found.setdefault(term_id, []).append((kind, other))
    return found


def read_uniprot_ids(path: Path) -> dict[str, tuple[str, ...]]:
    """Symbol → UniProt ids that a GAF file annotates under it; nothing if it annotates other entries than UniProt's.

    The compact form that ships with the package has none.
    """
    if path.suffix == ".parquet":
        return {}
    table, _ = _human_annotations(path, [_DATABASE, _ACCESSION, _SYMBOL])
    entries = table.filter(pc.equal(table[_DATABASE], "UniProtKB")).group_by([_SYMBOL, _ACCESSION]).aggregate([])
    ids: dict[str, list[str]] = {}
    for symbol, accession in sorted(zip(entries[_SYMBOL].to_pylist(), entries[_ACCESSION].to_pylist(), strict=True)):
        ids.setdefault(symbol, []).append(accession)
    return {symbol: tuple(own) for symbol, own in ids.items()}


def _read_gaf(path: Path, *, electronic: bool) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """(symbol, term id) of all annotations that affirm something."""
    table, n_other_species = _human_annotations(path, [_SYMBOL, _QUALIFIER, _TERM, _EVIDENCE_CODE])
    qualifier, code = table[_QUALIFIER].combine_chunks(), table[_EVIDENCE_CODE].combine_chunks()
    is_denied = np.asarray(pc.match_substring_regex(qualifier, r"(?:^|\|)NOT(?:\||$)"))
    is_no_data = np.asarray(pc.equal(code, "ND"))
    is_electronic = np.asarray(pc.equal(code, "IEA"))
    kept = table.filter(pa.array(~is_denied & ~is_no_data & (electronic | ~is_electronic)))
    counts = {
        "annotations": table.num_rows,
        "annotations_other_species": n_other_species,
        "annotations_not": int(is_denied.sum()),
        "annotations_nd": int(is_no_data.sum()),
        "annotations_iea": int(is_electronic.sum()),
    }
    return list(zip(kept[_SYMBOL].to_pylist(), kept[_TERM].to_pylist(), strict=True)), counts


def _human_annotations(path: Path, columns: list[str]) -> tuple[pa.Table, int]:
    """The annotations of human genes, and how many there are of other species'."""
    table = _gaf_table(path, [*columns, _TAXON])
    # Of an interaction of two organisms the first is the gene's own.
    taxon = pc.list_element(pc.split_pattern(table[_TAXON].combine_chunks(), "|"), 0)
    is_human = pc.equal(pc.utf8_trim_whitespace(taxon), _HUMAN)
    human = table.filter(is_human)
    if not human.num_rows:
        seen = ", ".join(pc.unique(taxon).to_pylist()[:5]) or "no annotation at all"
        raise ArtifactError(f"source goa_human.gaf: {path} holds no annotation of {_HUMAN}, the human, but {seen}")
    return human.drop_columns([_TAXON]), table.num_rows - human.num_rows


def _gaf_table(path: Path, columns: list[str]) -> pa.Table:
    try:
        with open_bytes(path) as file:
            # Comments stand at the beginning, and in joined files between the annotations, too.
            body = _COMMENT.sub(b"", file.read())
    except UNREADABLE as error:
        raise ArtifactError(f"source goa_human.gaf: {path} cannot be read ({one_line(error)})") from error
    n_columns = body[: body.find(b"\n")].count(b"\t") + 1
    if n_columns not in _GAF_COLUMNS:
        raise ArtifactError(
            f"source goa_human.gaf: {path} has {n_columns} columns; a GAF file has 17, parted by tabs, or 15 or 16"
        )
    names = [f"f{number}" for number in range(n_columns)]
    wrong: list[str] = []

    def note(row: pacsv.InvalidRow) -> str:
        wrong.append(
            f'an annotation has {row.actual_columns} columns, the first {row.expected_columns}: "{row.text[:60]}"'
        )
        return "error"

    try:
        return pacsv.read_csv(
            io.BytesIO(body),
            read_options=pacsv.ReadOptions(column_names=names),
            parse_options=pacsv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=note),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=columns,
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise ArtifactError(
            f"source goa_human.gaf: {path} is no GAF file: {one_line(wrong[0] if wrong else error)}"
        ) from error
