"""How far the verifier claims can be trusted: ``python -m benchmarks.claims --half measured``.

People's texts about genes (STRING's descriptions) are told of their own genes ("A encodes …. B encodes ….") and of each
other's; the verifier should value the first more. Sentences that the annotations make true are put in many ways, and
then made false by one exchanged term or by a denial. A fifth of each gene's annotations is hidden, to see whether what
the sources lack is called wrong. All is asked of the verifier in this process, by its value and its verdicts.

The genes with a description and an annotation are split in two halves by a seed. Whatever is chosen about the verifier
is chosen on the half ``chosen``; the half ``measured`` is for the tables of docs/quality.md alone. Needs the artifacts
genes, claims and go_rouge of the real files (``bioverify data build genes claims go_rouge``) and STRING's descriptions.

``--sheet FILE`` writes 200 claims drawn at random from texts of the half, with all that is needed to judge by hand
whether they were read off rightly; docs/records has the judged one.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import typer
from scipy.stats import binomtest, rankdata

from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import STRING_PROTEINS, Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_served
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import Outcome, Scored, Verdict
from bioverify.core.tasks import PROSE, DifferentialExpression
from bioverify.core.verifier import Item
from bioverify.verifiers.claims.artifact import NAME, PHRASES_FILE, TERMS_FILE
from bioverify.verifiers.claims.extraction import Extractor
from bioverify.verifiers.claims.knowledge import Knowledge, Lists
from bioverify.verifiers.claims.phrases import FIRST_SYMBOL, FIRST_TERM
from bioverify.verifiers.claims.verifier import Claims, Parts, aspects_of, automaton_of, open_parts
from bioverify.verifiers.go_rouge.verifier import open_verifier as open_go_rouge

Half = Literal["chosen", "measured"]
Score = Callable[[Sequence[Item]], Sequence[Outcome]]
Floats = npt.NDArray[np.float64]

SPLIT_SEED, DRAW_SEED = 17, 5
N_SHEET, N_RESAMPLES = 200, 300
BROAD = 200, 2000
"""Genes of a broad process, at least and at most."""
HIDDEN_SHARE = 0.2
LEAST_WEIGHT = 0.5
"""Of the term of a made sentence: 4 bits, at most one gene in 16."""
SHORTEST = 20
"""Characters of a description behind the protein's name, for it to be told without the name."""
_NAME = re.compile(r"[^;]*;\s*")
_CUT_SHORT = re.compile(r"[^.;]*\[\.\.\.\]\s*$")

TRUE_FORMS = (
    "{gene} takes part in {term}.",
    "{gene} is involved in {term}.",
    "It is well known that {gene} has a role in {term}.",
    "{gene} is annotated with {term}, which matters in these cells.",
    "In most cells, {gene} is needed for {term}.",
    "The protein that {gene} encodes acts in {term}.",
    "One of the functions of {gene} is {term}.",
    "{gene} has been linked to {term} by experiments.",
    "Because {gene} contributes to {term}, its loss should be felt.",
    "{term} depends on {gene}.",
)
DENYING_FORMS = (
    "{gene} does not take part in {term}.",
    "{gene} is not involved in {term}.",
    "{gene} has no role in {term}.",
    "{gene} has nothing to do with {term}.",
    "{gene} doesn't contribute to {term}.",
    "{gene} never acts in {term}.",
    "It is not true that {gene} is needed for {term}.",
    "{gene} lacks any connection to {term}.",
    "{gene} cannot be said to act in {term}.",
    "There is no evidence that {gene} has a part in {term}.",
    "{gene} is unrelated to {term}.",
    "Contrary to belief, {gene} isn't needed for {term}.",
    "{term} does not depend on {gene}.",
    "{gene} works without any part in {term}.",
)


