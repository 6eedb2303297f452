"""What a scored file amounts to: running sums in constant memory, and the table made of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rich.table import Table

from bioverify.client import ItemReward, ScoredBatch
from bioverify.client.json_form import answer_word
from bioverify.core.outcomes import Failed, NotApplicable, Scored
from bioverify.rollouts.lines import FileItem

FIRST_ROWS = 5


@dataclass
class _Mean:
    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value

    def __str__(self) -> str:
        return f"{self.total / self.count:.3f}" if self.count else "–"


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
    """Sums over all scored lines, and the first few of them."""

    rewards: _Mean = field(default_factory=_Mean)
    unscorable: Counter[str] = field(default_factory=Counter)
    terms: dict[str, _TermTally] = field(default_factory=dict)
    distinct: int = 0
    cache_hits: int = 0
    first_rows: list[tuple[FileItem, ItemReward]] = field(default_factory=list)

    @property
    def lines(self) -> int:
        return self.rewards.count + self.unscorable.total()

    def summary(self, recipe: str) -> str:
        return (
            f"{self.lines:,} scored by {recipe}: mean reward {self.rewards} over {self.rewards.count:,}, "
            f"{self.unscorable.total():,} unscorable; {self.cache_hits:,} of {self.distinct:,} questions answered by "
            "the cache"
        )

    def add(self, chunk: list[FileItem], batch: ScoredBatch) -> None:
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

    def verifier_table(self) -> Table:
        table = Table("term", "mean", "weighted", "scored", "n/a", "failed", "dropped", box=None, padding=(0, 2, 0, 0))
        table.caption = "weighted: weight × value, as it entered the reward. dropped: missing for another of its group."
        table.caption_justify = "left"
        for column in table.columns[1:]:
            column.justify = "right"
        for label, tally in self.terms.items():
            counts = (tally.value.count, tally.not_applicable, tally.failed, tally.dropped)
            table.add_row(label, str(tally.value), str(tally.contribution), *(f"{count:,}" for count in counts))
        return table

    def first_rows_table(self) -> Table:
        table = Table("id", "reward", "answer", "evidence", title=f"The first {len(self.first_rows)}", show_lines=True)
        for line, reward in self.first_rows:
            shown = "–" if reward.reward is None else f"{reward.reward:.3f}"
            answer = (answer_word(reward.answer, reward.task) or "").replace("_", " ")
            # A verifier of several terms says the same to each.
            said = {part.term.verifier: f"[bold]{part.term.verifier}[/] {_said(part.outcome)}" for part in reward.parts}
            table.add_row(line.id, shown, answer, "\n".join([*said.values(), reward.unscorable_because]).strip())
        return table


def _said(outcome: Scored | NotApplicable | Failed) -> str:
    if isinstance(outcome, Scored):
        text = f"{outcome.value:.2f}" + "".join(f": {evidence.text}" for evidence in outcome.evidence[:1])
    else:
        text = outcome.detail or outcome.reason
    # Square brackets are rich's markup.
    return (text if len(text) <= 160 else text[:159] + "…").replace("[", "\\[")
