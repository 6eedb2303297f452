"""Makes the ``claims`` artifact: phrases of terms and genes, who is annotated with what and by which evidence, and the
training rows of the screens. No test row is read.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bioverify.artifacts.arrow import write_served
from bioverify.artifacts.errors import ArtifactError, one_line
from bioverify.artifacts.genes import Gene, locate_official_names, read_genes, read_official_names
from bioverify.artifacts.go import Facts, Term, read_facts
from bioverify.artifacts.links import STRING_ID, names_of_proteins, open_lines, read_links
from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.responses import CHANGED, DECREASED, INCREASED, NOT_MEASURED, UNCHANGED
from bioverify.artifacts.sources import GENES, STRING_PROTEINS, Sources
from bioverify.artifacts.store import ArtifactStore, Manifest, SourceRecord
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import SIMULATED_REMARK
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.claims.artifact import (
    CALLED_FILE,
    CODES_FILE,
    GENES_FILE,
    IDS_FILE,
    LINKS_FILE,
    MENTIONS_FILE,
    NAME,
    NETWORKS_FILE,
    PHRASES_FILE,
    SCREEN_FILE,
    TERMS_FILE,
    WORDS_FILE,
)
from bioverify.verifiers.claims.extraction import WORDS_OF_ROLES
from bioverify.verifiers.claims.knowledge import LEAST_BITS
from bioverify.verifiers.claims.lexicon import (
    NOT_FORMS,
    NOT_SAID,
    PHASES,
    SCOPES,
    SHORT_FORMS,
    family_of,
    forms_of_term,
    is_telling,
    names_a_family,
    shared_runs,
)
from bioverify.verifiers.claims.phrases import FIRST_STEM, FIRST_SYMBOL, UNKNOWN, Words, parts_of, stem_of
from bioverify.verifiers.claims.settings import Network, Settings

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]

MIN_ALIAS, MIN_LETTERS = 3, 5
"""Characters of an alias, and of one without a digit that was never the symbol: NER is nucleotide excision repair."""
WHOLE_NAME = 3
"""Words of a gene's name from which all of it tells the gene, general as each of them is."""
_NO_SYMBOL = re.compile(r"LOC\d+")
_UNIVERSAL = ("RNA", "DNA", "ATP", "GTP", "ADP", "GDP", "AMP", "NAD", "NADH", "MHC", "II", "III", "P450")


@dataclass(frozen=True)
class _Ontology:
    ids: list[str]
    row: dict[str, int]
    ancestors: list[list[int]]
    """Of each row, itself among them, sorted."""


