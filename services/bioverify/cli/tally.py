"""What a scored file amounts to: running sums in constant memory, and the table made of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rich.table import Column, Table

from bioverify.client import ItemReward, ScoredBatch
from bioverify.client.values import readings_of
from bioverify.core.answers import answer_word
from bioverify.core.outcomes import Failed, NotApplicable, Outcome, Scored
from bioverify.core.readings import Readings
from bioverify.rollouts.lines import FileItem

FIRST_ROWS = 5
SHOWN_VERDICTS = 6
CLAIMS = "claims"


@dataclass
class _Mean:
    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def __str__(self) -> str:
        return "–" if self.mean is None else f"{self.mean:.3f}"


@dataclass
class _TermTally:
    value: _Mean = field(default_factory=_Mean)
    contribution: _Mean = field(default_factory=_Mean)
    not_applicable: int = 0
    failed: int = 0
    dropped: int = 0
    first_failure: str = ""


@dataclass
class Tally:
    """Sums over all scored lines, and the first few of them.

    ``claim_precision``: of those with a claim to check; ``n_checked``: of these and those without one;
    ``contradicted``: claims.
    """

    rewards: _Mean = field(default_factory=_Mean)
    highest: _Mean = field(default_factory=_Mean)
    verdicts: Counter[str] = field(default_factory=Counter)
    unscorable: Counter[str] = field(default_factory=Counter)
    terms: dict[str, _TermTally] = field(default_factory=dict)
    claim_precision: _Mean = field(default_factory=_Mean)
    n_checked: int = 0
    contradicted: int = 0
    readings: Readings = field(default_factory=Readings)
    distinct: int = 0
    cache_hits: int = 0
    first_rows: list[tuple[FileItem, ItemReward]] = field(default_factory=list)

    @property
    def lines(self) -> int:
        return self.rewards.count + self.unscorable.total()

    def summary(self, recipe: str) -> str:
        return (
            f"{self.lines:,} scored by {recipe}: mean reward {self.rewards}{_of(self.highest.mean)} over "
            f"{self.rewards.count:,}, {self.unscorable.total():,} unscorable; {self.cache_hits:,} of "
            f"{self.distinct:,} questions answered by the cache"
        )

    def verdict_lines(self) -> list[str]:
        """The commonest verdicts, each with the number of its lines."""
        shown = self.verdicts.most_common(SHOWN_VERDICTS)
        lines = [f"{count:,} × {said}" for said, count in shown]
        if others := self.verdicts.total() - sum(count for _, count in shown):
            lines.append(f"{others:,} × other verdicts")
        return lines

    def claims_line(self) -> str:
        """How far the claims of the thoughts are supported; empty if the verifier claims said nothing of any."""
        if not self.n_checked:
            return ""
        return (
            f"claims: mean precision {self.claim_precision} over the {self.claim_precision.count:,} of "
            f"{self.n_checked:,} with something to check; {self.contradicted:,} contradicted"
        )

    def add(self, chunk: list[FileItem], batch: ScoredBatch) -> None:
        self.readings.update(readings_of(batch.rewards))
        self.distinct += sum(report.distinct for report in batch.verifiers)
        self.cache_hits += sum(report.cache_hits for report in batch.verifiers)
        for line, reward in zip(chunk, batch.rewards, strict=True):
            if len(self.first_rows) < FIRST_ROWS:
                self.first_rows.append((line, reward))
            if reward.reward is None:
                # Without the question's own words, of which there may be as many as rows.
                self.unscorable[reward.unscorable_because.split(': "')[0]] += 1
            else:
                self.rewards.add(reward.reward)
                self.highest.add(reward.highest or 0.0)
            self.verdicts[reward.verdict] += 1
            self._add_parts(reward)

    def _add_parts(self, reward: ItemReward) -> None:
        for part in reward.parts:
            tally = self.terms.setdefault(part.term.label, _TermTally())
            value = part.value
            if value is not None:
                tally.value.add(value)
            if part.contribution is not None:
                tally.contribution.add(part.contribution)
            elif value is not None:
                tally.dropped += 1
            if isinstance(part.outcome, NotApplicable):
                tally.not_applicable += 1
            elif isinstance(part.outcome, Failed):
                tally.failed += 1
                tally.first_failure = tally.first_failure or f"{part.outcome.reason}: {part.outcome.detail}"
        claims = next((part.outcome for part in reward.parts if part.term.verifier == CLAIMS), None)
        if isinstance(claims, Scored):
            self._add_claims(claims)

    def _add_claims(self, said: Scored) -> None:
        self.n_checked += 1
        if said.components["claims"]:
            self.claim_precision.add(said.components["precision"])
            self.contradicted += int(said.components["contradicted"])

    def verifier_table(self) -> Table:
        table = Table(
            Column("term", overflow="fold"),
            *("mean", "weighted", "scored", "n/a", "failed", "dropped"),
            box=None,
            padding=(0, 2, 0, 0),
        )
        table.caption = "weighted: weight × value, as it entered the reward. dropped: missing for another of its group."
        table.caption_justify = "left"
        for column in table.columns[1:]:
            column.justify = "right"
        for label, tally in self.terms.items():
            counts = (tally.value.count, tally.not_applicable, tally.failed, tally.dropped)
            table.add_row(label, str(tally.value), str(tally.contribution), *(f"{count:,}" for count in counts))
        return table

    def first_rows_table(self) -> Table:
        title = f"The first {len(self.first_rows)}"
        table = Table(Column("id", overflow="fold"), "reward", "answer", "evidence", title=title, show_lines=True)
        for line, reward in self.first_rows:
            shown = "–" if reward.reward is None else f"{reward.reward:.3f}{_of(reward.highest)}"
            answer = (answer_word(reward.answer, reward.task) or "").replace("_", " ")
            # A verifier of several terms says the same to each.
            said = {
                part.term.verifier: f"[bold]{part.term.verifier}[/] {said_of(part.outcome)}" for part in reward.parts
            }
            table.add_row(
                line.id,
                shown,
                answer,
                "\n".join([reward.verdict, *said.values(), _plain(reward.unscorable_because)]).strip(),
            )
        return table


def _of(highest: float | None) -> str:
    """Out of how much a reward is: " of 8"."""
    return "" if highest is None else f" of {highest:.4g}"


def said_of(outcome: Outcome) -> str:
    """In one line, as text for rich."""
    if isinstance(outcome, Scored):
        text = f"{outcome.value:.2f}" + "".join(f": {evidence.text}" for evidence in outcome.evidence[:1])
    else:
        text = outcome.detail or outcome.reason
    return _plain(text if len(text) <= 160 else text[:159] + "…")


def _plain(text: str) -> str:
    """Square brackets are rich's markup."""
    return text.replace("[", "\\[")
