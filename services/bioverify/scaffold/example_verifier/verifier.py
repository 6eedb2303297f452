"""example_verifier: does the answer agree with a table of facts?

The table is facts.csv, five rows that are made up: put your own there, or open a model in their place. Its checksum is
part of the fingerprint, so that remembered outcomes are forgotten when it changes.

Value: 1.0 if the answer agrees with the table, else 0.0. Not applicable: `pair_not_listed`, and what other verifiers
say of questions that are not theirs.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from bioverify.core.outcomes import Evidence, NotApplicable, Outcome
from bioverify.core.tasks import DifferentialExpression, TaskKind
from bioverify.core.verifier import (
    ArtifactIdentity,
    Description,
    Item,
    Reads,
    refuse,
    score_by_belief,
)

NAME = "example_verifier"
TABLE = Path(__file__).with_name("facts.csv")

Pair = tuple[str, str, str]
"""Perturbation, measured gene, cell line."""


class ExampleVerifier:
    """``facts``: whether the measured gene responds, by pair. ``digest``: of what they were read from."""

    def __init__(self, facts: Mapping[Pair, bool], digest: str) -> None:
        self._facts = facts
        self.description = Description(
            name=NAME,
            # To be raised whenever a result may change.
            version="1",
            summary="Agreement of the answer with a table of facts.",
            task_kinds=(TaskKind.DIFFERENTIAL_EXPRESSION,),
            # Only this is sent to the verifier, and its outcomes are remembered by it.
            reads=Reads.TASK | Reads.ANSWER,
            holds_belief=True,
            components={"no_answer.*": "1 if the completion holds no answer, with the reason in the name."},
            artifacts=(
                ArtifactIdentity(
                    name=f"{NAME}-facts",
                    digest=digest,
                    license="CC0-1.0",
                    sources=("made up, to be replaced",),
                    # False once the table holds what somebody measured.
                    simulated=True,
                ),
            ),
        )

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Bad items give outcomes, not exceptions."""
        return [self._score_one(item, with_evidence) for item in items]

    def _score_one(self, item: Item, with_evidence: bool) -> Outcome:
        if not isinstance(item.task, DifferentialExpression):
            return refuse(item.task, self.description.task_kinds)
        pair = (item.task.perturbation, item.task.measured_gene, item.task.cell_line)
        responds = self._facts.get(pair)
        if responds is None:
            return NotApplicable("pair_not_listed", f"The table has no row for {', '.join(pair)}.")
        evidence: tuple[Evidence, ...] = ()
        if with_evidence:
            says = "responds" if responds else "does not respond"
            text = f"{pair[2]}: {pair[1]} {says} to a knockdown of {pair[0]}"
            evidence = (Evidence(text, source=TABLE.name, simulated=True),)
        return score_by_belief(float(responds), item.answer, evidence, {})

    def canary(self) -> tuple[Item, Outcome]:
        """The first fact, answered rightly: a service says that it is ready only when this scores as it must."""
        pair, responds = next(iter(self._facts.items()))
        item = Item(DifferentialExpression(*pair), answer=responds)
        return item, score_by_belief(float(responds), responds, (), {})


def open_verifier() -> ExampleVerifier:
    """What `bioverify verifier serve` calls, once per process. An exception ends the service with its message."""
    text = TABLE.read_bytes()
    facts = {
        (row["perturbation"], row["measured_gene"], row["cell_line"]): row["responds"] == "yes"
        for row in csv.DictReader(text.decode().splitlines())
    }
    return ExampleVerifier(facts, f"sha256:{hashlib.sha256(text).hexdigest()}")
