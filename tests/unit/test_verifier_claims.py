"""Claims are read off sentences, held against annotations, and counted so that lists and repetition pay nothing."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioverify.artifacts import genes
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.sources import GENES, GO_ANNOTATIONS, GO_TERMS, Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.build_settings import read_build_settings
from bioverify.core.answers import AnswerProblem
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import PROSE, DifferentialExpression, DirectionOfChange, GeneAnnotation, TaskKind
from bioverify.core.verifier import Item
from bioverify.settings import SettingsError
from bioverify.verifiers.claims import build
from bioverify.verifiers.claims.conclusion import concluded
from bioverify.verifiers.claims.phrases import Words
from bioverify.verifiers.claims.settings import Network, Says, Settings
from bioverify.verifiers.claims.verifier import Claims, open_verifier
from tests.fixtures.artifacts import silent

TERMS = {
    1: ("alanyl-tRNA aminoacylation", "P", "is_a: GO:0000002", 'synonym: "alanine charging" EXACT []'),
    2: ("tRNA aminoacylation", "P", "", "alt_id: GO:0000009"),
    13: ("alanine-tRNA ligase activity", "F", "", ""),
    4: ("DNA repair", "P", "", ""),
    5: ("integrated stress response signaling", "P", "", ""),
    6: ("regulation of DNA repair", "P", "relationship: regulates GO:0000004", ""),
    7: ("amino acid transport", "P", "", ""),
    8: ("chromatin", "C", "relationship: part_of GO:0000010", ""),
    10: ("chromosome", "C", "", ""),
}
NAMESPACES = {"P": "biological_process", "F": "molecular_function", "C": "cellular_component"}
NAMED = {
    "AARS1": "alanyl-tRNA synthetase 1",
    "EIF2AK4": "eukaryotic translation initiation factor 2 alpha kinase 4",
    "ATF4": "activating transcription factor 4",
    "XRCC1": "X-ray repair cross complementing 1",
    "SLC7A11": "solute carrier family 7 member 11",
}
ANNOTATED = [
    ("AARS1", 1, "IDA", ""), ("AARS1", 13, "TAS", ""), ("AARS1", 4, "IDA", "NOT|"), ("EIF2AK4", 5, "IMP", ""),
    ("ATF4", 5, "IDA", ""), ("ATF4", 7, "IEA", ""), ("XRCC1", 6, "IDA", ""),
    ("XRCC1", 8, "IDA", ""), ("SLC7A11", 7, "IDA", ""),
]  # fmt: skip
SCREENED = {
    "k562-de": ["EIF2AK4,ATF4,1,train", "AARS1,ATF4,1,train", "ATF4,SLC7A11,1,train", "XRCC1,SLC7A11,0,train",
                "EIF2AK4,SLC7A11,1,test", "AARS1,XRCC1,1,train", "ATF4,XRCC1,0,train", "ATF4,XRCC1,1,train"],
    "k562-dir": ["EIF2AK4,ATF4,0,train", "AARS1,ATF4,1,train", "ATF4,SLC7A11,0,train", "EIF2AK4,SLC7A11,0,test",
                 "XRCC1,ATF4,1,train"],
    "rpe1-de": ["EIF2AK4,ATF4,0,train", "ATF4,SLC7A11,1,train"],
    "rpe1-dir": ["ATF4,SLC7A11,0,train"],
    **{f"{line}-{kind}": ["OTHER1,OTHER2,0,train"] for line in ("hepg2", "jurkat") for kind in ("de", "dir")},
}  # fmt: skip
"""Perturbed gene, measured gene, label, split."""
N_OTHERS = 900
"""Genes without a part in the tests: with too few, no term would be special."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Five genes and nine terms, in the ontology's and the annotations' files, and a screen."""
    root: Path = tmp_path_factory.mktemp("claims")
    ontology = ["format-version: 1.2", "ontology: go", ""]
    for number, (name, aspect, relation, more) in TERMS.items():
        ontology += ["[Term]", f"id: GO:{number:07}", f"name: {name}", f"namespace: {NAMESPACES[aspect]}"]
        ontology += [line for line in (more, relation) if line]
        ontology.append("")
    ontology += ["[Term]", "id: GO:0000011", "name: obsolete mending of DNA", "namespace: biological_process"]
    ontology += ["is_obsolete: true", "replaced_by: GO:0000004", ""]
    (root / "go").mkdir()
    (root / "go" / "go-basic.obo").write_text("\n".join(ontology))
    symbols = [*NAMED, *(f"OTHER{number}" for number in range(N_OTHERS))]
    rows = [*ANNOTATED, *((symbol, 10, "IEA", "") for symbol in symbols if symbol.startswith("OTHER"))]
    lines = [
        f"NCBIGene\t1\t{symbol}\t{denied}involved_in\tGO:{term:07}\tPMID:1\t{code}\t\tP\t\t\tgene\ttaxon:9606"
        "\t20240101\tNCBI\t\t"
        for symbol, term, code, denied in rows
    ]  # fmt: skip
    with gzip.open(root / "go" / "goa_human.gaf.gz", "wt") as file:
        file.write("!gaf-version: 2.2\n" + "\n".join(lines) + "\n")
    header = "ncbi_gene_id\tsymbol\tname\ttype\taliases\tensembl_gene_ids\tuniprot_ids\n"
    aliases = {"EIF2AK4": "GCN2", "AARS1": "AARS"}
    table = [
        f"{at}\t{symbol}\t{NAMED.get(symbol, symbol)}\tprotein-coding\t{aliases.get(symbol, '-')}\t\t"
        for at, symbol in enumerate(symbols, start=1)
    ]
    with gzip.open(root / "go" / "genes.tsv.gz", "wt") as file:
        file.write(header + "\n".join(table) + "\n")
    (root / "screens").mkdir()
    for name, rows_of_file in SCREENED.items():
        (root / "screens" / f"{name}.csv").write_text("\n".join(["pert,gene,label,split", *rows_of_file]) + "\n")
    sources = Sources(mirror=root, cache=root / "cache", offline=True, explicit={"perturbqa": root / "screens"})
    assert [sources.locate(source).kind for source in (GENES, GO_TERMS, GO_ANNOTATIONS)] == ["mirror"] * 3
    return sources


