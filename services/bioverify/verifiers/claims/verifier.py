"""Claims: which statements of the thoughts do our sources support, contradict, or not know of?

The text becomes a string of one character per word (`phrases`), in which an automaton finds the phrases that name Gene
Ontology terms and genes, longest first. `extraction` reads from its sentences which gene each is said of, and how:
affirmed or denied, plain, hedged or supposed. `knowledge` says of each claim whether the gene is annotated with the
term or one below it, or is called so; `value` makes numbers of it. What is not annotated is not false: the world is
open, and such a claim is "unsupported", which the evidence says in these words.

What a knockdown is said to do (`effects`) is held against the screens' training rows (`screen`). That counts in a
component of its own and not in the value, which would else pay for a measured label; of the question's own pair nothing
is said at all.

Source: Gene Ontology (CC BY 4.0) with its evidence codes; names of genes as NCBI has them; PerturbQA's training rows,
or a simulated screen, which every sentence of evidence from it says.
"""

from __future__ import annotations

import ctypes
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from bioverify.artifacts.names import Names
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.core.cell_lines import line_name
from bioverify.core.completions import TaggedText
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import Evidence, NotApplicable, Outcome, Quote, Scored, Verdict
from bioverify.core.tasks import GeneAnnotation, Knockdown, Task, TaskKind, canonical_cell_line
from bioverify.core.verifier import UNRECOGNISED_QUESTION, ArtifactIdentity, Description, Item, Reads
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
from bioverify.verifiers.claims.conclusion import concluded
from bioverify.verifiers.claims.extraction import Claims as Extracted
from bioverify.verifiers.claims.extraction import Effect, Extractor
from bioverify.verifiers.claims.knowledge import Kind, Knowledge, Lists
from bioverify.verifiers.claims.links import Links
from bioverify.verifiers.claims.phrases import Words
from bioverify.verifiers.claims.screen import RESPONSE_WORDS, Screen
from bioverify.verifiers.claims.value import CONTRADICTED_SHARE, SHARE_OF_TONE, SMOOTHING, Judged, distinct, sums

MAX_SHOWN = 30
"""Claims in the evidence of one completion, in the order of the text."""
DENIED_UNKNOWN_SHARE = 0.5
"""Of a claim's weight, if it denies what our sources do not know."""
UNKNOWN_PAIR_WEIGHT = 0.25
SPECIFIC = 0.5
"""Weight from which a claim is specific enough to ground a gene."""

_KINDS = tuple(TaskKind)
_SOURCE = "Gene Ontology"
_NAMES_SOURCE = "NCBI Gene"


class Measured(NamedTuple):
    """What a knockdown is said to do, and the rows (line, response) that say whether it does."""

    effect: Effect
    verdict: Verdict
    rows: Sequence[tuple[str, int]]


