"""Gene Ontology ROUGE: does the text say what is known of the question's genes?

The reference of a gene is the text of its annotated terms, each once, in alphabetical order of their names: the names,
and the definitions if the artifact was built so; direct terms, or with all that follow from them. The candidate is
what the completion says of the gene: the ``<gene_info>`` blocks that name it, else all of them, else the thoughts. A
gene's score is the mean of ROUGE-1, ROUGE-2 and ROUGE-L F-measure, an item's the mean over its genes. References are
prepared once at first use, candidates encoded once per distinct text, and a batch is scored as one array (`rouge`).

Source: rbio's public history for the reward, the Gene Ontology (CC BY 4.0) for the terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.core.completions import TaggedText, mentions
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import Evidence, NotApplicable, Outcome, Scored
from bioverify.core.tasks import GeneAnnotation, TaskKind
from bioverify.core.verifier import UNRECOGNISED_QUESTION, ArtifactIdentity, Description, Item, Reads, spread
from bioverify.verifiers.go_rouge.artifact import GENES_FILE, NAME, TERMS_FILE
from bioverify.verifiers.go_rouge.rouge import Reference, Vocabulary, rouge

ASPECTS = ("C", "F", "P")
MAX_MATCHED_TERMS = 5

_KINDS = tuple(TaskKind)
_SOURCE = "Gene Ontology"
_ABSENT = "no_text"


@dataclass(frozen=True, slots=True)
class _Term:
    name: str
    aspect: str
    text: str
    """What stands in the reference: the name, and the definition if the artifact has one."""
    encoded: str
    encoded_name: str


@dataclass(frozen=True, slots=True)
class _GeneTerms:
    """A gene's terms, and their joined texts per aspect, prepared: all, then C, F, P, empty if it has none."""

    terms: tuple[_Term, ...]
    aspects: frozenset[str]
    reference: Reference


@dataclass(frozen=True, slots=True)
class _GeneScore:
    """``rouge``: per aspect ROUGE-1, -2 and -L."""

    symbol: str
    rouge: list[list[float]]
    known: _GeneTerms
    text: str
    encoded_text: str


