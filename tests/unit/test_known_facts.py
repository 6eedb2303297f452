"""The fifty known facts of docs/known-facts.md, asked of the real screen."""

from __future__ import annotations

from pathlib import Path

from benchmarks.known_facts import facts, judge
from bioverify.artifacts.store import ArtifactStore
from bioverify.verifiers.experimental.verifier import open_verifier

DOCUMENT = Path(__file__).parents[2] / "docs" / "known-facts.md"


def test_the_document_says_of_every_fact_what_the_verifier_says(real_store: ArtifactStore) -> None:
    verifier = open_verifier(real_store)
    rows = [" | ".join((f"| {fact}", *judge(fact, verifier))) + " |" for fact in facts()]
    assert len(rows) == 50
    written = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert [line for line in written if ": without " in line] == rows