class Claims:
    """Soft score of the factual claims; holds no belief about yes or no."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.ANSWER | Reads.COMPLETION

    def __init__(
        self,
        resolver: GeneResolver,
        words: Words,
        extractor: Extractor,
        knowledge: Knowledge,
        screen: Screen,
        links: Links | None = None,
        *,
        artifacts: tuple[ArtifactIdentity, ...] = (),
    ) -> None:
        self._resolver, self._words, self._extractor, self._knowledge = resolver, words, extractor, knowledge
        self._screen, self._links = screen, links
        self._row = {symbol: row for row, symbol in enumerate(knowledge.symbols)}
        self.description = Description(
            name=NAME,
            version="4",
            summary="Claims of the thoughts about genes, each held against the Gene Ontology and the genes' names.",
            task_kinds=_KINDS,
            reads=self.reads,
            holds_belief=False,
            components={
                "precision": "Weight supported / (weight supported + weight not supported + 1), of all genes' claims.",
                "grounded": "Share of the question's genes that are known here and have a supported specific claim.",
                "linked": "1 if supported claims tie the question's two genes, directly or through one named gene.",
                "supported": "Number of distinct claims that the sources support.",
                "contradicted": "Number that they contradict.",
                "unsupported": "Number that they do not know of.",
                "consistent": "1 if the thoughts conclude what the answer says, 0 if not; absent without a conclusion.",
                "claims": "Number of distinct claims that could be held against the sources.",
                "screen": (
                    "Of what is said of knockdowns: weight that the screens' training rows support / (that + 1.5 times "
                    "what they contradict + 1), without the question's own pair. In no other component and not in the "
                    "value; absent if no row speaks of any."
                ),
            },
            artifacts=artifacts,
        )

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Value: `value.sums`; 0 without a claim.

        Not applicable, for facts of the question alone: ``unknown_gene`` or ``ambiguous_gene`` if one of a pair is no
        gene, so that a mistyped one is not rewarded for its form; else the reason why the first gene is not known
        (these, or ``no_knowledge``) if none of them is. A gene annotation without genes is prose about no question:
        read whole, whatever its tags, and every gene of it counts alike.
        """
        return [self._score(item, with_evidence) for item in items]

    def canary(self) -> tuple[Item, Outcome]:
        """A gene said to be what its most special term says; supported."""
        knowledge = self._knowledge
        for row, symbol in enumerate(knowledge.symbols):
            terms = knowledge.direct[row]
            if not len(terms):
                continue
            name = knowledge.term_name(int(terms[knowledge.bits[terms].argmax()]))
            text = f"<think>{symbol} has a role in {name}.</think>"
            item = Item(GeneAnnotation((symbol,)), completion=text)
            outcome = self._score(item, with_evidence=True)
            if isinstance(outcome, Scored) and outcome.components["supported"]:
                return item, outcome
        raise AssertionError("an artifact holds an annotated gene")

    def _score(self, item: Item, with_evidence: bool) -> Outcome:
        asked = self._asked(item)
        if isinstance(asked, NotApplicable):
            return asked
        assert item.task is not None
        pieces = [(0, len(item.completion))]
        thoughts = item.completion
        if item.task.genes:
            read = TaggedText(item.completion)
            pieces = [*read.gene_info_spans, *read.thought_spans]
            thoughts = read.thoughts
        text = _BETWEEN_PIECES.join([item.completion[start:end] for start, end in pieces])
        claims = self._extractor.claims(self._words.encode(text), asked[0] if len(asked) == 1 else -1)
        judged = distinct(self._judged(claims), self._knowledge)
        measured = self._measured(claims.effects, item.task) if claims.effects else []
        totals = sums(judged, asked)
        components = {
            "precision": totals.precision,
            **{str(verdict): float(sum(one.verdict is verdict for one in judged)) for verdict in Verdict},
            "claims": float(len(judged)),
        }
        if asked:
            components["grounded"] = _grounded(judged, asked)
        if len(item.task.genes) == 2:
            components["linked"] = _linked(judged, asked) if len(asked) == 2 else 0.0
        if isinstance(item.answer, bool) and (said := concluded(thoughts, item.task.kind)) is not None:
            components["consistent"] = float(said is item.answer)
        if measured:
            components["screen"] = _screen_share(measured)
        evidence = self._evidence(text, pieces, judged, measured) if with_evidence else ()
        return Scored(totals.value, components, evidence)

    def _asked(self, item: Item) -> list[int] | NotApplicable:
        """Rows of the question's genes that are known here."""
        if item.task is None:
            return UNRECOGNISED_QUESTION
        why: NotApplicable | None = None
        asked: list[int] = []
        for name in item.task.genes:
            symbol = self._resolver.resolve(name)
            if isinstance(symbol, NotApplicable):
                if not isinstance(item.task, GeneAnnotation):
                    return symbol
                why = why or symbol
            elif (row := self._row.get(symbol)) is None or not len(self._knowledge.closure[row]):
                why = why or NotApplicable("no_knowledge", f"Our sources hold nothing about {symbol}.")
            elif row not in asked:
                asked.append(row)
        return why if why is not None and not asked else asked

    def _judged(self, claims: Extracted) -> list[Judged]:
        """Every one that our sources could know of, but those about knockdowns."""
        knowledge, found = self._knowledge, []
        for gene, phrase, start, end, is_denied, tone, naming in claims.properties:
            finding = knowledge.judge(gene, phrase, naming)
            if finding is None:
                continue
            kind, verdict, weight, target = finding
            if is_denied:
                if kind is Kind.NAME and not naming:  # "is no target of the kinase A" does not deny that it is A
                    continue
                verdict, weight = _denied(verdict, weight)
            found.append(
                Judged((gene,), kind, target, verdict, weight * SHARE_OF_TONE[tone], start, end, is_denied, tone)
            )
        for gene, other, says, start, end, is_denied, tone in claims.relations:
            pair = (gene, other) if gene < other else (other, gene)
            kind, target = Kind.PAIR, knowledge.shared(*pair)
            if target < 0 and self._links is not None and (network := self._links.find(gene, other, says)) >= 0:
                kind, target = Kind.LINK, network
                pair = (gene, other) if says == "regulates" else pair
            verdict, weight = (Verdict.SUPPORTED, 1.0) if target >= 0 else (Verdict.UNSUPPORTED, UNKNOWN_PAIR_WEIGHT)
            if is_denied:
                verdict, weight = _denied(verdict, weight)
            found.append(Judged(pair, kind, target, verdict, weight * SHARE_OF_TONE[tone], start, end, is_denied, tone))
        return found

    def _measured(self, effects: Sequence[Effect], task: Task) -> list[Measured]:
        """Each once, in its plainest form, if a training row speaks of it and it is not the question's own pair."""
        own: tuple[int | None, ...] = ()
        asked_line: tuple[str, ...] = ()
        if isinstance(task, Knockdown):
            own = tuple(self._row.get(str(self._resolver.resolve(name))) for name in task.genes)
            asked_line = (canonical_cell_line(task.cell_line),)
        found: dict[tuple[object, ...], Measured] = {}
        for one in sorted(effects, key=lambda effect: effect.tone):
            if (one.perturbation, one.measured) == own:
                continue
            lines = one.lines or asked_line
            judged = self._screen.judge(one.perturbation, one.measured, one.change, lines)
            if judged is not None:
                verdict = _OPPOSITE[judged[0]] if one.is_denied else judged[0]
                said = (one.perturbation, one.measured, one.change, one.is_denied, lines)
                found.setdefault(said, Measured(one, verdict, judged[1]))
        return list(found.values())

    def _evidence(
        self,
        text: str,
        pieces: Sequence[tuple[int, int]],
        judged: Sequence[Judged],
        measured: Sequence[Measured],
    ) -> tuple[Evidence, ...]:
        """``pieces``: where what ``text`` is made of stands in the completion."""
        if not judged and not measured:
            return (Evidence("No claim about a gene that our sources could know of.", source=_SOURCE),)
        spans = self._words.spans(text)
        every: list[tuple[int, int, Judged | Measured]] = [(one.start, one.end, one) for one in judged]
        every += [(one.effect.start, one.effect.end, one) for one in measured]
        evidence = []
        for at, stop, one in sorted(every, key=lambda each: each[:2])[:MAX_SHOWN]:
            start, end = spans[at][0], spans[stop - 1][1]
            quote = Quote(_place(pieces, start), _place(pieces, end - 1) + 1, one.verdict)
            quoted = text[start:end]
            if isinstance(one, Measured):
                evidence.append(self._explain_measured(one, quoted, quote))
            else:
                evidence.append(self._explain(one, quoted, quote))
        if len(every) > MAX_SHOWN:
            evidence.append(Evidence(f"{len(every) - MAX_SHOWN} claims more.", source=_SOURCE))
        return tuple(evidence)

    def _explain_measured(self, claim: Measured, quoted: str, quote: Quote) -> Evidence:
        """ "knockdown of A, B, "loss of A raises B": supported: K562: A knocked down, B measured, increased (…)"."""
        effect, screen = claim.effect, self._screen
        knocked_down, gene = (self._knowledge.symbols[row] for row in (effect.perturbation, effect.measured))
        said = f'knockdown of {knocked_down}, {gene}, {"not " if effect.is_denied else ""}"{quoted}": {claim.verdict}'
        rows = "; ".join(
            f"{line_name(line)}: {knocked_down} knocked down, {gene} measured, {RESPONSE_WORDS[response]}"
            for line, response in claim.rows
        )
        text = f"{said}: {rows} ({screen.provenance})"
        return Evidence(text, source=screen.provenance, simulated=screen.simulated, quote=quote)

    def _explain(self, claim: Judged, quoted: str, quote: Quote) -> Evidence:
        """ "AARS1, "charges tRNA": supported: …"; a denied claim begins with "not"."""
        genes = " and ".join(self._knowledge.symbols[gene] for gene in claim.genes)
        said = f'{genes}, {"not " if claim.is_denied else ""}"{quoted}": {claim.verdict}'
        source = _NAMES_SOURCE if claim.kind is Kind.NAME else _SOURCE
        if claim.kind is Kind.LINK:
            assert self._links is not None
            source = self._links.names[claim.target]
        return Evidence(f"{said}: {self._because(claim)}", source=source, quote=quote)

    def _because(self, claim: Judged) -> str:
        knowledge = self._knowledge
        gene = claim.genes[0]
        if claim.kind is Kind.NAME:
            if knowledge.phrase_names.has(claim.target, gene):
                return "so it is called"
            called = ", ".join(knowledge.symbols[row] for row in knowledge.phrase_called[claim.target].tolist())
            return f"the name belongs to {called}"
        if claim.kind is Kind.LINK:
            assert self._links is not None
            return _LINKED[self._links.says[claim.target]].format(
                self._links.names[claim.target], *(knowledge.symbols[row] for row in claim.genes)
            )
        if claim.target < 0:
            return _UNKNOWN
        term = knowledge.term_shown(claim.target)
        if claim.kind is Kind.PAIR:
            return f"both are annotated with {term}"
        if knowledge.closure.has(gene, claim.target):
            return f"{term} ({knowledge.grounds(gene, claim.target)})"
        if knowledge.denied.has(gene, claim.target):
            return f"{term} is annotated with NOT"
        return f"{term}: {_UNKNOWN}"