def build(
    store: ArtifactStore,
    sources: Sources,
    *,
    progress: Callable[[str], None],
    settings: Settings = Settings(),  # noqa: B008  frozen
) -> Manifest:
    """Make the artifact, after ``genes``. Raises ArtifactError for a network that cannot be read."""
    resolver, genes = open_genes(store, in_memory=True)
    facts = read_facts(sources, resolver, progress=progress)
    located, named = sources.locate(GENES), locate_official_names(sources)
    all_genes = read_genes(located, [name for one in named for name in read_official_names(one.path)])
    annotated = {gene for gene, _ in facts.affirmed}
    kept = [gene for gene in all_genes if gene.kind == "protein-coding" or gene.symbol in annotated]
    gene_row = {gene.symbol: row for row, gene in enumerate(kept)}
    ontology = _ontology(facts)
    terms_of = _rows_by_gene(facts.affirmed, gene_row, ontology)
    denied_of = _with_all_below(_rows_by_gene(facts.denied, gene_row, ontology), facts, ontology)
    closures = [sorted({up for term in own for up in ontology.ancestors[term]}) for own in terms_of]
    bits = _bits(closures, len(ontology.ids))

    has_gene = set().union(*closures)
    phrases = _phrases_of_terms(facts, ontology, bits, has_gene)
    of_names, called_of = _phrases_of_names(kept)
    of_names = {text: own for text, own in of_names.items() if math.log2(len(kept) / len(own)) >= LEAST_BITS}
    mentions = _mentions(kept, resolver, facts)
    often: Counter[str] = Counter()
    for part, n in Counter(part for text in (*phrases, *of_names, *WORDS_OF_ROLES) for part in parts_of(text)).items():
        often[stem_of(part)] += n
    # Frequent stems have the small characters, which are short in UTF-8: the automaton is built in half the time.
    stems = sorted(often, key=lambda stem: (-often[stem], stem))
    words = Words({stem: at for at, stem in enumerate(stems)}, {name: at for at, name in enumerate(mentions)}, {})
    encoded = _encoded(words, phrases, of_names)
    called_of_phrase = {words.encode(text): rows for text, rows in called_of.items()}

    screens = read_tables(sources, progress=progress)
    pairs, responses = _training_rows(screens.rows, resolver, gene_row)
    linked = [_links(network, sources, resolver, gene_row) for network in settings.networks]
    codes: dict[str, int] = {}
    direct_codes = [
        [
            codes.setdefault(_shown_codes(frozenset(facts.affirmed[gene.symbol, ontology.ids[term]])), len(codes))
            for term in own
        ]
        for gene, own in zip(kept, terms_of, strict=True)
    ]
    with store.building(NAME) as folder:
        write_served(pa.table({"stem": stems}), folder.path / WORDS_FILE)
        write_served(
            pa.table(
                {
                    "phrase": list(encoded),
                    "terms": _lists([own[0] for own in encoded.values()], len(ontology.ids)),
                    "names": _lists([own[1] for own in encoded.values()], len(kept)),
                }
            ),
            folder.path / PHRASES_FILE,
        )
        own = [called_of_phrase.get(phrase, []) for phrase in encoded]
        write_served(pa.table({"genes": _lists(own, len(kept))}), folder.path / CALLED_FILE)
        live = [facts.terms[term_id] for term_id in ontology.ids]
        write_served(
            pa.table(
                {
                    "id": pa.array([int(term.id.removeprefix("GO:")) for term in live], pa.int32()),
                    "name": [term.name for term in live],
                    "aspect": [term.aspect for term in live],
                    "bits": pa.array(bits, pa.float32()),
                    "ancestors": _lists(ontology.ancestors, len(ontology.ids)),
                }
            ),
            folder.path / TERMS_FILE,
        )
        ids = sorted(
            (int(term_id.removeprefix("GO:")), ontology.row[facts.terms[now].id])
            for term_id, now in ({term_id: term_id for term_id in facts.terms} | facts.replaced).items()
            if now in facts.terms
        )
        write_served(
            pa.table(
                {
                    "id": pa.array([one[0] for one in ids], pa.int32()),
                    "term": pa.array([one[1] for one in ids], pa.int32()),
                }
            ),
            folder.path / IDS_FILE,
        )
        write_served(
            pa.table(
                {
                    "symbol": [gene.symbol for gene in kept],
                    "terms": _lists(closures, len(ontology.ids)),
                    "direct": _lists(terms_of, len(ontology.ids)),
                    "codes": _lists(direct_codes, len(codes)),
                    "denied": _lists(denied_of, len(ontology.ids)),
                }
            ),
            folder.path / GENES_FILE,
        )
        write_served(
            pa.table({"name": list(mentions), "gene": pa.array(list(mentions.values()), pa.int32())}),
            folder.path / MENTIONS_FILE,
        )
        write_served(pa.table({"codes": list(codes)}), folder.path / CODES_FILE)
        narrow = pairs.astype(np.min_scalar_type(len(CELL_LINES) * len(kept) ** 2))
        write_served(pa.table({"pair": narrow, "response": responses}), folder.path / SCREEN_FILE)
        records = [*facts.records, located.record, *(one.record for one in named), *screens.records]
        if linked:
            of_links = np.concatenate([own for own, _ in linked])
            network_of = np.repeat(np.arange(len(linked), dtype=np.int32), [len(own) for own, _ in linked])
            order = np.argsort(of_links, kind="stable")
            table = pa.table({"pair": of_links[order], "network": network_of[order]})
            write_served(table, folder.path / LINKS_FILE)
            told = {"name": [one.name for one in settings.networks], "says": [one.says for one in settings.networks]}
            write_served(pa.table(told), folder.path / NETWORKS_FILE)
            records = list(dict.fromkeys([*records, *(record for _, own in linked for record in own)]))
        manifest = folder.commit(
            description="Phrases that name Gene Ontology terms and human genes, which gene is annotated with what, and "
            + ("a simulated screen, not an experiment." if screens.simulated else "training rows of the screens."),
            license="; ".join(dict.fromkeys(record.license for record in records)),
            sources=records,
            simulated=screens.simulated,
            inputs=[genes],
            parameters={
                "lines": list(CELL_LINES),
                "screen": SIMULATED_REMARK if screens.simulated else "PerturbQA train",
                "scopes": sorted(SCOPES),
                "relations": "is_a, part_of, regulates" if facts.parents else "none: the compact form has no relations",
            },
            counts={
                "genes": len(kept),
                "annotated_genes": sum(map(bool, terms_of)),
                "terms": len(ontology.ids),
                "phrases": len(encoded),
                "phrases_of_names": sum(bool(own[1]) for own in encoded.values()),
                "mentions": len(mentions),
                "denied": sum(map(len, denied_of)),
                "measured_pairs": len(pairs),
                **{
                    f"links.{network.name}": len(own)
                    for network, (own, _) in zip(settings.networks, linked, strict=True)
                },
            },
        )
    progress(f"claims: {len(encoded):,} phrases, {len(kept):,} genes, {len(ontology.ids):,} terms")
    return manifest


