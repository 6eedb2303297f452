"""ROUGE equals rouge-score, and the reference is what the Gene Ontology says of the gene."""

from __future__ import annotations

import random
import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer

import bioverify
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, GeneAnnotation
from bioverify.core.verifier import Item
from bioverify.verifiers.go_rouge.rouge import Reference, Vocabulary, _stem, rouge, words_of
from bioverify.verifiers.go_rouge.verifier import GoRouge, open_verifier

SCORER = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
PORTER = PorterStemmer()
ENDINGS = (
    "sses ies ss eed ed ing at bl iz tt ational tional enci anci izer bli alli entli eli ousli ization ation ator "
    "alism iveness fulness ousness aliti iviti biliti logi fulli icate ative alize iciti ical ful ness al ance ence er "
    "ic able ible ant ement ment ent ion sion tion ou ism ate iti ous ive ize e l y"
)
SYLLABLES = [*string.ascii_lowercase, *string.digits, *ENDINGS.split()]
TERMS = [
    ("ATP binding", "F", ""),
    ("alanine-tRNA ligase activity", "F", ""),
    ("cytosol", "C", ""),
    ("tRNA aminoacylation", "P", ""),
]


@pytest.fixture
def verifier() -> GoRouge:
    """AARS1 has all four terms, ASNS two, GAPDH none."""
    symbols = {symbol: symbol for symbol in ("AARS1", "ASNS", "GAPDH")}
    return GoRouge(
        GeneResolver(symbols, {"AARS": ("AARS1",)}),
        terms=TERMS,
        symbols=["AARS1", "ASNS"],
        term_offsets=np.array([0, 4, 6], np.int32),
        term_indices=np.array([0, 1, 2, 3, 0, 2], np.int32),
    )


def ours(reference: str, candidate: str) -> tuple[float, ...]:
    vocabulary = Vocabulary([reference])
    [[scores]] = rouge([(Reference([vocabulary.encode(reference)]), vocabulary.encode(candidate))]).tolist()
    return tuple(scores)


def theirs(reference: str, candidate: str) -> tuple[float, float, float]:
    scores = SCORER.score(reference, candidate)
    return scores["rouge1"].fmeasure, scores["rouge2"].fmeasure, scores["rougeL"].fmeasure


WORDS = ["binding", "bound", "regulation", "regulates", "ATP", "tRNA", "5'-3'", "ζ-kinase", "naïve", "happily", "skies",
         "dying", "generalizations", "oscillators", "GO:0005524", "a", "II", "İstanbul", "K", "ſ"]  # fmt: skip
TEXTS = st.one_of(
    st.text(alphabet=string.ascii_letters + string.digits + " -.,'\n\t", max_size=200),
    st.text(max_size=60),
    st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join),
)


@settings(max_examples=400, deadline=None)
@given(TEXTS, TEXTS)
def test_scores_equal_rouge_score(reference: str, candidate: str) -> None:
    assert ours(reference, candidate) == pytest.approx(theirs(reference, candidate), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.lists(TEXTS, min_size=2, max_size=2), TEXTS), min_size=1, max_size=6))
def test_a_batch_against_several_references_gives_what_each_pair_gives(pairs: list[tuple[list[str], str]]) -> None:
    vocabulary = Vocabulary([text for texts, _ in pairs for text in texts])
    scores = rouge(
        [
            (Reference([vocabulary.encode(text) for text in texts]), vocabulary.encode(candidate))
            for texts, candidate in pairs
        ]
    )
    expected = [[theirs(text, candidate) for text in texts] for texts, candidate in pairs]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["binding", "to", "protein"]), max_size=12), st.integers(0, 8))
def test_a_word_said_twice_in_a_row_counts_as_often_as_it_is_said(words: list[str], times: int) -> None:
    reference, candidate = " ".join(["binding"] * times + words), " ".join([*words, *["binding"] * 5])
    assert ours(reference, candidate) == pytest.approx(theirs(reference, candidate), abs=1e-9)


def test_stems_are_those_of_nltks_porter_stemmer(bundled_store: ArtifactStore) -> None:
    words = {word for term in open_verifier(bundled_store)._terms for word in words_of(term.text)}
    words |= {word for text in (bioverify.__doc__, re.__doc__, string.__doc__) for word in words_of(text or "")}
    assert len(words) > 1000
    for word in words:
        assert _stem(word) == (word.decode() if len(word) <= 3 else PORTER.stem(word.decode()))


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(SYLLABLES), min_size=1, max_size=5).map("".join))
def test_stems_of_made_up_words_are_those_of_nltks_porter_stemmer(word: str) -> None:
    assert _stem(word.encode()) == (word if len(word) <= 3 else PORTER.stem(word))


def test_scores_equal_rouge_score_on_texts_made_of_gene_ontology_terms(bundled_store: ArtifactStore) -> None:
    go = open_verifier(bundled_store)
    choose = random.Random(3)
    names = [term.name for term in go._terms]
    for _ in range(60):
        reference = " ".join(choose.sample(names, choose.randint(1, 25)))
        mixed = [*choose.sample(names, 5), *choose.sample(reference.split(), 1), "with", "unseen", "w0rds!"]
        choose.shuffle(mixed)
        candidate = " ".join(mixed)
        assert ours(reference, candidate) == pytest.approx(theirs(reference, candidate), abs=1e-9)