def built(folder: Path, sources: Sources, settings: Settings = Settings()) -> ArtifactStore:  # noqa: B008  frozen
    """As the real artifacts are."""
    store = ArtifactStore(folder)
    genes.build(store, sources, progress=silent)
    build.build(store, sources, progress=silent, settings=settings)
    return store


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory, sources: Sources) -> Claims:
    store = built(tmp_path_factory.mktemp("artifacts"), sources)
    assert store.manifest("claims").parameters["relations"] == "is_a, part_of, regulates"
    return open_verifier(store)


QUESTION = DifferentialExpression("AARS", "ATF4", "k562")


def scored(verifier: Claims, thoughts: str, task=QUESTION, answer=True) -> Scored:
    outcome = verifier.score([Item(task, answer, f"<think>{thoughts}</think><answer>yes</answer>")])[0]
    assert isinstance(outcome, Scored)
    return outcome


def verdicts(verifier: Claims, thoughts: str, task=QUESTION) -> list[str]:
    return [one.text for one in scored(verifier, thoughts, task).evidence]


def counts(outcome: Scored) -> tuple[float, float, float]:
    parts = outcome.components
    return parts["supported"], parts["contradicted"], parts["unsupported"]


@pytest.mark.parametrize(
    ("thoughts", "expected"),
    [
        ("AARS1 takes part in alanyl-tRNA aminoacylation.",
         'AARS1, "alanyl-tRNA aminoacylation": supported: GO:0000001 alanyl-tRNA aminoacylation (IDA)'),
        ("AARS1 takes part in tRNA aminoacylation.",
         'AARS1, "tRNA aminoacylation": supported: GO:0000002 tRNA aminoacylation '
         "(IDA; through GO:0000001 alanyl-tRNA aminoacylation)"),
        ("AARS1 is known for alanine charging.",
         'AARS1, "alanine charging": supported: GO:0000001 alanyl-tRNA aminoacylation (IDA)'),
        ("The old id of what AARS1 does is GO:0000009.",
         'AARS1, "0000009": supported: GO:0000002 tRNA aminoacylation '
         "(IDA; through GO:0000001 alanyl-tRNA aminoacylation)"),
        ("AARS1 encodes alanyl-tRNA synthetase.", 'AARS1, "alanyl-tRNA synthetase": supported: so it is called'),
        ("ATF4 encodes alanyl-tRNA synthetase.",
         'ATF4, "alanyl-tRNA synthetase": contradicted: the name belongs to AARS1'),
        ("AARS1 is active in DNA repair.",
         'AARS1, "DNA repair": contradicted: GO:0000004 DNA repair is annotated with NOT'),
        ("AARS1 is not active in DNA repair.",
         'AARS1, not "DNA repair": supported: GO:0000004 DNA repair is annotated with NOT'),
        ("AARS1 is active in mending of DNA.",
         'AARS1, "mending of DNA": contradicted: GO:0000004 DNA repair is annotated with NOT'),
        ("ATF4 is active in repair of DNA.",
         'ATF4, "repair of DNA": unsupported: GO:0000004 DNA repair: not known to our sources, which are not complete'),
        ("XRCC1 is active in DNA repair.",
         'XRCC1, "DNA repair": supported: GO:0000004 DNA repair (IDA; through GO:0000006 regulation of DNA repair)'),
        ("AARS1 doesn't take part in tRNA aminoacylation.",
         'AARS1, not "tRNA aminoacylation": contradicted: GO:0000002 tRNA aminoacylation '
         "(IDA; through GO:0000001 alanyl-tRNA aminoacylation)"),
        ("GCN2 starts the integrated stress response signaling.",
         'EIF2AK4, "integrated stress response signaling": supported: '
         "GO:0000005 integrated stress response signaling (IMP)"),
    ],
)  # fmt: skip
def test_a_claim_is_told_with_its_words_its_verdict_and_its_source(
    verifier: Claims, thoughts: str, expected: str
) -> None:
    assert expected in verdicts(verifier, thoughts)