def _lists(rows: Sequence[Sequence[int]], below: int) -> pa.Array:
    """In two bytes a number if all are below 65,536: half of what the service holds in memory is such lists."""
    return pa.array(rows, pa.list_(pa.uint16() if below < 1 << 16 else pa.int32()))


def _training_rows(rows: pa.Table, resolver: GeneResolver, gene_row: Mapping[str, int]) -> tuple[Int64s, Int8s]:
    """Sorted pairs of genes that are known here, as `artifact.SCREEN_FILE` numbers them, and their responses.

    A direction counts only for a pair that has a row of the other kind, which might be a held-out one. Pairs whose rows
    contradict each other are left out; of those with both directions it is known that they change.
    """
    rows = rows.filter(pc.equal(rows["split"], "train"))

    def coded(name: str, numbers_of: Callable[[list[str]], list[int]]) -> Int64s:
        column = rows[name].combine_chunks()
        of_code = np.array(numbers_of(column.dictionary.to_pylist()), np.int64)
        chosen: Int64s = of_code[column.indices.to_numpy()]
        return chosen

    def genes_of(names: list[str]) -> list[int]:
        of_column = resolver.of_column(names)
        return [gene_row.get(str(of_column.resolve(name)), -1) for name in names]

    perturbation, measured = coded("perturbation", genes_of), coded("measured_gene", genes_of)
    line = coded("line", lambda names: [CELL_LINES.index(name) for name in names])
    is_de = coded("task_kind", lambda names: [name == TaskKind.DIFFERENTIAL_EXPRESSION for name in names])
    is_one = rows["label"].to_numpy() == 1
    seen_by_row = 1 << np.where(is_de, np.where(is_one, _CHANGED, _UNCHANGED), np.where(is_one, _UP, _DOWN))
    known = (perturbation >= 0) & (measured >= 0)
    n_genes = len(gene_row)
    pairs, at = np.unique(((line * n_genes + perturbation) * n_genes + measured)[known], return_inverse=True)
    seen = np.zeros(len(pairs), np.int64)
    np.bitwise_or.at(seen, at, seen_by_row[known])
    responses = _TOGETHER[seen]
    says = responses != NOT_MEASURED
    return pairs[says], responses[says]


_DOWN, _UNCHANGED, _UP, _CHANGED = range(4)


def _together(seen: int) -> int:
    down, unchanged, up, changed = (bool(seen >> kind & 1) for kind in (_DOWN, _UNCHANGED, _UP, _CHANGED))
    if unchanged:
        return NOT_MEASURED if changed or up or down else UNCHANGED
    if not changed:
        return NOT_MEASURED
    return CHANGED if up == down else INCREASED if up else DECREASED


_TOGETHER = np.array([_together(seen) for seen in range(16)], np.int8)
"""Of the kinds of rows that a pair has, as bits."""


