"""What the experimental verifier says of fifty facts that stand in textbooks: ``python -m benchmarks.known_facts``.

Five kinds: the integrated stress response after loss of a tRNA synthetase or of eIF2B; the ribosome, whose loss
stabilises p53 (in RPE1 and HepG2, which have one); its targets in K562 and Jurkat, which have no working p53; the
proteasome, whose loss raises its own genes (by NRF1) and what shares its work; and the synthesis of cholesterol, whose
loss raises the targets of SREBP2, and of which the loss of SREBP2's own machinery lowers them. The facts were chosen by
what PerturbQA has rows of, without looking at a label; some because it holds the pair out, or never perturbed the gene.

A fact is *true* if the verifier says it, *wrong* if it says another thing, *undecided* if it says nothing, each with
its own sentence. docs/known-facts.md has the table. Needs the real data (`BIOVERIFY_DATA_MIRROR`, or fetched).

``--beliefs before=FOLDER --beliefs after=FOLDER`` asks the models instead, of artifacts that are built there: how much
they hold of each fact, answered without the perturbation's own rows. So a change of vectors is seen in facts.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from bioverify.artifacts import genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.cell_lines import CELL_LINE_NAMES
from bioverify.core.outcomes import Outcome, Scored
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange
from bioverify.core.verifier import LIFT, Item
from bioverify.verifiers.analogy.verifier import open_verifier as open_analogy
from bioverify.verifiers.esm_mlp.verifier import open_verifier as open_esm_mlp
from bioverify.verifiers.experimental import build as experimental
from bioverify.verifiers.experimental.verifier import ExperimentalLookup, open_verifier

Change = Literal["rises", "falls", "stays"]
Verdict = Literal["true", "undecided", "wrong"]


@dataclass(frozen=True)
class Fact:
    kind: str
    perturbation: str
    measured_gene: str
    cell_line: str
    expected: Change

    def __str__(self) -> str:
        line = CELL_LINE_NAMES[self.cell_line]
        return f"{line}: without {self.perturbation}, {self.measured_gene} {self.expected}"


def facts() -> list[Fact]:
    return [
        Fact(kind, perturbation, measured, line, expected)
        for kind, expected, pairs in _FACTS
        for perturbation, measured, line in (pair.split() for pair in pairs)
    ]


_FACTS: tuple[tuple[str, Change, tuple[str, ...]], ...] = (
    (
        "stress response",
        "rises",
        (
            "AARS TRIB3 k562",
            "AARS ATF5 k562",
            "SARS DDIT3 k562",
            "NARS SLC3A2 k562",
            "CARS PSPH k562",
            "MARS TRIB3 k562",
            "GARS PSAT1 rpe1",
            "TARS PSAT1 rpe1",
            "QARS TRIB3 hepg2",
            "GARS SLC3A2 hepg2",
            "EPRS TRIB3 hepg2",
            "FARSA TRIB3 hepg2",
            "GARS TRIB3 jurkat",
            "LARS TRIB3 jurkat",
            "EIF2B4 DDIT3 k562",
        ),
    ),
    (
        "ribosome",
        "rises",
        (
            "RPS19 MDM2 rpe1",
            "RPL10A MDM2 rpe1",
            "RPL13 MDM2 rpe1",
            "RPL3 MDM2 rpe1",
            "RPL23 CDKN1A hepg2",
            "RPL10A CDKN1A hepg2",
            "RPS19 FDXR hepg2",
            "RPL13 TP53I3 hepg2",
            "MDM2 CDKN1A rpe1",
        ),
    ),
    (
        "no p53",
        "stays",
        (
            "RPS14 SESN1 k562",
            "RPS3A SESN1 k562",
            "RPS8 CCNG1 k562",
            "RPL11 TNFRSF10B k562",
            "RPL13 DDB2 jurkat",
            "TP53 CDKN1A k562",
        ),
    ),
    (
        "proteasome",
        "rises",
        (
            "PSMC3 PSMB7 k562",
            "PSMD2 PSMA1 k562",
            "PSMD6 PSMD12 k562",
            "PSMB5 SQSTM1 rpe1",
            "PSMD12 SQSTM1 rpe1",
            "PSMC4 SQSTM1 hepg2",
            "PSMB6 HSPA1A hepg2",
            "PSMB7 PSMD12 hepg2",
            "PSMB5 PSMD14 jurkat",
            "PSMD4 PSMC4 jurkat",
        ),
    ),
    (
        "cholesterol",
        "falls",
        (
            "SCAP HMGCS1 k562",
            "SREBF2 FDFT1 k562",
            "MBTPS2 LDLR k562",
            "MBTPS2 HMGCR k562",
            "SCAP SQLE hepg2",
            "MBTPS1 HMGCS1 hepg2",
        ),
    ),
    ("cholesterol", "rises", ("HMGCS1 FDPS hepg2", "MVK MSMO1 rpe1", "MVK INSIG1 jurkat", "MVD HMGCS1 k562")),
)


def judge(fact: Fact, verifier: ExperimentalLookup) -> tuple[Verdict, str]:
    """The verdict, and the verifier's own sentence."""
    names = (fact.perturbation, fact.measured_gene, fact.cell_line)
    responds = verifier.score([Item(DifferentialExpression(*names), answer=True)])[0]
    if not isinstance(responds, Scored):
        return "undecided", told(responds)
    if fact.expected == "stays":
        return ("wrong" if responds.belief else "true"), told(responds)
    if not responds.belief:
        return "wrong", told(responds)
    direction = verifier.score([Item(DirectionOfChange(*names), answer=True)])[0]
    if not isinstance(direction, Scored):
        return "undecided", told(direction)
    return ("true" if (direction.belief == 1.0) == (fact.expected == "rises") else "wrong"), told(direction)