@dataclass(frozen=True)
class Described:
    """Genes with a description and an annotation, and what the verifier is made of."""

    parts: Parts
    texts: Mapping[str, str]
    aspects: Sequence[str]
    """Of each term: C, F or P."""
    phrases: Sequence[str]

    @property
    def knowledge(self) -> Knowledge:
        return self.parts.knowledge

    @cached_property
    def row(self) -> dict[str, int]:
        return {symbol: at for at, symbol in enumerate(self.knowledge.symbols)}

    @cached_property
    def genes_of_term(self) -> npt.NDArray[np.int64]:
        """How many have it or one below it."""
        every = np.concatenate([self.knowledge.closure[at] for at in range(len(self.knowledge.symbols))])
        return np.bincount(every, minlength=len(self.aspects))

    @cached_property
    def below(self) -> dict[int, list[int]]:
        """Of a term: those that it follows from and that some gene has."""
        found: dict[int, list[int]] = defaultdict(list)
        for term in np.flatnonzero(self.genes_of_term).tolist():
            for up in self.knowledge.ancestors[term].tolist():
                found[up].append(term)
        return found

    def half(self, which: Half) -> list[str]:
        symbols = sorted(self.texts)
        random.Random(SPLIT_SEED).shuffle(symbols)
        middle = len(symbols) // 2
        return symbols[:middle] if which == "chosen" else symbols[middle:]

    def masked(self, text: str) -> str:
        """With "it" in the place of every symbol of a gene."""
        words = self.parts.words
        for character, (start, end) in reversed(list(zip(words.encode(text), words.spans(text), strict=True))):
            if FIRST_SYMBOL <= ord(character) < FIRST_TERM:
                text = f"{text[:start]}it{text[end:]}"
        return text

    def verifier(self, knowledge: Knowledge) -> Claims:
        return Claims(
            self.parts.resolver, self.parts.words, self.parts.extractor, knowledge, self.parts.screen, self.parts.links
        )


def described(store: ArtifactStore, path: Path) -> Described:
    parts = open_parts(store)
    resolver: GeneResolver = open_genes(store, in_memory=True)[0]
    known = {symbol for at, symbol in enumerate(parts.knowledge.symbols) if len(parts.knowledge.closure[at])}
    texts: dict[str, str] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for _, name, _, said in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            symbol, text = resolver.resolve(name), _CUT_SHORT.sub("", said).strip()
            if isinstance(symbol, str) and symbol in known and text:
                texts.setdefault(symbol, text if text.endswith(".") else f"{text}.")
    artifact = store.open(NAME)
    aspects, phrases = read_served(artifact, TERMS_FILE).strings("aspect"), read_served(artifact, PHRASES_FILE)
    return Described(parts, texts, aspects, phrases.strings("phrase"))


# People's texts: own against swapped


def pairs_at_random(genes: Sequence[str], n: int) -> list[tuple[str, str]]:
    drawn = random.Random(DRAW_SEED).sample(list(genes), len(genes))
    return list(zip(drawn[0::2], drawn[1::2], strict=False))[:n]


def pairs_of_a_process(of: Described, genes: Sequence[str], n: int) -> list[tuple[str, str]]:
    """A gene, and another one of a broad process of the first, both drawn at random."""
    draw = random.Random(DRAW_SEED)
    members: dict[int, list[str]] = defaultdict(list)
    for symbol in genes:
        for term in of.knowledge.closure[of.row[symbol]].tolist():
            if BROAD[0] <= of.genes_of_term[term] <= BROAD[1] and of.aspects[term] == "P":
                members[term].append(symbol)
    terms: dict[str, list[int]] = defaultdict(list)
    for term, own in members.items():
        for symbol in own if len(own) > 1 else ():
            terms[symbol].append(term)
    return [
        (first, draw.choice([other for other in members[draw.choice(terms[first])] if other != first]))
        for first in draw.sample(sorted(terms), min(n, len(terms)))
    ]


def told(pair: tuple[str, str], texts: tuple[str, str]) -> Item:
    said = " ".join(f"{gene} encodes {text}" for gene, text in zip(pair, texts, strict=True))
    return Item(DifferentialExpression(*pair, "k562"), True, f"<think>{said}</think><answer>yes</answer>")


class Compared(NamedTuple):
    """Of values of texts told of their own genes, and of the same texts swapped."""

    pairs: int
    auc: float
    auc_within: float
    """Half the width of its 95 % interval, over resampled pairs."""
    higher: float
    equal: float
    checked: float
    """Share of own texts with something to check."""