class GoRouge:
    """Soft score of what a completion says about its genes; holds no belief about yes or no."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.COMPLETION

    def __init__(
        self,
        resolver: GeneResolver,
        *,
        terms: Sequence[tuple[str, str, str]],
        symbols: Sequence[str],
        term_offsets: npt.NDArray[np.int32],
        term_indices: npt.NDArray[np.int32],
        artifacts: tuple[ArtifactIdentity, ...] = (),
    ) -> None:
        """``terms``: (name, aspect, definition or nothing), by name. Gene i has
        ``term_indices[term_offsets[i]:term_offsets[i + 1]]``."""
        self._resolver = resolver
        self._row = {symbol: row for row, symbol in enumerate(symbols)}
        self._term_offsets, self._term_indices = term_offsets, term_indices
        texts = [f"{name} {definition}" if definition else name for name, _, definition in terms]
        self._vocabulary = Vocabulary(texts)
        encode = self._vocabulary.encode
        self._terms = [
            _Term(name, aspect, text, encoded := encode(text), encode(name) if definition else encoded)
            for (name, aspect, definition), text in zip(terms, texts, strict=True)
        ]
        self._known: dict[str, _GeneTerms] = {}
        self.description = Description(
            name=NAME,
            version="3",
            summary="Agreement of what the text says about the genes with their Gene Ontology annotations (ROUGE).",
            task_kinds=_KINDS,
            reads=self.reads,
            holds_belief=False,
            components={
                "C": "Mean of the three ROUGE scores against cellular components; absent without annotation there.",
                "F": "The same against molecular functions.",
                "P": "The same against biological processes.",
                "rouge1": "ROUGE-1 F-measure against all annotated terms, mean over the genes.",
                "rouge2": "ROUGE-2 F-measure, likewise.",
                "rougeL": "ROUGE-L F-measure, likewise.",
                _ABSENT: "1 if the completion has neither a gene_info block nor thoughts; the scores are then 0.",
            },
            artifacts=artifacts,
        )

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Value: mean over the genes of the mean of ROUGE-1, -2, -L F-measure.

        Not applicable: ``unknown_gene``, ``ambiguous_gene``, ``unannotated_gene`` (of any of the item's genes).
        """
        outcomes: list[Outcome | None] = []
        asked: list[tuple[int, list[str], list[str]]] = []
        encoded: dict[str, str] = {}
        for position, item in enumerate(items):
            symbols = self._symbols_of(item)
            if isinstance(symbols, NotApplicable):
                outcomes.append(symbols)
                continue
            outcomes.append(None)
            assert item.task is not None
            texts = _texts_of(item.completion, list(zip(item.task.genes, symbols, strict=True)))
            encoded.update((text, self._vocabulary.encode(text)) for text in texts if text not in encoded)
            asked.append((position, symbols, texts))
        pairs = [(symbol, text) for _, symbols, texts in asked for symbol, text in zip(symbols, texts, strict=True)]
        scores = self._score_pairs(pairs, encoded)
        for position, symbols, texts in asked:
            own = [next(scores) for _ in symbols]
            has_text = any(text.strip() for text in texts)
            outcomes[position] = self._outcome(own, has_text=has_text, with_evidence=with_evidence)
        return [outcome for outcome in outcomes if outcome is not None]

    def canary(self) -> tuple[Item, Outcome]:
        """The first gene with a text of several words, described by that text: scores of 1 over all aspects."""
        symbol = next(symbol for symbol in self._row if self._terms_of(symbol).reference.lengths[0] > 1)
        text = " ".join(term.text for term in self._terms_of(symbol).terms)
        item = Item(GeneAnnotation((symbol,)), completion=f"<gene_info>{text}</gene_info>")
        score = next(self._score_pairs([(symbol, text)], {text: self._vocabulary.encode(text)}))
        score.rouge[0] = [1.0, 1.0, 1.0]
        return item, self._outcome([score], has_text=True, with_evidence=True)

    def canary_items(self) -> list[Item]:
        """Genes from all over the table, each described by its own first term and the next gene's."""
        symbols = list(self._row)
        chosen = [symbols[row] for row in spread(32, len(symbols))]
        texts = [self._terms_of(symbol).terms[0].text for symbol in chosen]
        return [
            Item(GeneAnnotation((symbol,)), completion=f"<gene_info>{own}, not {other}</gene_info>")
            for symbol, own, other in zip(chosen, texts, [*texts[1:], *texts[:1]], strict=True)
        ]

    def _terms_of(self, symbol: str) -> _GeneTerms:
        """The gene's reference; the gene must be annotated."""
        known = self._known.get(symbol)
        if known is None:
            row = self._row[symbol]
            own = self._term_indices[self._term_offsets[row] : self._term_offsets[row + 1]]
            terms = tuple(self._terms[index] for index in own.tolist())
            joined = ["".join(term.encoded for term in terms)]
            joined += ["".join(term.encoded for term in terms if term.aspect == aspect) for aspect in ASPECTS]
            aspects = frozenset(term.aspect for term in terms)
            known = self._known[symbol] = _GeneTerms(terms, aspects, Reference(joined))
        return known

    def _symbols_of(self, item: Item) -> list[str] | NotApplicable:
        """The current symbols of the question's genes, all of them annotated."""
        if item.task is None:
            return UNRECOGNISED_QUESTION
        symbols: list[str] = []
        for asked in item.task.genes:
            symbol = self._resolver.resolve(asked)
            if isinstance(symbol, NotApplicable):
                return symbol
            if symbol not in self._row:
                return NotApplicable("unannotated_gene", f"{symbol} has no Gene Ontology annotation.")
            symbols.append(symbol)
        return symbols or NotApplicable("no_gene", "The question names no gene.")

    def _score_pairs(self, pairs: Sequence[tuple[str, str]], encoded: Mapping[str, str]) -> Iterator[_GeneScore]:
        """A score for each gene and text, in order."""
        known = [self._terms_of(symbol) for symbol, _ in pairs]
        scores = rouge([(own.reference, encoded[text]) for own, (_, text) in zip(known, pairs, strict=True)]).tolist()
        for (symbol, text), own, score in zip(pairs, known, scores, strict=True):
            yield _GeneScore(symbol, score, own, text, encoded[text])

    def _outcome(self, scores: Sequence[_GeneScore], *, has_text: bool, with_evidence: bool) -> Scored:
        n_genes = len(scores)
        over_all = [score.rouge[0] for score in scores]
        components = {
            name: sum([own[number] for own in over_all]) / n_genes
            for number, name in enumerate(("rouge1", "rouge2", "rougeL"))
        }
        for number, aspect in enumerate(ASPECTS, start=1):
            annotated = [sum(score.rouge[number]) / 3.0 for score in scores if aspect in score.known.aspects]
            if annotated:
                components[aspect] = sum(annotated) / len(annotated)
        if not has_text:
            components[_ABSENT] = 1.0
        evidence = tuple(self._explain(score, has_text) for score in scores) if with_evidence else ()
        return Scored(sum([sum(own) / 3.0 for own in over_all]) / n_genes, components, evidence)

    def _explain(self, score: _GeneScore, has_text: bool) -> Evidence:
        n_terms = len(score.known.terms)
        against = f"{n_terms} annotated term{'s' if n_terms > 1 else ''}"
        if not has_text:
            text = f"{score.symbol}: neither gene_info nor thoughts to compare with {against}"
        else:
            matched = _matched(score)
            found = f"; matched: {', '.join(matched)}" if matched else "; no term matched"
            text = f"{score.symbol}: ROUGE-L {score.rouge[0][2]:.2f} against {against}{found}"
        return Evidence(text, source=_SOURCE)