def _links(
    network: Network, sources: Sources, resolver: GeneResolver, gene_row: Mapping[str, int]
) -> tuple[Int64s, list[SourceRecord]]:
    """Its pairs as `artifact.LINKS_FILE` numbers them, sorted, and what was read. Raises ArtifactError."""
    try:
        with open_lines(network.file) as lines:
            named = set(read_links(network.file, lines, least_score=network.least_score))
        records = [network.record]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, zipfile.BadZipFile) as error:
        raise ArtifactError(f"network {network.name}: {network.file} cannot be read ({one_line(error)})") from error
    names: Mapping[str, str] = {}
    if any(STRING_ID.fullmatch(one) for one, _ in named):
        proteins = sources.locate(STRING_PROTEINS)
        names, records = names_of_proteins(proteins.path), [*records, proteins.record]
    row_of = {name: gene_row.get(str(resolver.resolve(names.get(name, name))), -1) for pair in named for name in pair}
    rows = [(row_of[one], row_of[other]) for one, other in named]
    pairs = {
        first * len(gene_row) + second
        for first, second in (rows if network.says == "regulates" else map(sorted, rows))
        if min(first, second) >= 0 and first != second
    }
    if not pairs:
        raise ArtifactError(
            f"network {network.name}: {network.file} names no pair of known genes; expected STRING's links, BioGRID, "
            f"IntAct, or two names a line and perhaps a score of at least {network.least_score:g}"
        )
    return np.array(sorted(pairs), np.int64), records


def _ontology(facts: Facts) -> _Ontology:
    ids = sorted({term.id for term in facts.terms.values()})
    row = {term_id: at for at, term_id in enumerate(ids)}
    found: dict[str, set[str]] = {}

    def ancestors(term_id: str) -> set[str]:
        known = found.get(term_id)
        if known is None:
            known = {term_id}
            for parent in (*facts.parents.get(term_id, ()), *facts.regulated.get(term_id, ())):
                if parent in facts.terms:
                    known |= ancestors(facts.terms[parent].id)
            found[term_id] = known
        return known

    row |= {alternative: row[term.id] for alternative, term in facts.terms.items()}
    return _Ontology(ids, row, [sorted(row[up] for up in ancestors(term_id)) for term_id in ids])


def _rows_by_gene(
    said: Mapping[tuple[str, str], set[str]], gene_row: Mapping[str, int], ontology: _Ontology
) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in gene_row]
    for symbol, term_id in said:
        if symbol in gene_row:
            rows[gene_row[symbol]].append(ontology.row[term_id])
    return [sorted(own) for own in rows]


def _with_all_below(rows: list[list[int]], facts: Facts, ontology: _Ontology) -> list[list[int]]:
    """Who has not a term has no kind and no part of it either; what regulates it is another matter."""
    children: dict[int, list[int]] = defaultdict(list)
    for term_id, parents in facts.parents.items():
        for parent in parents:
            if parent in facts.terms:
                children[ontology.row[facts.terms[parent].id]].append(ontology.row[term_id])
    found = []
    for own in rows:
        below: set[int] = set()
        waiting = list(own)
        while waiting:
            term = waiting.pop()
            if term not in below:
                below.add(term)
                waiting.extend(children[term])
        found.append(sorted(below))
    return found


def _bits(closures: Sequence[Sequence[int]], n_terms: int) -> Float64s:
    """Information content of each term; of one that no gene has, that of one gene's."""
    counts = np.bincount(np.concatenate([np.asarray(own, np.int64) for own in closures]), minlength=n_terms)
    n_annotated = sum(map(bool, closures))
    return np.log2(n_annotated / np.maximum(counts, 1))


def _phrases_of_terms(facts: Facts, ontology: _Ontology, bits: Float64s, has_gene: set[int]) -> dict[str, list[int]]:
    """Text → rows of the terms that it names. A name counts before a synonym, and that before a form of prose.

    Of terms that no gene has, only names and exact synonyms: what is said of them can but be unsupported.
    """
    ranked: dict[str, tuple[int, list[int]]] = {}

    def add(text: str, row: int, rank: int) -> None:
        key = text.lower() if text[:1].isupper() and text[1:2].islower() else text
        held = ranked.get(key)
        if held is None or rank < held[0]:
            ranked[key] = (rank, [row])
        elif rank == held[0] and row not in held[1]:
            held[1].append(row)

    phases = ontology.row.get(PHASES, -1)
    for row, term_id in enumerate(ontology.ids):
        term = facts.terms[term_id]
        if term_id in NOT_SAID or phases in ontology.ancestors[row]:
            continue
        names = [(term.name, 0)]
        ranks = {"EXACT": 1, "NARROW": 2, "RELATED": 4}
        names += [(text, ranks[scope]) for text, scope in facts.synonyms.get(term_id, ()) if scope in SCOPES]
        names += [(text, 2) for text in SHORT_FORMS.get(term_id, ())]
        for name, rank in names:
            if rank > 1 and row not in has_gene:
                continue
            if rank > 1 and len(name.split()) == 1 and name not in SHORT_FORMS.get(term_id, ()):
                continue  # "tRNA" is a synonym of an activity
            if name in NOT_FORMS or (name not in SHORT_FORMS.get(term_id, ()) and _names_another(name, rank, term)):
                continue
            for number, form in enumerate(forms_of_term(name, term.aspect)):
                if number == 0 or (rank <= 1 and row in has_gene):
                    add(form, row, rank if number == 0 else rank + 3)
    return {text: own for text, (_, own) in ranked.items() if bits[own].max() >= LEAST_BITS}


