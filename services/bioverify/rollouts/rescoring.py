"""Which stored rollouts are worth asking about again, and how a result is mended by one verifier alone.

Members of a group are judged together, so a group is asked about whole if one of its rows has no result yet, was
scored by other verifiers or another recipe, or lacks a verifier by a fault.

If only one verifier is to be asked, what the others said is taken from the ledger and the reward is composed again by
the same arithmetic as in the aggregator. That is not enough if the row or the recipe has changed, or if the
verifier's belief is part of a consensus: such groups are asked about as a whole (most of it is in the cache).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bioverify.client.json_form import outcome_from_json
from bioverify.client.values import ItemReward, ListedVerifier, RewardPart, ScoredBatch, ScoreItem
from bioverify.core.consensus import CONSENSUS
from bioverify.core.outcomes import Outcome
from bioverify.core.questions import Unread, read_conversation
from bioverify.core.recipes import Recipe, Requirement, Term
from bioverify.core.rewards import Row, compose
from bioverify.rollouts.ledger import Ledger, key_of, stamped
from bioverify.rollouts.lines import FileItem

Why = Literal["new", "changed", "failed"]
"""No result yet; scored by another recipe or verifier, or the row is another; a verifier is missing by a fault."""


@dataclass(frozen=True)
class Rescoring:
    """What is wanted. ``fingerprints``: of the verifiers that the recipe asks, as they are now."""

    recipe: Recipe
    fingerprints: Mapping[str, str]
    only_failed: bool = False
    only_verifier: str = ""

    def why(self, group: Sequence[FileItem], ledger: Ledger) -> Why | None:
        """Why the group is to be asked about; None if what the ledger has of it stands."""
        entries = [ledger.entries.get(line.line) for line in group]
        of_interest = {self.only_verifier} if self.only_verifier else set(self.fingerprints)
        if any(entry and (entry.is_lost or of_interest & set(entry.failed)) for entry in entries) and (
            self.only_failed or self.only_verifier
        ):
            return "failed"
        if self.only_failed:
            return None
        if self.only_verifier:
            now = self.fingerprints[self.only_verifier]
            known = [entry.fingerprints.get(self.only_verifier, "") for entry in entries if entry]
            return "changed" if any(fingerprint != now for fingerprint in known) else None
        if None in entries:
            return "new"
        keys = [key_of(line, self.recipe, self.fingerprints) for line in group]
        return "changed" if any(entry and entry.key != key for entry, key in zip(entries, keys, strict=True)) else None

    @property
    def part(self) -> Recipe:
        """The recipe with the terms of the one verifier only."""
        sources = tuple(
            source.model_copy(update={"terms": _of(source.terms, self.only_verifier)}) for source in self.recipe.sources
        )
        return self.recipe.model_copy(update={"terms": _of(self.recipe.terms, self.only_verifier), "sources": sources})

    def can_be_mended(self, group: Sequence[FileItem], ledger: Ledger, verifier: ListedVerifier) -> bool:
        """Whether asking the one verifier is enough for this group."""
        if CONSENSUS in self.recipe.verifiers:
            return False
        for line in group:
            entry = ledger.entries.get(line.line)
            if entry is None or entry.is_lost or entry.key != key_of(line, self.recipe, entry.fingerprints):
                return False
            if verifier.holds_belief and ledger.result(line.line)["consensus"] is not None:
                return False
        return True

    def mended(
        self, lines: Sequence[FileItem], batch: ScoredBatch, ledger: Ledger, asked: Mapping[str, str]
    ) -> list[tuple[ItemReward, dict[str, Any]]]:
        """Rewards, and as results, made of what the ledger has and what the one verifier said in ``batch``."""
        stored = [ledger.result(line.line) for line in lines]
        rows = []
        for line, old, new in zip(lines, stored, batch.rewards, strict=True):
            outcomes = _outcomes(old["parts"]) | {part.term.verifier: part.outcome for part in new.parts}
            rows.append(Row(line.item.group_id, line.item.source, new.task.kind if new.task else None, outcomes))
        results = []
        for line, old, new, reward in zip(lines, stored, batch.rewards, compose(self.recipe, rows), strict=True):
            parts = tuple(
                RewardPart(part.term, part.outcome, part.contribution, part.dropped_because, from_cache=False)
                for part in reward.parts
            )
            because = reward.unscorable_because
            if because and (question := _unread_question(line.item)):
                because += question.beside_the_reason
            read = new.details._replace(parts=parts, consensus=None)
            whole = ItemReward(line.item.id, reward.reward, because, read)
            fingerprints = {**old["stamp"]["fingerprints"], self.only_verifier: asked[self.only_verifier]}
            result = {**stamped(line, whole, self.recipe, fingerprints), "consensus": old["consensus"]}
            results.append((whole, result))
        return results


def _unread_question(item: ScoreItem) -> Unread | None:
    question = item.task or read_conversation((turn.role, turn.content) for turn in reversed(item.prompt))
    return question if isinstance(question, Unread) else None


def groups(chunk: Iterable[FileItem]) -> Iterable[list[FileItem]]:
    """The groups of a chunk, which holds all members of each; a row without a group is one."""
    found: dict[tuple[str, str], list[FileItem]] = {}
    for line in chunk:
        group = line.item.group_id
        found.setdefault((group, "" if group else line.item.id), []).append(line)
    return found.values()


def as_answered(fingerprints: Mapping[str, str], batch: ScoredBatch) -> dict[str, str]:
    """The fingerprints that stood behind a reply: a verifier may have been exchanged since they were listed."""
    answered = {report.verifier: report.fingerprint for report in batch.verifiers if report.fingerprint}
    return {name: answered.get(name, listed) for name, listed in fingerprints.items()}


def _of(terms: Iterable[Term], verifier: str) -> tuple[Term, ...]:
    # Optional: what is missing of it is judged when the whole is composed.
    return tuple(
        term.model_copy(update={"requirement": Requirement.OPTIONAL}) for term in terms if term.verifier == verifier
    )


def _outcomes(parts: Sequence[Mapping[str, Any]]) -> dict[str, Outcome]:
    """By verifier. A value that only a term without a component asks for is taken from such a term."""
    by_value_first = sorted(parts, key=lambda part: bool(part["component"]))
    outcomes: dict[str, Outcome] = {}
    for part in by_value_first:
        outcomes.setdefault(part["verifier"], outcome_from_json(part))
    return outcomes