def _matched(score: _GeneScore) -> list[str]:
    """Names of terms found in the text: word for word first, then those whose tokens all occur; longest first."""
    lowered = score.text.lower()
    occurring = set(score.encoded_text)
    matched = [term for term in score.known.terms if term.encoded_name and occurring.issuperset(term.encoded_name)]
    matched.sort(key=lambda term: (term.name.lower() not in lowered, -len(term.encoded_name), term.name))
    return [term.name for term in matched[:MAX_MATCHED_TERMS]]


def _texts_of(completion: str, genes: Sequence[tuple[str, str]]) -> list[str]:
    """What the completion says of each gene, given as (symbol of the question, current symbol)."""
    read = TaggedText(completion)
    blocks = [block for block in read.gene_info_blocks if block]
    if not blocks:
        return [read.thoughts] * len(genes)
    joined = " ".join(blocks)
    texts = []
    for asked, current in genes:
        naming = [block for block in blocks if mentions(block, asked) or mentions(block, current)]
        texts.append(" ".join(naming) or joined)
    return texts


def open_verifier(store: ArtifactStore) -> GoRouge:
    """Open the artifacts ``genes`` and ``go_rouge``. Raises ArtifactError with the command that mends it."""
    resolver, genes = open_genes(store)
    artifact = store.open(NAME)
    terms = read_served(artifact, TERMS_FILE)
    annotated = read_served(artifact, GENES_FILE)
    term_offsets, term_indices = annotated.lists("terms")
    return GoRouge(
        resolver,
        terms=list(zip(*(terms.strings(column) for column in ("name", "aspect", "definition")), strict=True)),
        symbols=annotated.strings("symbol"),
        term_offsets=term_offsets,
        term_indices=term_indices,
        artifacts=(artifact.identity, genes.identity),
    )