def compared(score: Score, pairs: Sequence[tuple[str, str]], text_of: Callable[[str], str]) -> Compared:
    own = score([told(pair, (text_of(pair[0]), text_of(pair[1]))) for pair in pairs])
    swapped = score([told(pair, (text_of(pair[1]), text_of(pair[0]))) for pair in pairs])
    both = [(a, b) for a, b in zip(own, swapped, strict=True) if isinstance(a, Scored) and isinstance(b, Scored)]
    values = np.array([(a.value, b.value) for a, b in both])
    resample = np.random.default_rng(DRAW_SEED)
    again = [auc(values[resample.integers(0, len(values), len(values))]) for _ in range(N_RESAMPLES)]
    low, high = np.percentile(again, (2.5, 97.5))
    return Compared(
        len(both),
        auc(values),
        float(high - low) / 2,
        float((values[:, 0] > values[:, 1]).mean()),
        float((values[:, 0] == values[:, 1]).mean()),
        sum(a.components.get("claims", 1.0) > 0 for a, _ in both) / len(both),
    )


def auc(values: Floats) -> float:
    """How often an own text is valued more than a swapped one, of any two pairs; a tie counts half."""
    n = len(values)
    return float((rankdata(values.T.ravel())[:n].sum() - n * (n + 1) / 2) / (n * n))


# Sentences that the annotations make true, and false ones


class Share(NamedTuple):
    n: int
    share: float
    low: float
    high: float


def share(n_true: int, n: int) -> Share:
    """With its 95 % interval (Wilson)."""
    low, high = binomtest(n_true, n).proportion_ci(method="wilson")
    return Share(n, n_true / n, float(low), float(high))


class Sentence(NamedTuple):
    """``start`` and ``end``: of the phrase that is told of the gene."""

    gene: str
    term: int
    text: str
    start: int
    end: int


def put(form: str, gene: str, term: int, name: str, before: str) -> Sentence:
    form = f"{before} {form}"
    start = len(form[: form.index("{term}")].replace("{gene}", gene))
    return Sentence(gene, term, form.format(gene=gene, term=name), start, start + len(name))


def facts(of: Described, genes: Sequence[str], n: int) -> Iterator[tuple[str, int, str]]:
    """A gene, one of its specific terms or one above it, and the first sentence of another gene's description."""
    draw = random.Random(DRAW_SEED)
    n_found = 0
    for gene in draw.sample(list(genes), len(genes)):
        own = of.knowledge.direct[of.row[gene]].tolist()
        terms = [term for term in own if of.knowledge.weights[term] >= LEAST_WEIGHT]
        if terms and n_found < n:
            n_found += 1
            above = of.knowledge.ancestors[draw.choice(terms)].tolist()
            term = draw.choice([one for one in above if of.knowledge.weights[one] >= LEAST_WEIGHT])
            other = draw.choice(genes)
            name = _NAME.match(of.texts[other])
            yield gene, term, f"{other} encodes {name[0].rstrip('; ')}." if name else ""


def false_terms(of: Described, gene: str, term: int, draw: random.Random) -> dict[str, int]:
    """How it was found → a term that is not true of the gene: one of the nearest kind above, or any of its aspect."""
    own = set(of.knowledge.closure[of.row[gene]].tolist())
    found = {}
    for up in sorted(of.knowledge.ancestors[term].tolist(), key=lambda one: -float(of.knowledge.bits[one])):
        siblings = [one for one in of.below[up] if one not in own and of.knowledge.weights[one] >= LEAST_WEIGHT]
        if siblings:
            found["sibling"] = draw.choice(siblings)
            break
    every = np.flatnonzero(of.knowledge.weights * (of.genes_of_term > 0) >= LEAST_WEIGHT)
    while True:
        one = int(draw.choice(every))
        if one not in own and of.aspects[one] == of.aspects[term]:
            return {**found, "random": one}


def verdict_of(outcome: Outcome, start: int, end: int) -> Verdict | None:
    """Of what is claimed by the words from ``start`` to ``end``: supported if any of it is; None: not checked."""
    assert isinstance(outcome, Scored)
    quotes = [one.quote for one in outcome.evidence if one.quote and one.quote.start < end and one.quote.end > start]
    verdicts = {quote.verdict for quote in quotes}
    return next(
        (one for one in (Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNSUPPORTED) if one in verdicts), None
    )