_UNKNOWN = "not known to our sources, which are not complete"
_LINKED = {
    "interacts": "{} has that {} and {} interact",
    "regulates": "{} has that {} regulates {}",
    "co-expressed": "{} has that {} and {} are co-expressed",
}
_BETWEEN_PIECES = "\n\n"


def _place(pieces: Sequence[tuple[int, int]], at: int) -> int:
    """Where in the completion the character ``at`` of its joined pieces stands."""
    for start, end in pieces:
        if at < end - start:
            return start + at
        at -= end - start + len(_BETWEEN_PIECES)
    raise AssertionError("a claim stands in a piece")


_OPPOSITE = {Verdict.SUPPORTED: Verdict.CONTRADICTED, Verdict.CONTRADICTED: Verdict.SUPPORTED}


def _screen_share(measured: Sequence[Measured]) -> float:
    weight = dict.fromkeys(_OPPOSITE, 0.0)
    for one in measured:
        weight[one.verdict] += SHARE_OF_TONE[one.effect.tone]
    wrong = CONTRADICTED_SHARE * weight[Verdict.CONTRADICTED]
    return weight[Verdict.SUPPORTED] / (weight[Verdict.SUPPORTED] + wrong + SMOOTHING)


def _denied(verdict: Verdict, weight: float) -> tuple[Verdict, float]:
    """Of the denial of what was judged."""
    if verdict is Verdict.SUPPORTED:
        return Verdict.CONTRADICTED, weight
    if verdict is Verdict.CONTRADICTED:
        return Verdict.SUPPORTED, weight
    return verdict, weight * DENIED_UNKNOWN_SHARE


