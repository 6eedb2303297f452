"""A screen in memory, whatever it was read from: blocks of small codes, and the names that the codes stand for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.own_screens.forms import Taken
from bioverify.artifacts.own_screens.numbers import Floats, NumberColumn, Range, label_responses
from bioverify.artifacts.own_screens.settings import OwnScreen, PerturbationKind
from bioverify.artifacts.responses import DECREASED, INCREASED, NOT_MEASURED, UNCHANGED

Int32s = npt.NDArray[np.int32]
Int8s = npt.NDArray[np.int8]

_FEW_FOR_SIGNS = 50
"""As many fold changes as all have one sign by chance never."""
_TRAIN = re.compile(r"train(?:ing)?(?:[ _-]?set)?|tr", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """Some rows: codes into the names, and responses, NOT_MEASURED for a row without a number."""

    perturbation: Int32s
    measured_gene: Int32s
    line: Int32s
    split: Int32s
    response: Int8s


class Rows(Protocol):
    """``unread`` and ``remarks`` are complete when the blocks have been read."""

    @property
    def perturbations(self) -> Sequence[str]: ...

    @property
    def measured_genes(self) -> Sequence[str]: ...

    @property
    def lines(self) -> Sequence[str]: ...

    @property
    def splits(self) -> Sequence[str]: ...

    @property
    def unread(self) -> Counter[str]:
        """Texts that are no numbers, and in how many rows they stand."""

    @property
    def remarks(self) -> Sequence[str]:
        """How the file was read, as far as a person would want to know."""

    @property
    def taken(self) -> Mapping[str, str]:
        """Meaning → column of the file, or the value for the whole file."""

    def blocks(self) -> Iterator[Block]: ...


def is_training_split(split: str) -> bool:
    return _TRAIN.fullmatch(split.strip()) is not None


@dataclass
class Codes:
    """Distinct texts in the order of their coming, and their codes. A missing value is the empty text."""

    names: list[str] = field(default_factory=list)
    _code_of: dict[str, int] = field(default_factory=dict)

    def of(self, column: pa.Array) -> Int32s:
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        texts = encoded.dictionary.cast(pa.string()).to_pylist()
        codes = np.array([self.code("" if text is None else text) for text in [*texts, None]], np.int32)
        chosen: Int32s = codes[np.asarray(encoded.indices.fill_null(len(texts)))]
        return chosen

    def code(self, text: str) -> int:
        code = self._code_of.setdefault(text, len(self.names))
        if code == len(self.names):
            self.names.append(text)
        return code


@dataclass
class Responses:
    """Fold changes and adjusted p-values of one screen as responses, with a check of what they are."""

    screen: OwnScreen
    taken: Taken
    _p: Range = field(default_factory=Range)
    _change: Range = field(default_factory=Range)

    def of(self, change: Floats, adjusted: Sequence[Floats]) -> Int8s:
        for one in adjusted:
            self._p.see(one)
        self._change.see(change)
        least = adjusted[0] if len(adjusted) == 1 else np.fmin.reduce(adjusted)
        # An infinite fold change (a gene that is silent in one group) is a response with a direction.
        is_large = np.abs(change) >= self.screen.min_abs_log_fold_change
        responds = (least <= self.screen.max_adjusted_p) & is_large & (change != 0.0)
        response = np.full(len(change), UNCHANGED, np.int8)
        response[responds & (change > 0.0)] = INCREASED
        response[responds & (change < 0.0)] = DECREASED
        response[np.isnan(change) | np.isnan(least)] = NOT_MEASURED
        return response

    def remarks(self) -> list[str]:
        """Raises ArtifactError for columns without any number, or with numbers of another kind."""
        for seen, columns in ((self._change, self.taken.log_fold_change), (self._p, ", ".join(self.taken.adjusted_p))):
            if not seen.n:
                raise self.screen.refuse(f"has no number in {columns}")
        try:
            self._p.refuse_no_p(", ".join(self.taken.adjusted_p))
        except ArtifactError as error:
            raise self.screen.refuse(str(error)) from None
        if self._change.n >= _FEW_FOR_SIGNS and not self._change.n_negative:
            return [
                f"no number of {self.taken.log_fold_change} is negative: a fold change that is not its logarithm "
                f"makes every response an increase"
            ]
        return []


_KINDS: Mapping[PerturbationKind, re.Pattern[str]] = {
    "CRISPRa": re.compile(r"crispr[ _-]?a|crispr[ _-]?act\w*|activation|sam", re.IGNORECASE),
    "knockout": re.compile(r"crispr[ _-]?(?:cas9|ko|cut\w*|n)|cas9|knock[ _-]?out|ko", re.IGNORECASE),
    "overexpression": re.compile(r"over[ _-]?expression|orf|oe|cdna", re.IGNORECASE),
    "compound": re.compile(r"drugs?|compounds?|small[ _-]?molecules?|chemical|cytokines?", re.IGNORECASE),
}


def refuse_other_kinds(screen: OwnScreen, column: str, values: Iterable[str]) -> None:
    """Raises ArtifactError if a column says that these were no perturbations of the kind that the settings say."""
    for value in values:
        said = next((kind for kind, words in _KINDS.items() if words.fullmatch(value.strip())), None)
        if said is not None and said != screen.kind:
            raise screen.refuse(
                f'says "{value}" in {column}, and the settings say kind: {screen.kind}. Write kind: {said}; only '
                f"knockdowns answer questions about knockdowns"
            )


@dataclass
class TableRows:
    """Of a table of one row per pair. Filled batch by batch; `finished` closes it."""

    screen: OwnScreen
    columns: Taken
    numbers: dict[str, NumberColumn]
    kind_column: str = ""
    remarks: list[str] = field(default_factory=list)
    n_rows: int = 0

    def __post_init__(self) -> None:
        self._codes = {meaning: Codes() for meaning in ("perturbation", "measured_gene", "cell_line", "split")}
        for meaning, codes in self._codes.items():
            if meaning not in self.columns.texts:
                codes.code(getattr(self.screen, meaning, "train"))
        self._labels, self._kinds = Codes(), Codes()
        self._responses = Responses(self.screen, self.columns)
        self._parts: list[Block] = []

    def add(self, batch: Mapping[str, pa.Array]) -> None:
        """``batch``: the columns that were taken, and that of the kind of perturbation."""
        n_rows = len(next(iter(batch.values())))
        zeros = np.broadcast_to(np.int32(0), n_rows)
        codes = {
            meaning: own.of(batch[self.columns.texts[meaning]]) if meaning in self.columns.texts else zeros
            for meaning, own in self._codes.items()
        }
        if self.columns.label:
            # Below 128 texts, else it is no label: kept as codes until all are known.
            column = batch[self.columns.label]
            of_label = self._labels.of(column.cast(pa.string()) if not pa.types.is_dictionary(column.type) else column)
            if len(self._labels.names) > 100:
                label_responses(self._labels.names)
                raise self.screen.refuse(f"has more than 100 labels in {self.columns.label}; expected 0 or 1")
            response = of_label.astype(np.int8)
        else:
            read = {name: self.numbers[name].read(batch[name]) for name in self.columns.numbers}
            response = self._responses.of(
                read[self.columns.log_fold_change], [read[name] for name in self.columns.adjusted_p]
            )
        if self.kind_column:
            self._kinds.of(batch[self.kind_column])
        self._parts.append(
            Block(
                perturbation=codes["perturbation"],
                measured_gene=codes["measured_gene"],
                line=codes["cell_line"],
                split=codes["split"],
                response=response,
            )
        )
        self.n_rows += n_rows

    def finished(self) -> TableRows:
        """Raises ArtifactError for a table without rows, or with numbers or labels of another kind."""
        if not self.n_rows:
            raise self.screen.refuse("has a header and no row")
        refuse_other_kinds(self.screen, self.kind_column, self._kinds.names)
        if self.columns.label:
            try:
                response_of = label_responses(self._labels.names)
            except ArtifactError as error:
                raise self.screen.refuse(f"in column {self.columns.label} {error}") from None
            table = np.array([response_of[text] for text in self._labels.names], np.int8)
            self._parts = [replace(part, response=table[part.response]) for part in self._parts]
        else:
            self.remarks += self._responses.remarks()
        return self

    @property
    def perturbations(self) -> Sequence[str]:
        return self._codes["perturbation"].names

    @property
    def measured_genes(self) -> Sequence[str]:
        return self._codes["measured_gene"].names

    @property
    def lines(self) -> Sequence[str]:
        return self._codes["cell_line"].names

    @property
    def splits(self) -> Sequence[str]:
        return self._codes["split"].names

    @property
    def unread(self) -> Counter[str]:
        """Texts that are no numbers: "padj: abc"."""
        return Counter(
            {f"{name}: {text}": n for name, column in self.numbers.items() for text, n in column.unread.items()}
        )

    @property
    def taken(self) -> Mapping[str, str]:
        return what_is_taken(self.screen, self.columns)

    def blocks(self) -> Iterator[Block]:
        yield from self._parts


def what_is_taken(screen: OwnScreen, columns: Taken) -> dict[str, str]:
    """For a person: meaning → column, or the value for the whole file."""
    whole = {
        meaning: f"{value} (of the whole file)"
        for meaning in ("perturbation", "measured_gene", "cell_line")
        if (value := getattr(screen, meaning))
    }
    numbers = (
        {"label": columns.label}
        if columns.label
        else {
            "log_fold_change": columns.log_fold_change,
            "adjusted_p": " or ".join(columns.adjusted_p),
        }
    )
    return {
        **whole,
        **{
            meaning: f"column {name}" if name else "the column without a name"
            for meaning, name in {**columns.texts, **numbers}.items()
        },
    }