def judged(verifier: Claims, sentences: Sequence[Sentence]) -> Counter[Verdict | None]:
    outcomes = verifier.score([Item(PROSE, completion=one.text) for one in sentences])
    return Counter(verdict_of(outcome, one.start, one.end) for outcome, one in zip(outcomes, sentences, strict=True))


def made_sentences(of: Described, genes: Sequence[str], n: int) -> dict[str, list[Sentence]]:
    draw = random.Random(DRAW_SEED)
    found: dict[str, list[Sentence]] = defaultdict(list)
    name = of.knowledge.term_name
    for gene, term, before in facts(of, genes, n):
        form = draw.choice(TRUE_FORMS)
        found["true"].append(put(form, gene, term, name(term), before))
        for how, other in false_terms(of, gene, term, draw).items():
            found[how].append(put(form, gene, other, name(other), before))
        found["denied"].append(put(draw.choice(DENYING_FORMS), gene, term, name(term), before))
    return found


def exchanged_in_texts(of: Described, verifier: Claims, genes: Sequence[str], n: int) -> dict[str, list[Sentence]]:
    """People's texts in which one supported phrase gave way to the name of a term that is not true of the gene."""
    draw = random.Random(DRAW_SEED + 1)
    found: dict[str, list[Sentence]] = defaultdict(list)
    row_of_id = {int(number): at for at, number in enumerate(of.knowledge.term_ids.tolist())}
    drawn = draw.sample(list(genes), min(n, len(genes)))
    texts = [f"{gene} encodes {of.texts[gene]}" for gene in drawn]
    for gene, text, outcome in zip(
        drawn, texts, verifier.score([Item(PROSE, completion=t) for t in texts]), strict=True
    ):
        assert isinstance(outcome, Scored)
        own = [
            (one.quote, row_of_id[int(said[1])])
            for one in outcome.evidence
            if one.quote
            and one.quote.verdict is Verdict.SUPPORTED
            and one.text.startswith(f'{gene}, "')
            and (said := re.search(r": supported: GO:(\d{7})", one.text))
        ]
        if own:
            quote, term = draw.choice(own)
            for how, other in false_terms(of, gene, term, draw).items():
                name = of.knowledge.term_name(other)
                changed = f"{text[: quote.start]}{name}{text[quote.end :]}"
                found[how].append(Sentence(gene, other, changed, quote.start, quote.start + len(name)))
    return found


def with_hidden(of: Described, genes: Sequence[str]) -> Knowledge:
    """What the sources would say without a fifth of each gene's annotations."""
    draw, knowledge, chosen = np.random.default_rng(DRAW_SEED), of.knowledge, set(genes)
    closures, directs, codes = [], [], []
    for at, symbol in enumerate(knowledge.symbols):
        direct = knowledge.direct[at]
        stays = draw.random(len(direct)) >= HIDDEN_SHARE if symbol in chosen else np.ones(len(direct), bool)
        directs.append(direct[stays])
        codes.append(knowledge.codes[at][stays])
        above = [knowledge.ancestors[term] for term in direct[stays].tolist()]
        closures.append(np.unique(np.concatenate(above)) if above else np.empty(0, np.int32))
    return replace(knowledge, closure=lists(closures), direct=lists(directs), codes=lists(codes))


def without_names(of: Described) -> Claims:
    """The verifier as if its artifact had no names of genes; an automaton of theirs would hide the terms in them."""
    knowledge, parts = of.knowledge, of.parts
    rows = np.flatnonzero(knowledge.phrase_terms.sizes())
    no_names = lists([np.empty(0, np.int32)] * len(rows))
    terms = lists([knowledge.phrase_terms[row] for row in rows.tolist()])
    phrases = [of.phrases[row] for row in rows.tolist()]
    extractor = Extractor(parts.words, automaton_of(phrases), parts.gene_of_mention, aspects_of(terms, of.aspects))
    alone = replace(knowledge, phrase_terms=terms, phrase_names=no_names, phrase_called=no_names)
    return Claims(parts.resolver, parts.words, extractor, alone, parts.screen, parts.links)


