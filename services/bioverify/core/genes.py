"""One identity per gene: symbols, aliases and accession numbers resolved to the current symbol.

Outdated symbols are common in screens (AARS for AARS1, H2AFZ for H2AZ1). rbio gave them random vectors; here they are
resolved, and what stays unknown or ambiguous is "not applicable", never a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from bioverify.core.outcomes import NotApplicable

_VERSIONED_ID = re.compile(
    r"(ENSG\d{11})\.\d+"  # Ensembl: ENSG00000090861.17
    r"|([OPQ]\d[A-Z0-9]{3}\d|[A-NR-Z]\d(?:[A-Z][A-Z0-9]{2}\d){1,2})-\d+"  # isoform in UniProt: P49588-2
)


@dataclass(frozen=True)
class GeneResolver:
    """``current``: upper-cased current symbol → symbol. ``other_names``: upper-cased alias or id → current symbols."""

    current: Mapping[str, str]
    other_names: Mapping[str, tuple[str, ...]]

    def resolve(self, name: str) -> str | NotApplicable:
        """The current symbol, or why there is none: ``unknown_gene`` or ``ambiguous_gene`` with the candidates.

        A current symbol wins over another gene's alias. Mitochondrial names are known with and without ``MT-``, Ensembl
        ids with and without version, UniProt ids with and without isoform.
        """
        return self._kept(name)

    @cached_property
    def _kept(self) -> Callable[[str], str | NotApplicable]:
        # A run asks about the same few thousand genes over and over.
        return lru_cache(maxsize=16_384)(self._resolve)

    def _resolve(self, name: str) -> str | NotApplicable:
        key = name.strip().upper()
        versioned = _VERSIONED_ID.fullmatch(key)
        if versioned:
            key = versioned[1] or versioned[2]
        if key in self.current:
            return self.current[key]
        candidates = self.other_names.get(key, ())
        if not candidates and key.startswith("MT-"):
            without_prefix = key.removeprefix("MT-")
            candidates = (self.current[without_prefix],) if without_prefix in self.current else ()
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            return NotApplicable("ambiguous_gene", f"{name} may be {' or '.join(candidates)}.")
        return NotApplicable("unknown_gene", f"{name} is no known human gene symbol, alias or id.")

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
