"""What became of the rows of one screen: how many were used, and what was left out, by cause and by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

USED_SHARE = 0.9
"""Of the rows that name genes and hold a number; a build that uses fewer warns."""
MEASURED_SHARE = 0.5
"""Of the rows that name genes, those with a number."""
N_SHOWN = 5


class Dropped(StrEnum):
    """Why a row was left out, in words for a person."""

    CONTROL = "controls"
    HELD_OUT = "held out"
    MISSING = "without a gene's name"
    SEVERAL = "several genes"
    DATE = "dates instead of genes"
    UNKNOWN = "unknown names"
    AMBIGUOUS = "ambiguous names"
    NO_LINE = "without a cell line"
    NO_NUMBER = "without a number"


_EXPECTED = (Dropped.CONTROL, Dropped.HELD_OUT, Dropped.NO_NUMBER)


@dataclass
class Tally:
    """``names``: per cause how many rows each name cost. ``remarks``: what else is to be said of a name."""

    screen: str
    n_rows: int = 0
    n_used: int = 0
    n_dropped: Counter[Dropped] = field(default_factory=Counter)
    names: dict[Dropped, Counter[str]] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    n_contradicting: int = 0
    """Pairs whose rows contradict each other."""

    def drop(self, why: Dropped, name: str, n_rows: int, remark: str = "") -> None:
        if n_rows:
            self.n_dropped[why] += n_rows
            self.names.setdefault(why, Counter())[name] += n_rows
            if remark:
                self.remarks[name] = remark

    @property
    def counts(self) -> dict[str, int]:
        """For the manifest."""
        causes = {f"rows_{why.name.lower()}": n for why in Dropped if (n := self.n_dropped[why])}
        own = {"rows": self.n_rows, "rows_used": self.n_used, **causes, "contradicting_pairs": self.n_contradicting}
        return {f"{self.screen}.{key}": value for key, value in own.items()}

    def left_out(self, why: Dropped, n_shown: int = N_SHOWN) -> str:
        """ "unknown names 1,203 rows, 12 names: ABC (400), …" """
        names = self.names[why]
        shown = ", ".join(
            f"{name or 'empty'} ({n:,}{': ' + self.remarks[name] if name in self.remarks else ''})"
            for name, n in names.most_common(n_shown)
        )
        more = ", …" if len(names) > n_shown else ""
        return f"{why} {_many(self.n_dropped[why], 'row')}, {_many(len(names), 'name')}: {shown}{more}"

    @property
    def summary(self) -> str:
        told = [f"{_many(self.n_rows, 'row')} read, {self.n_used:,} used"]
        told += [self.left_out(why) for why in Dropped if self.n_dropped[why]]
        if self.n_contradicting:
            told.append(f"{_many(self.n_contradicting, 'pair')} with contradicting rows")
        return "; ".join(told)

    def warnings(self) -> Iterator[str]:
        """Sentences about shares that are too low to be meant."""
        n_lost = sum(n for why, n in self.n_dropped.items() if why not in _EXPECTED)
        if n_lost and self.n_used < USED_SHARE * (self.n_used + n_lost):
            worst = max((why for why in self.n_dropped if why not in _EXPECTED), key=self.n_dropped.__getitem__)
            yield (
                f"screen {self.screen}: only {self.n_used / (self.n_used + n_lost):.0%} of the rows with a number are "
                f"used; most of the others are {self.left_out(worst)}"
            )
        n_empty = self.n_dropped[Dropped.NO_NUMBER]
        if n_empty and self.n_used + n_lost < MEASURED_SHARE * (self.n_used + n_lost + n_empty):
            yield (
                f"screen {self.screen}: {n_empty / (self.n_used + n_lost + n_empty):.0%} of the rows have no number "
                f"and count as not measured"
            )


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