def lists(own: Sequence[npt.NDArray[np.integer]]) -> Lists:
    offsets = np.zeros(len(own) + 1, np.int32)
    np.cumsum([len(one) for one in own], out=offsets[1:])
    return Lists(offsets, np.concatenate(own).astype(np.int32))


def kept_from_contradiction(full: Sequence[Outcome], hidden: Sequence[Outcome]) -> Share:
    """Of the claims that are supported when nothing is hidden: share that is not contradicted otherwise."""
    n_true = n_contradicted = 0
    for before, after in zip(full, hidden, strict=True):
        assert isinstance(before, Scored)
        assert isinstance(after, Scored)
        contradicted = {
            (one.quote.start, one.quote.end)
            for one in after.evidence
            if one.quote and one.quote.verdict is Verdict.CONTRADICTED
        }
        for one in before.evidence:
            if one.quote and one.quote.verdict is Verdict.SUPPORTED:
                n_true += 1
                n_contradicted += (one.quote.start, one.quote.end) in contradicted
    return share(n_true - n_contradicted, n_true)


def measured(of: Described, rouge: Score, genes: Sequence[str], n: int) -> dict[str, Any]:
    knowledge = of.knowledge
    verifier = of.verifier(knowledge)
    go_alone = without_names(of)
    values: Score = lambda items: verifier.score(items, with_evidence=False)  # noqa: E731
    go_values: Score = lambda items: go_alone.score(items, with_evidence=False)  # noqa: E731
    texts = of.texts.__getitem__
    masked = {gene: of.masked(text) for gene, text in of.texts.items() if gene in set(genes)}
    bare = {gene: _NAME.sub("", text, count=1) for gene, text in masked.items()}
    with_bare = [gene for gene in genes if ";" in masked[gene] and len(bare[gene]) >= SHORTEST]
    at_random, hard = pairs_at_random(genes, n), pairs_of_a_process(of, genes, n)
    found: dict[str, Any] = {
        "own": compared(values, at_random, texts)._asdict(),
        "own_go": compared(go_values, at_random, masked.__getitem__)._asdict(),
        "own_go_bare": compared(go_values, pairs_at_random(with_bare, n), bare.__getitem__)._asdict(),
        "hard": compared(values, hard, texts)._asdict(),
        "hard_go": compared(go_values, hard, masked.__getitem__)._asdict(),
        "own_rouge": compared(rouge, at_random, texts)._asdict(),
        "hard_rouge": compared(rouge, hard, texts)._asdict(),
    }
    made = made_sentences(of, genes, n)
    for key, sentences in (
        ("made", made),
        ("in_texts", exchanged_in_texts(of, verifier, genes, n)),
    ):
        for how, own in sentences.items():
            tally = judged(verifier, own)
            checked = len(own) - tally[None]
            wrong = tally[Verdict.CONTRADICTED] + (0 if how == "denied" else tally[Verdict.UNSUPPORTED])
            found[f"{key}_{how}"] = {"sentences": len(own), **share(wrong, checked)._asdict()}
    drawn = [gene for pair in at_random for gene in pair]
    items = [Item(PROSE, completion=f"{gene} encodes {of.texts[gene]}") for gene in drawn]
    items += [Item(PROSE, completion=one.text) for one in made["true"]]
    hidden = of.verifier(with_hidden(of, genes))
    full = verifier.score(items)
    found["hidden"] = kept_from_contradiction(full, hidden.score(items))._asdict()
    people = [one for one in full[: len(drawn)] if isinstance(one, Scored)]
    totals = Counter({verdict: int(sum(one.components[verdict] for one in people)) for verdict in Verdict})
    found["people"] = {str(verdict): share(totals[verdict], totals.total())._asdict() for verdict in Verdict}
    found["attacks"] = attacked(of, genes)
    found["genes"], found["pairs"] = len(genes), len(at_random)
    return found


# What does not argue


N_ATTACKED = 100
"""Pairs that each attack is tried on."""