@pytest.mark.parametrize(
    ("thoughts", "gene"),
    [
        ("AARS1 is an enzyme. It takes part in tRNA aminoacylation.", "AARS1"),
        ("AARS1 takes part in tRNA aminoacylation and acts on ATF4.", "AARS1"),
        ("AARS1 is an enzyme, whereas ATF4 takes part in tRNA aminoacylation.", "ATF4"),
        ("AARS1 is an enzyme that binds ATF4. It takes part in tRNA aminoacylation.", "AARS1"),
        ("Because of tRNA aminoacylation one needs AARS1.", "AARS1"),
    ],
)
def test_a_claim_is_about_the_subject_of_its_sentence(verifier: Claims, thoughts: str, gene: str) -> None:
    said = [one for one in verdicts(verifier, thoughts) if '"tRNA aminoacylation"' in one]
    assert [one.split(",")[0] for one in said] == [gene]


@pytest.mark.parametrize(
    ("thoughts", "is_denied"),
    [
        ("If proteins are not made, ATF4 drives amino acid transport.", False),
        ("If there is no food and nothing is left, ATF4 drives amino acid transport.", False),
        ("Whether or not it is so, ATF4 drives amino acid transport.", False),
        ("If so, ATF4 does not drive amino acid transport.", True),
        ("If ATF4 is not in amino acid transport, it is odd.", True),
        ("Neither food nor ATF4 drives amino acid transport.", True),
    ],
)
def test_what_a_condition_denies_is_not_denied_of_the_gene_behind_it(
    verifier: Claims, thoughts: str, is_denied: bool
) -> None:
    assert [', not "' in one for one in verdicts(verifier, thoughts)] == [is_denied]


def test_genes_side_by_side_are_spoken_of_together_and_tied_by_what_both_have(verifier: Claims) -> None:
    task = DifferentialExpression("EIF2AK4", "ATF4", "k562")
    outcome = scored(verifier, "EIF2AK4 and ATF4 act in integrated stress response signaling.", task)
    assert counts(outcome) == (2, 0, 0)
    assert (outcome.components["linked"], outcome.components["grounded"]) == (1, 1)
    assert scored(verifier, "EIF2AK4 acts in integrated stress response signaling.", task).components["linked"] == 0
    pair = scored(verifier, "EIF2AK4 activates ATF4 when uncharged tRNA is there.", task)
    assert counts(pair) == (1, 0, 0)
    assert pair.components["linked"] == 1
    assert "both are annotated with GO:0000005" in pair.evidence[0].text


def test_two_genes_are_linked_through_one_that_is_named(verifier: Claims) -> None:
    task = DifferentialExpression("EIF2AK4", "SLC7A11", "k562")
    thoughts = "EIF2AK4 activates ATF4 in this cell. ATF4 regulates SLC7A11 in turn."
    assert scored(verifier, thoughts, task).components["linked"] == 1
    assert scored(verifier, thoughts.split(". ")[0] + ".", task).components["linked"] == 0