def _grounded(judged: Sequence[Judged], asked: Sequence[int]) -> float:
    grounded = {
        gene
        for one in judged
        if one.verdict is Verdict.SUPPORTED and one.weight >= SPECIFIC
        for gene in one.genes
        if gene in asked
    }
    return len(grounded) / len(asked)


def _linked(judged: Sequence[Judged], asked: Sequence[int]) -> float:
    """Directly, through one named gene, or by one specific term that both are rightly said to have."""
    tied: dict[int, set[int]] = {gene: set() for gene in asked}
    terms: dict[int, set[int]] = {gene: set() for gene in asked}
    for one in judged:
        if one.verdict is not Verdict.SUPPORTED or one.is_denied:
            continue
        if one.kind in {Kind.PAIR, Kind.LINK}:
            for gene, other in (one.genes, one.genes[::-1]):
                if gene in tied:
                    tied[gene].add(other)
        elif one.kind is Kind.TERM and one.weight >= SPECIFIC and one.genes[0] in terms:
            terms[one.genes[0]].add(one.target)
    first, second = asked
    return float(second in tied[first] or bool(tied[first] & tied[second]) or bool(terms[first] & terms[second]))


class _TermRows(Mapping[str, int]):
    """GO ids without "GO:" → rows of terms, by bisection."""

    def __init__(self, ids: Sequence[int], rows: Sequence[int]) -> None:
        self._ids, self._rows = ids, rows

    def __getitem__(self, digits: str) -> int:
        number = int(digits) if digits.isdecimal() else -1
        at = bisect_left(self._ids, number)
        if at == len(self._ids) or self._ids[at] != number:
            raise KeyError(digits)
        return self._rows[at]

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return (f"{number:07}" for number in self._ids)