def arguments(of: Described, pair: tuple[str, str], draw: random.Random, others: Sequence[str]) -> dict[str, str]:
    """An honest short argument about a pair of genes, and what tries to get as much without one."""
    name, knowledge = of.knowledge.term_name, of.knowledge
    own = {}
    for gene in pair:
        terms = knowledge.direct[of.row[gene]].tolist()
        own[gene] = [name(term) for term in terms if knowledge.weights[term] >= LEAST_WEIGHT]
    every = [name(term) for term in np.flatnonzero(of.genes_of_term).tolist()]
    some = draw.sample(every, 200)
    one, other = (draw.choice(own[gene]) for gene in pair)
    first, second = pair
    facts = []
    for gene in draw.sample(list(others), 40):
        terms = knowledge.direct[of.row[gene]].tolist()
        facts.append(f"{gene} takes part in {name(draw.choice(terms))}.")
    return {
        "an honest short argument": f"{first} takes part in {one}. {second} is needed for {other}.",
        "both genes' own terms, pasted": " ".join(f"{gene}: {', '.join(own[gene])}." for gene in pair),
        "two hundred names of terms, as a list": f"{first} and {second} are in {'; in '.join(some)}.",
        "two hundred names of terms, a sentence each": " ".join(
            f"{first} and {second} take part in {term}." for term in some
        ),
        "the genes beside forty true facts about others": f"{first} {second}. {' '.join(facts)}",
        "two hundred denials": " ".join(f"{first} and {second} do not take part in {term}." for term in some),
        "two hundred names behind 'inhibits'": " ".join(f"{first} and {second} inhibit the {term}." for term in some),
        "symbols glued to terms": " ".join(f"{gene}{term.replace(' ', '')}" for gene in pair for term in own[gene]),
        "the honest argument, hedged": f"{first} may take part in {one}. {second} might be needed for {other}.",
        "the honest argument, supposed": f"If {first} takes part in {one}, and {second} is in {other}, so be it.",
        "one true sentence, twenty times": f"{first} takes part in {one}. " * 20,
        "two hundred words beside the point": "It is well known that cells live and that genes matter to them. " * 17,
    }