HONEST = "AARS1 encodes alanyl-tRNA synthetase, which has a role in alanyl-tRNA aminoacylation. ATF4 drives amino acid transport."  # noqa: E501
ALL_NAMES = [name for name, *_ in TERMS.values()]
ATTACKS = {
    "the gene's own terms, pasted": "AARS1: alanyl-tRNA aminoacylation, alanine-tRNA ligase activity. ATF4: "
    "integrated stress response signaling, amino acid transport.",
    "every name of the ontology": "AARS1 and ATF4 are in " + "; in ".join(ALL_NAMES) + ".",
    "the genes beside true facts about others": "AARS1 ATF4. XRCC1 is a part of chromatin. XRCC1 has a role in "
    "regulation of DNA repair. SLC7A11 does amino acid transport for it.",
    "denials stacked": " ".join(f"AARS1 is not in {name}. ATF4 is not in {name}." for name in ALL_NAMES),
    "symbols glued to terms": "AARS1alanyl-tRNAaminoacylation ATF4aminoacidtransport AARS1:tRNA-aminoacylation",
    "all hedged": "AARS1 may have a role in alanyl-tRNA aminoacylation. ATF4 might drive amino acid transport.",
    "two hundred words beside the point": " ".join(["OTHER1 is a part of the chromosome."] * 33),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_gets_what_an_honest_short_argument_gets(verifier: Claims, name: str) -> None:
    assert 0 <= scored(verifier, ATTACKS[name]).value < scored(verifier, HONEST).value


FACTS = ["AARS1 is in alanyl-tRNA aminoacylation.", "AARS1 is in tRNA aminoacylation.", "ATF4 is in DNA repair.",
         "ATF4 drives amino acid transport.", "AARS1 has an alanine-tRNA ligase activity.", "AARS1 is in DNA repair.",
         "XRCC1 is a part of chromatin.", "ATF4 is not in amino acid transport.", "AARS1 may be a part of chromatin.",
         "EIF2AK4 is in integrated stress response signaling."]  # fmt: skip
FALSE = ["ATF4 is in DNA repair.", "AARS1 is in DNA repair.", "ATF4 is not in amino acid transport.",
         "AARS1 is in amino acid transport.", "ATF4 encodes alanyl-tRNA synthetase."]  # fmt: skip
TRUE = ["AARS1 is in alanyl-tRNA aminoacylation.", "ATF4 drives amino acid transport.", "XRCC1 is in DNA repair.",
        "AARS1 encodes alanyl-tRNA synthetase.", "AARS1 is not in DNA repair."]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(said=st.lists(st.sampled_from(FACTS), max_size=8), false=st.sampled_from(FALSE), true=st.sampled_from(TRUE))
def test_a_false_claim_never_raises_the_value_and_a_supported_one_never_lowers_it(
    verifier: Claims, said: list[str], false: str, true: str
) -> None:
    before = scored(verifier, " ".join(said)).value
    assert scored(verifier, " ".join([*said, false])).value <= before
    assert scored(verifier, " ".join([*said, true])).value >= before


@settings(max_examples=200, deadline=None)
@given(said=st.lists(st.sampled_from(FACTS), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_order_and_repetition_change_nothing(verifier: Claims, said: list[str], seed: int) -> None:
    once = scored(verifier, " ".join(said))
    shuffled = random.Random(seed).sample([*said, *said], 2 * len(said))
    again = scored(verifier, " ".join(shuffled))
    assert again.value == pytest.approx(once.value)
    assert again.components == pytest.approx(once.components)


def test_without_a_claim_the_value_is_zero_and_a_false_one_gives_no_more(verifier: Claims) -> None:
    for thoughts in ("", "It is so.", "ATF4 is in DNA repair."):
        assert scored(verifier, thoughts).value == 0
    assert scored(verifier, "It is so.").components["claims"] == 0
    assert scored(verifier, "ATF4 drives amino acid transport.").value > 0


def test_hedges_and_hypotheses_weigh_less_and_one_lucky_claim_is_not_the_whole(verifier: Claims) -> None:
    values = [
        scored(verifier, thoughts).value
        for thoughts in (
            "ATF4 drives amino acid transport.",
            "ATF4 may drive amino acid transport.",
            "If so, ATF4 would drive amino acid transport.",
        )
    ]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 3
    assert values[0] <= 0.5


def quoted(completion: str, outcome: Scored) -> list[tuple[str, str]]:
    return [(completion[one.quote.start : one.quote.end], one.quote.verdict) for one in outcome.evidence if one.quote]


COMPLETION = (
    "<gene_info>  AARS1 charges “tRNA”; it is in alanine charging.</gene_info> α <think>ATF4 is in DNA repair.</think>"
    "\n<think>ATF4 – is not in amino acid transport. So AARS1 does tRNA aminoacylation.</think><answer>yes</answer>"
)


def test_a_claim_is_quoted_by_its_place_in_the_completion(verifier: Claims) -> None:
    outcome = verifier.score([Item(QUESTION, True, COMPLETION)])[0]
    assert isinstance(outcome, Scored)
    assert quoted(COMPLETION, outcome) == [
        ("alanine charging", "supported"),
        ("DNA repair", "unsupported"),
        ("amino acid transport", "contradicted"),
    ]


@settings(max_examples=100, deadline=None)
@given(before=st.text(alphabet="α“<> .\n–x", max_size=12), between=st.text(alphabet="α <>\n.", max_size=6))
def test_what_stands_around_a_claim_moves_its_quote_and_changes_no_word_of_it(
    verifier: Claims, before: str, between: str
) -> None:
    completion = (
        f"{before}<think>ATF4 drives amino acid transport.</think>{between}<think>AARS1 is in DNA repair.</think>"
    )
    outcome = verifier.score([Item(QUESTION, True, completion)])[0]
    assert isinstance(outcome, Scored)
    assert quoted(completion, outcome) == [("amino acid transport", "supported"), ("DNA repair", "contradicted")]


def test_prose_about_no_question_is_read_whole_and_every_gene_counts(verifier: Claims) -> None:
    prose = "XRCC1 is in DNA repair. <think>ATF4</think> takes part in amino acid transport. AARS1 is in DNA repair."
    outcome = verifier.score([Item(PROSE, completion=prose)])[0]
    assert isinstance(outcome, Scored)
    assert counts(outcome) == (2, 1, 0)
    assert quoted(prose, outcome)[1] == ("amino acid transport", "supported")
    assert {"grounded", "linked", "consistent"}.isdisjoint(outcome.components)
    bare = verifier.score([Item(PROSE, completion="It rains.")])[0]
    assert isinstance(bare, Scored)
    assert (bare.value, bare.components["claims"]) == (0, 0)


def test_whether_it_applies_is_a_fact_of_the_question(verifier: Claims) -> None:
    for text in ("", "<think>ATF4 drives amino acid transport.</think>"):
        for task, reason in (
            (GeneAnnotation(("NOSUCHGENE",)), "unknown_gene"),
            (DifferentialExpression("NOSUCHGENE", "ATF4", "k562"), "unknown_gene"),
            (DifferentialExpression("ATF4", "NOSUCHGENE", "k562"), "unknown_gene"),
            (None, "unrecognised_question"),
        ):
            outcome = verifier.score([Item(task, None, text)])[0]
            assert isinstance(outcome, NotApplicable)
            assert outcome.reason == reason
        asked = GeneAnnotation(("NOSUCHGENE", "ATF4"))
        assert isinstance(verifier.score([Item(asked, None, text)])[0], Scored)


@pytest.mark.parametrize(
    ("thoughts", "kind", "said"),
    [
        ("Both are in one pathway. Therefore a knockdown will change it.", TaskKind.DIFFERENTIAL_EXPRESSION, True),
        ("Thus the expression is unlikely to change.", TaskKind.DIFFERENTIAL_EXPRESSION, False),
        ("So, the answer is no.", TaskKind.DIFFERENTIAL_EXPRESSION, False),
        ("It changes. Hence no.", TaskKind.DIFFERENTIAL_EXPRESSION, None),
        ("It will change.", TaskKind.DIFFERENTIAL_EXPRESSION, None),
        ("Therefore it increases.", TaskKind.DIRECTION_OF_CHANGE, True),
        ("Therefore it is downregulated.", TaskKind.DIRECTION_OF_CHANGE, False),
        ("Therefore it will not increase.", TaskKind.DIRECTION_OF_CHANGE, None),
        ("Therefore it increases or decreases.", TaskKind.DIRECTION_OF_CHANGE, None),
    ],
)
def test_a_conclusion_is_read_by_stated_rules(thoughts: str, kind: TaskKind, said: bool | None) -> None:
    assert concluded(thoughts, kind) is said


def test_what_the_thoughts_conclude_is_held_against_the_answer(verifier: Claims) -> None:
    thoughts = "ATF4 is a factor. Therefore it increases."
    task = DirectionOfChange("AARS1", "ATF4", "k562")
    assert scored(verifier, thoughts, task, answer=True).components["consistent"] == 1
    assert scored(verifier, thoughts, task, answer=False).components["consistent"] == 0
    assert "consistent" not in scored(verifier, "ATF4 is a factor.", task).components
    assert "consistent" not in scored(verifier, thoughts, task, answer=AnswerProblem.NO_ANSWER_BLOCK).components


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("AB1 -.!;\n'αé–()0a<>"), max_size=60))
def test_each_character_of_the_encoded_text_has_its_place_in_the_text(text: str) -> None:
    words = Words({"ab1": 0}, {"A-B": 0, "B1": 1}, {})
    spans = words.spans(text)
    assert len(spans) == len(words.encode(text))
    assert all(0 <= start < end <= len(text) for start, end in spans)


@pytest.mark.parametrize(
    ("thoughts", "expected"),
    [
        ("It acts on EIF2AK4, ATF4 and AARS1 in this cell.", 0),  # a list of genes
        ("EIF2AK4 and ATF4 interact in this cell.", 1),
        ("EIF2AK4, ATF4, AARS1, XRCC1 and SLC7A11 form it.", 0),  # a list, too
        ("EIF2AK4 activates ATF4 when there is no food.", 1),
        ("EIF2AK4 is in the cell, where many other things are found, and far from here something activates ATF4.", 0),
    ],
)
def test_a_pair_is_claimed_by_a_word_between_a_subject_and_an_object_and_by_no_list(
    verifier: Claims, thoughts: str, expected: int
) -> None:
    assert len([one for one in verdicts(verifier, thoughts) if one.startswith("ATF4 and EIF2AK4")]) == expected


@pytest.mark.parametrize(
    ("thoughts", "said"),
    [
        ("AARS1 is an enzyme. Interacts with ATF4 in amino acid transport.", ["AARS1"]),  # an object
        ("AARS1 is an enzyme. Regulates ATF4 and tRNA aminoacylation.", ["AARS1"]),
        ("AARS1 is an enzyme. The loss of ATF4 impairs amino acid transport.", ["ATF4"]),
        ("AARS1 is an enzyme. Amino acid transport depends on ATF4.", ["ATF4"]),
        ("ATF4 acts during amino acid transport.", []),  # when, and not what
        ("ATF4 inhibits alanine-tRNA ligase activity.", []),  # another's function
        ("ATF4 makes amino acid transport-resistant cells.", []),
        ("ATF4 is phosphorylated by an alanine-tRNA ligase activity.", []),  # by another's
        ("ATF4 binds genes whose products act in amino acid transport.", []),
        ("ATF4 is made in absence of amino acid transport.", []),
        ("ATF4 belongs to the alanine-tRNA ligase family.", ["ATF4"]),
        ("ATF4 is made for an alanine-tRNA ligase.", []),
        ("ATF4 drives amino acid transport, but not DNA repair.", ["ATF4"]),
        ("ATF4 is needed for alanine-tRNA ligase activity.", ["ATF4"]),
        ("ATF4 antagonizes the chromatin.", []),
        ("ATF4 helps in the assembly of chromatin.", []),  # where it need not be
        ("ATF4 is regulated by amino acid transport.", []),
        ("It goes by the ATF4 domain to amino acid transport.", []),  # no gene
        ("ATF4 recruits proteins to chromatin.", []),  # where others go
        ("ATF4 promotes the localization of proteins at chromatin.", []),
        ("ATF4 is recruited to chromatin.", ["ATF4"]),
        ("ATF4 promotes its recruitment to chromatin.", ["ATF4"]),
        ("ATF4 goes from here to chromatin.", ["ATF4"]),
        (
            "ATF4: amino acid transport, DNA repair, chromatin, integrated stress response signaling, tRNA.",
            [],
        ),  # a list
    ],
)
def test_objects_circumstances_and_others_functions_are_not_claimed_of_a_gene(
    verifier: Claims, thoughts: str, said: list[str]
) -> None:
    assert [one.split(",")[0] for one in verdicts(verifier, thoughts) if ", " in one and '"' in one] == said


@pytest.mark.parametrize(
    ("thoughts", "is_contradicted"),
    [
        ("ATF4 encodes alanyl-tRNA synthetase.", True),
        ("ATF4 encodes alanyl-tRNA synthetase, which is known.", True),
        ("ATF4 encodes alanyl-tRNA synthetase factor nine.", False),  # words of a longer name
        ("ATF4 binds alanyl-tRNA synthetase.", False),
    ],
)
def test_only_the_whole_name_of_another_gene_contradicts(
    verifier: Claims, thoughts: str, is_contradicted: bool
) -> None:
    assert any(": contradicted: the name belongs to AARS1" in one for one in verdicts(verifier, thoughts)) is (
        is_contradicted
    )


def test_a_pair_with_a_third_gene_weighs_less_unless_it_links(verifier: Claims) -> None:
    task = DifferentialExpression("EIF2AK4", "SLC7A11", "k562")
    one_end = scored(verifier, "EIF2AK4 activates ATF4 in this cell.", task).value
    both_ends = scored(verifier, "EIF2AK4 activates ATF4 in this cell. ATF4 regulates SLC7A11 in turn.", task).value
    assert both_ends > 3 * one_end > 0


ABOUT_KNOCKDOWNS = [
    ("Knockdown of EIF2AK4 lowers ATF4 in K562 cells.", "supported", "decreased"),
    ("Loss of GCN2 reduces the expression of ATF4.", "supported", "decreased"),  # the question's line
    ("EIF2AK4 knockdown raises ATF4.", "contradicted", "decreased"),
    ("ATF4 is downregulated when EIF2AK4 is knocked down.", "supported", "decreased"),
    ("When EIF2AK4 is knocked down, ATF4 will decrease.", "supported", "decreased"),
    ("Silencing EIF2AK4 leads to up-regulation of ATF4 transcripts.", "contradicted", "decreased"),
    ("Knockdown of EIF2AK4 does not change the expression of ATF4.", "contradicted", "decreased"),
    ("ATF4 is unaffected by knockdown of EIF2AK4 in RPE-1 cells.", "supported", "no change"),
    ("Knockdown of EIF2AK4 lowers ATF4 in RPE1 cells.", "contradicted", "no change"),
    ("Knockdown of ATF4 has no effect on SLC7A11.", "contradicted", "decreased"),
    ("Depletion of GCN2 is unlikely to alter ATF4 expression.", "contradicted", "decreased"),
    ("Depletion of XRCC1 has little effect on SLC7A11.", "supported", "no change"),
    ("Depletion of XRCC1 does not raise SLC7A11.", "supported", "no change"),
    ("Knockdown of XRCC1 lowers OTHER5 and changes SLC7A11.", "contradicted", "no change"),
    ("Knockdown of AARS1 affects XRCC1.", "supported", "changed"),
]
SAYS_NOTHING_OF_A_ROW = [
    "Knockdown of AARS1 raises XRCC1.",  # a change of unknown direction
    "Knockdown of EIF2AK4 lowers SLC7A11.",  # a held-out row
    "Knockdown of XRCC1 raises ATF4.",  # a direction without a row that says that it changes
    "Knockdown of ATF4 changes XRCC1.",  # rows that contradict each other
    "Knockdown of EIF2AK4 lowers ATF4 in HepG2 cells.",  # not measured there
    "Knockdown of AARS1 raises ATF4.",  # the question's own pair
    "Knockdown of AARS1 raises ATF4 in K562 cells, and ATF4 rises after loss of AARS.",
    "EIF2AK4 lowers ATF4.",  # no knockdown
    "Knockout of EIF2AK4 lowers ATF4.",
    "Knockdown of EIF2AK4 lowers OTHER5, which normally reduces ATF4.",  # of OTHER5
    "When EIF2AK4 is knocked down, ATF4 reduces amino acid transport.",  # what ATF4 does
    "Knockdown of EIF2AK4 and XRCC1 lowers ATF4.",  # of both
]


def about_the_screen(outcome: Scored) -> list[str]:
    return [one.text for one in outcome.evidence if one.source == "PerturbQA train"]


@pytest.mark.parametrize(("thoughts", "verdict", "response"), ABOUT_KNOCKDOWNS)
def test_what_is_said_of_a_knockdown_is_held_against_the_training_rows(
    verifier: Claims, thoughts: str, verdict: str, response: str
) -> None:
    outcome = scored(verifier, thoughts)
    (said,) = about_the_screen(outcome)
    assert f": {verdict}: " in said
    assert said.endswith(f", {response} (PerturbQA train)")
    assert (outcome.components["screen"] > 0) is (verdict == "supported")


@pytest.mark.parametrize("thoughts", SAYS_NOTHING_OF_A_ROW)
def test_the_screen_is_silent_of_what_no_training_row_says_and_of_the_question_itself(
    verifier: Claims, thoughts: str
) -> None:
    outcome = scored(verifier, thoughts)
    assert about_the_screen(outcome) == []
    assert "screen" not in outcome.components


def test_what_is_said_of_knockdowns_changes_nothing_but_the_component_of_the_screen(verifier: Claims) -> None:
    before = scored(verifier, HONEST)
    said = " ".join(thoughts for thoughts, *_ in ABOUT_KNOCKDOWNS)
    after = scored(verifier, f"{HONEST} {said}")
    assert after.value == before.value
    assert {name: after.components[name] for name in before.components} == before.components
    assert 0 < after.components["screen"] < 1


def test_without_a_line_all_lines_that_measured_the_pair_have_to_agree(verifier: Claims) -> None:
    for thoughts, rows in (("Knockdown of ATF4 lowers SLC7A11.", 2), ("Knockdown of EIF2AK4 lowers ATF4.", 0)):
        outcome = verifier.score([Item(PROSE, completion=thoughts)])[0]
        assert isinstance(outcome, Scored)
        assert sum(one.count("knocked down") for one in about_the_screen(outcome)) == rows


def test_a_row_is_quoted_by_its_line_and_its_genes(verifier: Claims) -> None:
    thoughts = "It is odd. Knockdown of GCN2 in K562 cells lowers ATF4."
    outcome = scored(verifier, thoughts)
    assert about_the_screen(outcome) == [
        'knockdown of EIF2AK4, ATF4, "Knockdown of GCN2 in K562 cells lowers ATF4": supported: '
        "K562: EIF2AK4 knocked down, ATF4 measured, decreased (PerturbQA train)"
    ]
    assert not any(one.simulated for one in outcome.evidence)


def test_rows_of_the_simulated_screen_say_that_they_are(bundled_store: ArtifactStore) -> None:
    told = []
    for change in ("changes", "raises", "lowers"):
        text = f"Knockdown of AARS1 {change} ASNS in K562 cells."
        outcome = open_verifier(bundled_store).score([Item(PROSE, completion=text)])[0]
        assert isinstance(outcome, Scored)
        told += [one for one in outcome.evidence if "knocked down" in one.text]
    assert told
    assert all(one.simulated and one.source == "simulated screen, not an experiment" for one in told)
    assert bundled_store.manifest("claims").simulated


STRING_IDS = {"AARS1": "9606.ENSP00000000001", "XRCC1": "9606.ENSP00000000002", "SLC7A11": "9606.ENSP00000000003"}
NETWORKS: dict[str, tuple[Says, str]] = {
    "STRING": ("interacts", "protein1 protein2 combined_score\n{AARS1} {XRCC1} 900\n{XRCC1} {SLC7A11} 699\n"),
    "TF targets": ("regulates", "ATF4\tXRCC1\nNOSUCHGENE\tAARS1\nATF4\tATF4\n"),
    "atlas": ("co-expressed", "GCN2 XRCC1 0.8\nAARS1 SLC7A11 0.2\n"),
}


@pytest.fixture(scope="module")
def networked(tmp_path_factory: pytest.TempPathFactory, sources: Sources) -> ArtifactStore:
    root = tmp_path_factory.mktemp("networks")
    info = "".join(f"{protein}\t{gene}\t1\tx\n" for gene, protein in STRING_IDS.items())
    (root / "info.txt").write_text(f"#string_protein_id\tpreferred_name\tprotein_size\tannotation\n{info}")
    networks = []
    for name, (says, text) in NETWORKS.items():
        (root / f"{name}.tsv").write_text(text.format(**STRING_IDS))
        least = {"least_score": 0.5} if name == "atlas" else {}
        networks.append(Network(name=name, file=root / f"{name}.tsv", says=says, license=f"of {name}", **least))
    sources = replace(sources, explicit={**sources.explicit, "string": root / "info.txt"})
    return built(root / "artifacts", sources, Settings(networks=tuple(networks)))


@pytest.mark.parametrize(
    ("thoughts", "said"),
    [
        ("AARS1 interacts with XRCC1 here.", "supported: STRING has that AARS1 and XRCC1 interact"),
        ("XRCC1 binds AARS1 here.", "supported: STRING has that AARS1 and XRCC1 interact"),
        ("AARS1 does not bind XRCC1 here.", "contradicted: STRING has that AARS1 and XRCC1 interact"),
        ("AARS1 regulates XRCC1 here.", "unsupported: not known to our sources"),
        ("XRCC1 binds SLC7A11 here.", "unsupported: not known to our sources"),  # a score below 700
        ("ATF4 activates XRCC1 here.", "supported: TF targets has that ATF4 regulates XRCC1"),
        ("XRCC1 is regulated by ATF4 here.", "supported: TF targets has that ATF4 regulates XRCC1"),
        ("XRCC1 is a target of ATF4 here.", "supported: TF targets has that ATF4 regulates XRCC1"),
        ("XRCC1 regulates ATF4 here.", "unsupported: not known to our sources"),
        ("ATF4 binds XRCC1 here.", "unsupported: not known to our sources"),
        ("EIF2AK4 is co-expressed with XRCC1 here.", "supported: atlas has that EIF2AK4 and XRCC1 are co-expressed"),
        ("AARS1 is co-expressed with SLC7A11 here.", "unsupported: not known to our sources"),  # below its least score
        ("EIF2AK4 activates ATF4 here.", "supported: both are annotated with GO:0000005"),
    ],
)
def test_a_pair_rests_on_a_network_that_says_what_is_said_of_it(
    networked: ArtifactStore, thoughts: str, said: str
) -> None:
    outcome = open_verifier(networked).score([Item(PROSE, completion=thoughts)])[0]
    assert isinstance(outcome, Scored)
    (told,) = [one for one in outcome.evidence if " and " in one.text]
    assert said in told.text
    assert told.source == next((name for name in NETWORKS if f"{name} has" in said), "Gene Ontology")


def test_genes_are_linked_through_a_network(networked: ArtifactStore) -> None:
    task = DifferentialExpression("EIF2AK4", "XRCC1", "k562")
    thoughts = "EIF2AK4 activates ATF4 in this cell. ATF4 regulates XRCC1 in turn."
    assert scored(open_verifier(networked), thoughts, task).components["linked"] == 1


def test_networks_are_in_the_manifest_with_checksum_licence_and_what_translated_them(networked: ArtifactStore) -> None:
    manifest = networked.manifest("claims")
    records = {one.name: one for one in manifest.sources}
    assert {f"network/{name}" for name in NETWORKS} | {"string"} <= records.keys()
    assert all(len(records[f"network/{name}"].sha256) == 64 for name in NETWORKS)
    assert all(f"of {name}" in manifest.license for name in NETWORKS)
    assert [manifest.counts[f"links.{name}"] for name in NETWORKS] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AARS1 XRCC1 900\nAARS1 binds XRCC1\n", "edge 2 is 'AARS1 binds XRCC1'"),
        ("NOSUCHGENE AARS1\n", "no pair of known genes"),
        ("AARS1 XRCC1 100\n", "a score of at least 700"),
        (None, "cannot be read"),
    ],
)
def test_a_network_that_says_nothing_is_refused_in_a_sentence(
    sources: Sources, tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "edges.tsv").write_text(text)
    network = Network(name="mine", file=tmp_path / "edges.tsv", says="interacts", license="mine")
    with pytest.raises(ArtifactError, match=said):
        built(tmp_path / "artifacts", sources, Settings(networks=(network,)))


def test_networks_are_named_in_the_settings_file_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "edges.tsv").write_text("AARS1 XRCC1\n")
    path = tmp_path / "settings.yaml"
    path.write_text("claims: {networks: [{name: mine, file: edges.tsv, says: interacts, license: mine}]}\n")
    settings = read_build_settings(path)
    assert settings.claims.networks[0].file == tmp_path / "edges.tsv"
    before = settings.of("claims")
    (tmp_path / "edges.tsv").write_text("AARS1 SLC7A11\n")
    assert settings.of("claims") != before
    path.write_text("claims: {networks: [{name: mine, file: edges.tsv, says: likes, license: mine}]}\n")
    with pytest.raises(SettingsError, match=r"claims\.networks"):
        read_build_settings(path)