class Parts(NamedTuple):
    """What a `Claims` is made of."""

    resolver: GeneResolver
    words: Words
    extractor: Extractor
    knowledge: Knowledge
    screen: Screen
    links: Links | None
    """None if the artifact was built without a network."""
    artifacts: tuple[ArtifactIdentity, ...]
    gene_of_mention: Sequence[int]


def open_verifier(store: ArtifactStore) -> Claims:
    """Open the artifacts ``genes`` and ``claims``. Raises ArtifactError with the command that mends it."""
    parts = open_parts(store)
    known = (parts.knowledge, parts.screen, parts.links)
    return Claims(parts.resolver, parts.words, parts.extractor, *known, artifacts=parts.artifacts)


def open_parts(store: ArtifactStore) -> Parts:
    """What `open_verifier` opens, apart: benchmarks put other knowledge in."""
    resolver, genes_artifact = open_genes(store)
    artifact = store.open(NAME)
    ids, terms, phrases, genes = (
        read_served(artifact, file_name) for file_name in (IDS_FILE, TERMS_FILE, PHRASES_FILE, GENES_FILE)
    )
    mentions = read_served(artifact, MENTIONS_FILE)
    words = Words(
        {stem: at for at, stem in enumerate(read_served(artifact, WORDS_FILE).strings("stem"))},
        Names(mentions.texts("name"), int),
        _TermRows(ids.numbers("id").data, ids.numbers("term").data),
    )
    knowledge = Knowledge(
        symbols=genes.strings("symbol"),
        term_ids=terms.numbers("id"),
        term_names=terms.texts("name"),
        bits=terms.numbers("bits"),
        ancestors=Lists(*terms.lists("ancestors")),
        closure=Lists(*genes.lists("terms")),
        direct=Lists(*genes.lists("direct")),
        codes=Lists(*genes.lists("codes")),
        code_names=read_served(artifact, CODES_FILE).strings("codes"),
        denied=Lists(*genes.lists("denied")),
        phrase_terms=Lists(*phrases.lists("terms")),
        phrase_names=Lists(*phrases.lists("names")),
        phrase_called=Lists(*read_served(artifact, CALLED_FILE).lists("genes")),
    )
    measured, parameters = read_served(artifact, SCREEN_FILE), artifact.manifest.parameters
    lines = parameters["lines"]
    assert isinstance(lines, list)
    screen = Screen(
        lines,
        len(knowledge.symbols),
        measured.numbers("pair").data,
        measured.numbers("response").data,
        str(parameters["screen"]),
        artifact.manifest.simulated,
    )
    links = None
    if LINKS_FILE in artifact.manifest.files:
        pairs, networks = read_served(artifact, LINKS_FILE), read_served(artifact, NETWORKS_FILE)
        numbers = pairs.numbers("pair").data, pairs.numbers("network").data
        links = Links(networks.strings("name"), networks.strings("says"), len(knowledge.symbols), *numbers)
    gene_of_mention = mentions.numbers("gene").data
    aspect_of = aspects_of(knowledge.phrase_terms, terms.strings("aspect"))
    texts = phrases.texts("phrase")
    automaton = automaton_of(texts[at].decode() for at in range(len(texts)))
    # It is built in three times the memory that it keeps, which glibc holds on to until it is told.
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
    extractor = Extractor(words, automaton, gene_of_mention, aspect_of)
    artifacts = (artifact.identity, genes_artifact.identity)
    return Parts(resolver, words, extractor, knowledge, screen, links, artifacts, gene_of_mention)


def aspects_of(phrase_terms: Lists, aspects: Sequence[str]) -> bytes:
    """Of each phrase C, F or P if it names nothing else, f if it names a function and something else, else 0."""
    of_terms = np.frombuffer("".join(aspects).encode(), np.uint8)
    sizes = phrase_terms.sizes()
    of_values = of_terms[phrase_terms.values]
    starts = phrase_terms.offsets[:-1][sizes > 0]
    least, most = (reduce.reduceat(of_values, starts) for reduce in (np.minimum, np.maximum))
    has_function = np.maximum.reduceat(of_values == ord("F"), starts)
    found = np.zeros(len(sizes), np.uint8)
    found[sizes > 0] = np.where(least == most, least, np.where(has_function, ord("f"), 0))
    return found.tobytes()


def automaton_of(phrases: Iterable[str]) -> AhoCorasick:
    """Finds the longest phrase that begins first."""
    return AhoCorasick(
        phrases,
        matchkind=MatchKind.LeftmostLongest,
        store_patterns=False,
        implementation=Implementation.ContiguousNFA,
    )