def _names_another(name: str, rank: int, term: Term) -> bool:
    """ "Insulin-like growth factor" is a synonym of binding its receptor, "respiratory complex II" of an activity."""
    if rank <= 1 or term.aspect != "F":
        return False
    return (term.name.endswith(" binding") and "bind" not in name) or "complex" in name.split()


def _phrases_of_names(genes: Sequence[Gene]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Text → rows of the genes that are called so, or whose name has it in it; and of those called so alone.

    Genes without a symbol of their own (LOC…) are predicted, and called by what others are.
    """
    found: dict[str, set[int]] = defaultdict(set)
    called: dict[str, list[int]] = defaultdict(list)
    own = [row for row, gene in enumerate(genes) if not _NO_SYMBOL.fullmatch(gene.symbol)]
    names = [parts_of(genes[row].name) for row in own]
    for row, parts in zip(own, names, strict=True):
        if len(parts) >= WHOLE_NAME or is_telling(parts):
            found[" ".join(parts)].add(row)
            called[" ".join(parts)].append(row)
        family = parts_of(family_of(genes[row].name))
        if family and is_telling(family):
            found[" ".join(family)].add(row)
            if family != parts and names_a_family(family):
                called[" ".join(family)].append(row)
    for run, at in shared_runs(names).items():
        found[" ".join(run)] |= {own[one] for one in at}
    return {text: sorted(rows) for text, rows in found.items()}, called


def _mentions(genes: Sequence[Gene], resolver: GeneResolver, facts: Facts) -> dict[str, int]:
    """Symbols, and aliases that mean one gene and are no word of the ontology, as they are written; sorted by bytes."""
    called = [term.name for term in facts.terms.values()]
    called += [text for own in facts.synonyms.values() for text, _ in own]
    in_terms = {word for name in called for word in name.replace("-", " ").split()}
    row = {gene.symbol: at for at, gene in enumerate(genes)}
    found = {gene.symbol: at for at, gene in enumerate(genes) if gene.symbol not in _UNIVERSAL}
    for at, gene in enumerate(genes):
        for alias in (*gene.previous, *gene.aliases):
            has_digit = any(map(str.isdigit, alias))
            is_long = len(alias) >= (MIN_ALIAS if has_digit or alias in gene.previous else MIN_LETTERS)
            is_name = is_long and alias not in _UNIVERSAL and (has_digit or not alias.islower())
            is_word = (
                (alias in in_terms and alias.isalpha())
                or not any(one.isalpha() for one in alias)
                or alias[1:].islower()
            )
            is_plain = alias.replace("-", "").isalnum() and alias.isascii()
            if is_name and not is_word and is_plain and row.get(str(resolver.resolve(alias))) == at:
                found.setdefault(alias, at)
    return {name: found[name] for name in sorted(found, key=str.encode)}


def _encoded(
    words: Words, of_terms: Mapping[str, list[int]], of_names: Mapping[str, list[int]]
) -> dict[str, tuple[list[int], list[int]]]:
    """Phrase → (terms, names), sorted by phrase."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for which, phrases in enumerate((of_terms, of_names)):
        for text, rows in phrases.items():
            phrase = words.encode(text)
            if (
                phrase
                and UNKNOWN not in phrase
                and not all(ord(one) >= FIRST_SYMBOL or ord(one) < FIRST_STEM for one in phrase)
            ):
                held = found.setdefault(phrase, ([], []))[which]
                held.extend(row for row in rows if row not in held)
    return {phrase: found[phrase] for phrase in sorted(found)}


@cache
def _shown_codes(codes: frozenset[str]) -> str:
    """Experimental and curated evidence before that which nobody looked at."""
    return ", ".join(sorted(filter(None, codes), key=lambda code: (code in {"IEA", "ND"}, code)))
