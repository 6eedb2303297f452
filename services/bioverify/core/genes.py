"""One identity per gene: symbols, aliases and accession numbers resolved to the current symbol.

Outdated symbols are common in screens (AARS for AARS1, H2AFZ for H2AZ1). rbio gave them random vectors; here they are
resolved, and what stays unknown or ambiguous is "not applicable", never a number.

A name may belong to several genes: GARS is the previous symbol of GARS1 and an alias of GART. A symbol that the
nomenclature committee gave to one of them beats an alias; and in a column of a table, a gene that stands there under
its own name is not meant by a second one (`GeneResolver.of_column`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from bioverify.core.outcomes import NotApplicable

_UNIPROT = r"(?:[OPQ]\d[A-Z0-9]{3}\d|[A-NR-Z]\d(?:[A-Z][A-Z0-9]{2}\d){1,2})"
_FORMS_OF_IDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), written)
    for pattern, written in (
        # GENCODE marks the copy of a gene on the Y chromosome: ENSG00000182378.15_PAR_Y, and before ENSGR0000182378.
        (r"(.+)_PAR_Y", r"\1"),
        (r"ENSGR(\d{10}(?:\.\d+)?)", r"ENSG0\1"),
        (r"(?:ENSEMBL|UNIPROT|UNIPROTKB):(.+)", r"\1"),
        (r"(ENSG\d{11})\.\d+", r"\1"),  # version: ENSG00000090861.17
        (rf"({_UNIPROT})-\d+", r"\1"),  # isoform: P49588-2
        (r"(?:HGNC[:_ ]){1,2}(\d+)", r"HGNC:\1"),
        (r"(?:NCBI[_ ]?GENE|NCBI|ENTREZ[_ ]?GENE|ENTREZ|GENE)(?:[_ ]?ID)?[:_ ](\d+)", r"NCBIGENE:\1"),
    )
)
_LOOKS_LIKE_AN_ID = re.compile(r"\w+:\S+|ENS[A-Z]*\d{6,}(?:\.\d+)?|[NX][MPR]_\d+(?:\.\d+)?")


@dataclass(frozen=True)
class GeneResolver:
    """``current``: upper-cased current symbol → symbol. ``other_names``: upper-cased alias or id → current symbols.

    ``meant``: of the names that several genes go by, those that mean one of them → that one.
    ``ids``: the kinds of ids among the other names, as they are told to people.
    """

    current: Mapping[str, str]
    other_names: Mapping[str, tuple[str, ...]]
    meant: Mapping[str, str] = field(default_factory=dict)
    ids: tuple[str, ...] = ()

    def resolve(self, name: str) -> str | NotApplicable:
        """The current symbol, or why there is none: ``unknown_gene`` or ``ambiguous_gene`` with the candidates.

        A current symbol wins over another gene's previous one, and that over an alias. Ids are known with and without
        version, isoform and prefix, symbols also as R writes them (HLA.A for HLA-A).
        """
        return self._kept(name)

    def of_column(self, names: Iterable[str]) -> GeneResolver:
        """For the names of one column of a table, in which no gene goes by two names.

        A column that holds PTGS2 does not mean it by COX2 as well. Columns that were named at different times (guides
        and transcripts) are to be read one by one: MARS here and MARS1 there are one gene.
        """
        answers = {name: self.resolve(name) for name in names}
        held = {answer for answer in answers.values() if isinstance(answer, str)}
        decided = {}
        for name, answer in answers.items():
            if isinstance(answer, NotApplicable):
                left = [symbol for symbol in self._candidates(name) if symbol not in held]
                if len(left) == 1:
                    decided[_key(name)] = left[0]
        return replace(self, meant={**self.meant, **decided}) if decided else self

    @cached_property
    def _kept(self) -> Callable[[str], str | NotApplicable]:
        # A run asks about the same few thousand genes over and over.
        return lru_cache(maxsize=16_384)(self._resolve)

    def _resolve(self, name: str) -> str | NotApplicable:
        candidates = self._candidates(name)
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            return NotApplicable("unknown_gene", self._unknown(name))
        meant = self.meant.get(_key(name)) or self.meant.get(_as_r_writes(_key(name)))
        if meant is not None:
            return meant
        *others, last = candidates
        return NotApplicable("ambiguous_gene", f"{name} may be {', '.join(others)} or {last}.")

    def _candidates(self, name: str) -> Sequence[str]:
        key = _key(name)
        for form in (key, _as_r_writes(key)):
            if form in self.current:
                return (self.current[form],)
            if found := self.other_names.get(form, ()):
                return found
        return ()

    def _unknown(self, name: str) -> str:
        written = name.strip()
        if written.isdecimal():
            return f"{name} is a number. If it is an id of NCBI Gene, write NCBIGene:{written}."
        told = f"{name} is no known human gene symbol, alias or id."
        if self.ids and _LOOKS_LIKE_AN_ID.fullmatch(written.upper()):
            told += f" Ids of genes that are known here: {', '.join(self.ids)}."
        return told

    def rows(
        self, names: Sequence[str], row_of: Mapping[str, int], absent: Callable[[str], NotApplicable]
    ) -> list[int] | NotApplicable:
        """The row of each name in a table by current symbol; else why the first that has none has none.

        ``absent`` says it of a gene that is known, but not in the table.
        """
        found: list[int] = []
        for name in names:
            symbol = self.resolve(name)
            if isinstance(symbol, NotApplicable):
                return symbol
            if symbol not in row_of:
                return absent(symbol)
            found.append(row_of[symbol])
        return found


def _key(name: str) -> str:
    """Upper case; an id without what is written around it."""
    key = name.strip().upper()
    for pattern, written in _FORMS_OF_IDS:
        if found := pattern.fullmatch(key):
            key = found.expand(written)
    return key


def _as_r_writes(key: str) -> str:
    # R's make.names puts a dot in place of every hyphen.
    return key.replace(".", "-")