def asked_of_models(fact: Fact) -> dict[str, Item]:
    """As questions whose answer is the fact."""
    names = (fact.perturbation, fact.measured_gene, fact.cell_line)
    asked = {"responds": Item(DifferentialExpression(*names), answer=fact.expected != "stays")}
    if fact.expected != "stays":
        asked["direction"] = Item(DirectionOfChange(*names), answer=fact.expected == "rises")
    return asked


def beliefs_of(store: ArtifactStore) -> Iterator[tuple[str, int, int, float]]:
    """Per verifier and question: facts that it scores, held above the gene's usual rate, and their mean probability."""
    for name, open_models in (("esm_mlp", open_esm_mlp), ("analogy", open_analogy)):
        verifier = open_models(store)
        every = [asked_of_models(fact) for fact in facts()]
        for question in ("responds", "direction"):
            outcomes = verifier.score([asked[question] for asked in every if question in asked])
            scored = [one for one in outcomes if isinstance(one, Scored)]
            above = sum(one.components.get(LIFT, 0.0) > 0.5 for one in scored)
            yield f"{name}, {question}", len(scored), above, sum(one.value for one in scored) / len(scored)


def told(outcome: Outcome) -> str:
    if isinstance(outcome, Scored):
        return "; ".join(evidence.text for evidence in outcome.evidence)
    return outcome.detail


def main(
    beliefs: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER of artifacts: ask their models.")] = None,
) -> None:
    """Build the lookup, ask it everything, print the table and how often each verdict was given."""
    if beliefs:
        print("| artifacts | verifier, question | facts scored | above the gene's usual rate | mean p of the fact |")
        print("|---|---|---|---|---|")
        for name, artifacts in (one.split("=", 1) for one in beliefs):
            for asked, scored, above, mean in beliefs_of(ArtifactStore(Path(artifacts))):
                print(f"| {name} | {asked} | {scored} | {above} | {mean:.3f} |")
        return
    with tempfile.TemporaryDirectory() as folder:
        store, sources = ArtifactStore(Path(folder)), Sources.default(tell=_progress)
        genes.build(store, sources, progress=_progress)
        made = experimental.build(store, sources, progress=_progress)
        if made.simulated:
            raise typer.BadParameter("PerturbQA is not here. Run: bioverify data fetch --accept-license")
        verifier = open_verifier(store)
        judged = [(fact, *judge(fact, verifier)) for fact in facts()]
    print("| fact | verdict | what the verifier says |\n|---|---|---|")
    for fact, verdict, sentence in judged:
        print(f"| {fact} | {verdict} | {sentence} |")
    tally = Counter((fact.kind, verdict) for fact, verdict, _ in judged)
    print("\n| | true | undecided | wrong |\n|---|---|---|---|")
    for kind in dict.fromkeys(fact.kind for fact in facts()):
        print(f"| {kind} | {tally[kind, 'true']} | {tally[kind, 'undecided']} | {tally[kind, 'wrong']} |")


def _progress(said: str) -> None:
    typer.echo(said, err=True)


if __name__ == "__main__":
    typer.run(main)
