"""Human Gene Ontology annotations: which terms are directly annotated to which gene.

The ontology (OBO) is read by pronto, the annotations (GAF 2.2) by Arrow's CSV reader. Annotations with the qualifier
NOT say what a gene does not do, and those with the evidence code ND that nothing is known; both are dropped. Symbols
are resolved to current ones. The compact form that ships with the package holds the same after these steps.
"""

from __future__ import annotations

import gzip
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.sources import GO_ANNOTATIONS, GO_TERMS, Sources
from bioverify.artifacts.store import SourceRecord
from bioverify.artifacts.tables import read_table
from bioverify.core.genes import GeneResolver

ASPECT_OF_NAMESPACE = {"cellular_component": "C", "molecular_function": "F", "biological_process": "P"}
_GAF_COLUMNS = 17
_SYMBOL, _QUALIFIER, _TERM, _EVIDENCE_CODE = "f2", "f3", "f4", "f6"


@dataclass(frozen=True)
class Term:
    id: str
    name: str
    aspect: str
    """C, F or P."""


@dataclass(frozen=True)
class Annotations:
    """``genes``: current symbol → indices into ``terms``, each set sorted by term name."""

    terms: list[Term]
    genes: dict[str, list[int]]
    counts: dict[str, int]
    records: list[SourceRecord]


def read_annotations(sources: Sources, resolver: GeneResolver, *, progress: Callable[[str], None]) -> Annotations:
    """All direct human annotations. ``terms`` holds the annotated terms only, by name."""
    terms_file, annotations_file = sources.locate(GO_TERMS), sources.locate(GO_ANNOTATIONS)
    progress(f"GO: reading {terms_file.path.name} ({terms_file.kind})")
    compact = terms_file.path.suffix == ".parquet"
    terms = _read_compact_terms(terms_file.path) if compact else _read_ontology(terms_file.path)
    progress(f"GO: {len(terms):,} names of terms; reading {annotations_file.path.name} ({annotations_file.kind})")
    compact = annotations_file.path.suffix == ".parquet"
    pairs, counts = (_read_compact_pairs if compact else _read_gaf)(annotations_file.path)

    of_symbol: dict[str, set[Term]] = {}
    unresolved: set[str] = set()
    n_without_term = 0
    for symbol, term_id in pairs:
        gene = resolver.resolve(symbol)
        term = terms.get(term_id)
        if not isinstance(gene, str):
            unresolved.add(symbol)
        elif term is None:
            n_without_term += 1
        else:
            of_symbol.setdefault(gene, set()).add(term)
    used = sorted({term for own in of_symbol.values() for term in own}, key=lambda term: (term.name, term.id))
    index = {term: position for position, term in enumerate(used)}
    genes = {symbol: sorted(index[term] for term in of_symbol[symbol]) for symbol in sorted(of_symbol)}
    counts |= {
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


def _read_compact_terms(path: Path) -> dict[str, Term]:
    columns = read_table(path).to_pydict()
    terms = [
        Term(f"GO:{number:07}", name, aspect)
        for number, name, aspect in zip(columns["number"], columns["name"], columns["aspect"], strict=True)
    ]
    return {term.id: term for term in terms}


def _read_compact_pairs(path: Path) -> tuple[list[tuple[str, str]], dict[str, int]]:
    columns = read_table(path).to_pydict()
    pairs = [
        (symbol, f"GO:{number:07}")
        for symbol, numbers in zip(columns["symbol"], columns["terms"], strict=True)
        for number in numbers
    ]
    return pairs, {"annotations": len(pairs)}


@lru_cache(maxsize=1)  # two verifiers build from it in one run, and parsing takes ten seconds
def _read_ontology(path: Path) -> dict[str, Term]:
    """Live terms by id and by alternative id."""
    import pronto  # only builders have it

    with warnings.catch_warnings():
        # pronto warns of OBO clauses that it does not know; names and namespaces are not among them.
        warnings.simplefilter("ignore")
        ontology = pronto.Ontology(path)  # type: ignore[attr-defined]
    terms: dict[str, Term] = {}
    for entry in ontology.terms():
        if entry.obsolete or entry.name is None or entry.namespace not in ASPECT_OF_NAMESPACE:
            continue
        term = Term(entry.id, entry.name, ASPECT_OF_NAMESPACE[entry.namespace])
        for alternative in entry.alternate_ids:
            terms.setdefault(alternative, term)
        terms[term.id] = term
    if not terms:
        raise ArtifactError(f"source go-basic.obo: {path} holds no term of the Gene Ontology")
    return terms


def _read_gaf(path: Path) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """(symbol, term id) of all annotations that affirm something."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    body_start = 0
    while raw.startswith(b"!", body_start):
        body_start = raw.index(b"\n", body_start) + 1
    names = [f"f{number}" for number in range(_GAF_COLUMNS)]
    try:
        table = pacsv.read_csv(
            io.BytesIO(raw[body_start:]),
            read_options=pacsv.ReadOptions(column_names=names),
            parse_options=pacsv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=[_SYMBOL, _QUALIFIER, _TERM, _EVIDENCE_CODE],
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise ArtifactError(f"source goa_human.gaf: {path} is no GAF 2.2 with 17 columns: {error}") from error
    qualifier, code = table[_QUALIFIER].combine_chunks(), table[_EVIDENCE_CODE].combine_chunks()
    is_denied = np.asarray(pc.match_substring_regex(qualifier, r"(?:^|\|)NOT(?:\||$)"))
    is_no_data = np.asarray(pc.equal(code, "ND"))
    kept = table.filter(pa.array(~is_denied & ~is_no_data))
    counts = {
        "annotations": table.num_rows,
        "annotations_not": int(is_denied.sum()),
        "annotations_nd": int(is_no_data.sum()),
    }
    return list(zip(kept[_SYMBOL].to_pylist(), kept[_TERM].to_pylist(), strict=True)), counts