def attacked(of: Described, genes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each: its mean value, the highest, and how often it gets what the honest argument of that pair gets."""
    draw, verifier = random.Random(DRAW_SEED), of.verifier(of.knowledge)
    able = [gene for gene in genes if (of.knowledge.weights[of.knowledge.direct[of.row[gene]]] >= LEAST_WEIGHT).any()]
    values: dict[str, list[float]] = defaultdict(list)
    for pair in pairs_at_random(able, N_ATTACKED):
        for what, text in arguments(of, pair, draw, able).items():
            item = Item(DifferentialExpression(*pair, "k562"), True, f"<think>{text}</think><answer>yes</answer>")
            outcome = verifier.score([item], with_evidence=False)[0]
            assert isinstance(outcome, Scored)
            values[what].append(outcome.value)
    honest = np.array(next(iter(values.values())))
    return {
        what: {"mean": float(np.mean(own)), "max": max(own), "as_much": float((np.array(own) >= honest).mean())}
        for what, own in values.items()
    }


WANTED: tuple[tuple[str, str, str], ...] = (
    ("own", "own against swapped descriptions", "≥ .98 / ≥ .997"),
    ("own_go", "the same by GO alone, genes' names masked", "≥ .93 / ≥ .993"),
    ("own_go_bare", "… and the protein's name cut off the text", "–"),
    ("hard", "the swapped gene from the same broad process", "≥ .95"),
    ("hard_go", "the same by GO alone", "≥ .85"),
    ("own_rouge", "own against swapped, by `go_rouge`", "beside"),
    ("hard_rouge", "from the same broad process, by `go_rouge`", "beside"),
)
SHARES: tuple[tuple[str, str, str], ...] = (
    ("made_sibling", "made sentences, term exchanged for a sibling: found", "≥ .90"),
    ("made_random", "made sentences, term exchanged for a random one: found", "≥ .90"),
    ("made_true", "made sentences, true: marked wrong", "≤ .10"),
    ("in_texts_sibling", "people's sentences, a supported phrase exchanged for a sibling: found", "–"),
    ("in_texts_random", "people's sentences, exchanged for a random term: found", "–"),
    ("made_denied", "denied truths marked contradicted", "≥ .90"),
    ("hidden", "true claims not contradicted with a fifth of the annotations hidden", "≥ .99"),
)


def markdown(found: Mapping[str, Any], half: Half) -> str:
    lines = [
        f"Half *{half}*: {found['genes']:,} genes, {found['pairs']:,} pairs.",
        "",
        "| AUC, and the true text higher or equal | AUC | higher or equal | higher | something to check | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for key, words, wanted in WANTED:
        one = found[key]
        checked = "–" if key.endswith("rouge") else short(one["checked"], 4)
        lines.append(
            f"| {words} | {short(one['auc'])} ± {short(one['auc_within'])} | {short(one['higher'] + one['equal'], 4)} "
            f"| {short(one['higher'])} | {checked} | {wanted} |"
        )
    lines += ["", "| share of what was checked | share (95 %) | checked | wanted |", "|---|---|---|---|"]
    for key, words, wanted in SHARES:
        one = found[key]
        of_how_many = f"{one['n']:,}" + (f" of {one['sentences']:,}" if "sentences" in one else "")
        interval = f"{short(one['share'], 4)} ({short(one['low'])}–{short(one['high'])})"
        lines.append(f"| {words} | {interval} | {of_how_many} | {wanted} |")
    lines += ["", "| text | mean value | highest | as much as the honest argument |", "|---|---|---|---|"]
    for what, one in found["attacks"].items():
        often = "–" if what.startswith("an honest") else f"{one['as_much']:.1%}"
        lines.append(f"| {what} | {short(one['mean'], 2)} | {short(one['max'], 2)} | {often} |")
    said = ", ".join(f"{short(one['share'])} {verdict}" for verdict, one in found["people"].items())
    lines += ["", f"Claims of people's own descriptions: {said}."]
    return "\n".join(lines) + "\n"


def short(number: float, digits: int = 3) -> str:
    """ ".981", as the other tables have it."""
    return f"{number:.{digits}f}".removeprefix("0")


def sheet(of: Described, genes: Sequence[str]) -> list[dict[str, str]]:
    """Claims drawn at random from the texts of genes drawn at random, each with its sentence, to be judged by hand."""
    draw, verifier = random.Random(DRAW_SEED), of.verifier(of.knowledge)
    drawn = draw.sample(list(genes), len(genes))[40 * N_SHEET :]  # those before were read to mend
    texts = [f"{gene} encodes {of.texts[gene]}" for gene in drawn]
    rows = []
    for text, outcome in zip(texts, verifier.score([Item(PROSE, completion=text) for text in texts]), strict=True):
        assert isinstance(outcome, Scored)
        for one in outcome.evidence:
            if one.quote:
                start = text.rfind(". ", 0, one.quote.start) + 1
                end = text.find(". ", one.quote.end) + 1 or len(text)
                rows.append({"claim": one.text, "sentence": text[start:end].strip(), "right": "", "why": ""})
    return draw.sample(rows, N_SHEET)


def main(
    half: Annotated[Half, typer.Option(help="Of the genes.")] = "chosen",
    pairs: Annotated[int, typer.Option(help="Pairs, and made sentences.")] = 3000,
    out: Annotated[Path | None, typer.Option(help="JSON with every figure.")] = None,
    sheet_at: Annotated[
        Path | None, typer.Option("--sheet", help="Write claims to be judged by hand; no more.")
    ] = None,
    descriptions: Annotated[Path | None, typer.Option(help="STRING's file; else the mirror's or the cache's.")] = None,
) -> None:
    """Measure one half; print the tables."""
    store = ArtifactStore.default()
    path = descriptions or Sources.default(tell=lambda said: typer.echo(said, err=True)).locate(STRING_PROTEINS).path
    of = described(store, path)
    if sheet_at:
        with sheet_at.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, ("claim", "sentence", "right", "why"), delimiter="\t", lineterminator="\n")
            table.writeheader()
            table.writerows(sheet(of, of.half(half)))
        return
    rouge = open_go_rouge(store)
    found = measured(of, lambda items: rouge.score(items, with_evidence=False), of.half(half), pairs)
    if out:
        out.write_text(json.dumps(found, indent=2) + "\n")
    print(markdown(found, half))


if __name__ == "__main__":
    typer.run(main)