def test_the_verifiers_numbers_are_those_of_rouge_score(bundled_store: ArtifactStore) -> None:
    go = open_verifier(bundled_store)
    text = "ASNS makes asparagine from aspartate, an ATP binding ligase of the cytosol that responds to starvation"
    outcome = go.score([Item(GeneAnnotation(("ASNS",)), completion=f"<think>{text}</think>")])[0]
    assert isinstance(outcome, Scored)
    row = go._row["ASNS"]
    indices = go._term_indices[go._term_offsets[row] : go._term_offsets[row + 1]]
    terms = [go._terms[index] for index in indices]
    assert sorted(term.name for term in terms) == [term.name for term in terms]
    expected = theirs(" ".join(term.name for term in terms), text)
    shown = tuple(outcome.components[name] for name in ("rouge1", "rouge2", "rougeL"))
    assert shown == pytest.approx(expected, abs=1e-9)
    assert outcome.value == pytest.approx(sum(expected) / 3, abs=1e-9)
    for aspect in "CFP":
        of_aspect = [term.name for term in terms if term.aspect == aspect]
        assert outcome.components[aspect] == pytest.approx(sum(theirs(" ".join(of_aspect), text)) / 3, abs=1e-9)


def test_the_value_is_the_mean_over_the_questions_genes(verifier: GoRouge) -> None:
    completion = "<gene_info>AARS1: tRNA aminoacylation</gene_info><gene_info>ASNS: ATP binding, cytosol</gene_info>"
    task = DifferentialExpression("AARS1", "ASNS", "k562")
    both, first, second = (
        verifier.score([Item(asked, completion=completion)])[0]
        for asked in (task, GeneAnnotation(("AARS1",)), GeneAnnotation(("ASNS",)))
    )
    assert isinstance(both, Scored)
    assert isinstance(first, Scored)
    assert isinstance(second, Scored)
    assert both.value == pytest.approx((first.value + second.value) / 2)
    assert "P" not in second.components
    assert both.components["P"] == first.components["P"]
    assert [evidence.text.split(":")[0] for evidence in both.evidence] == ["AARS1", "ASNS"]


def test_each_gene_is_compared_with_the_blocks_that_name_it_else_with_all_else_with_the_thoughts(
    verifier: GoRouge,
) -> None:
    def value(completion: str) -> float:
        outcome = verifier.score([Item(GeneAnnotation(("AARS",)), completion=completion)])[0]
        assert isinstance(outcome, Scored)
        return outcome.value

    own, other = "<gene_info>AARS1 is cytosol</gene_info>", "<gene_info>ASNS is ATP binding</gene_info>"
    assert value(own + other) == value(own)
    assert value(own.replace("AARS1", "It") + other) != value(own)
    assert value(own + "<think>ATP binding</think>") == value(own)
    assert value("<think>AARS1 is cytosol</think>") == value(own)


def test_canaries_are_genes_with_their_own_words_and_anothers(verifier: GoRouge) -> None:
    items = verifier.canary_items()
    assert [item.task for item in items] == [GeneAnnotation(("AARS1",)), GeneAnnotation(("ASNS",))]
    outcomes = verifier.score(items)
    assert all(isinstance(outcome, Scored) and 0 < outcome.value < 1 for outcome in outcomes), outcomes


def test_without_text_the_score_is_zero_and_says_so(verifier: GoRouge) -> None:
    for completion in ("", "<answer>yes</answer>", "<think> </think>"):
        outcome = verifier.score([Item(GeneAnnotation(("AARS1",)), completion=completion)])[0]
        assert isinstance(outcome, Scored)
        assert outcome.value == 0.0
        assert outcome.components["no_text"] == 1.0
        assert outcome.components["C"] == 0.0


@pytest.mark.parametrize(
    ("genes", "reason"),
    [(("AARS1", "GAPDH"), "unannotated_gene"), (("NOSUCHGENE",), "unknown_gene"), ((), "no_gene")],
)
def test_a_gene_without_annotation_is_not_applicable(verifier: GoRouge, genes: tuple[str, ...], reason: str) -> None:
    outcome = verifier.score([Item(GeneAnnotation(genes), completion="<think>x</think>")])[0]
    assert isinstance(outcome, NotApplicable)
    assert outcome.reason == reason


def test_evidence_names_matched_terms_word_for_word_first(verifier: GoRouge) -> None:
    completion = "<think>AARS1 binds ATP as a ligase: activity of alanine tRNA, in the cytosol</think>"
    outcome = verifier.score([Item(CoExpression("AARS1", "ASNS"), completion=completion)])[0]
    assert isinstance(outcome, Scored)
    assert outcome.evidence[0].text.startswith("AARS1: ROUGE-L 0.")
    assert outcome.evidence[0].text.endswith(
        "against 4 annotated terms; matched: cytosol, alanine-tRNA ligase activity, ATP binding"
    )


def test_definitions_stand_in_the_reference_and_names_in_the_evidence() -> None:
    symbols = {symbol: symbol for symbol in ("AARS1", "ASNS")}
    verifier = GoRouge(
        GeneResolver(symbols, {}),
        terms=[
            ("ATP binding", "F", "Binding to ATP, a universal coenzyme."),
            ("cytosol", "C", "The part of the cytoplasm."),
        ],
        symbols=["AARS1"],
        term_offsets=np.array([0, 2], np.int32),
        term_indices=np.array([0, 1], np.int32),
    )
    text = "AARS1 is part of the cytosol and its ATP binding is universal"
    outcome = verifier.score([Item(GeneAnnotation(("AARS1",)), completion=f"<think>{text}</think>")])[0]
    assert isinstance(outcome, Scored)
    reference = "ATP binding Binding to ATP, a universal coenzyme. cytosol The part of the cytoplasm."
    assert outcome.value == pytest.approx(sum(theirs(reference, text)) / 3, abs=1e-9)
    assert outcome.evidence[0].text.endswith("matched: ATP binding, cytosol")
    item, expected = verifier.canary()
    assert verifier.score([item]) == [expected]
