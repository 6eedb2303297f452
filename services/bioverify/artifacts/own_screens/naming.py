"""From a name as a person's table writes it to the current symbol, or to the reason why it names no gene.

The name as a whole is asked first. Only one that is unknown is taken apart: an Ensembl id inside it wins, then what is
left without the marks of guides, controls and repeated columns, if that is one gene. A word for "nothing" or "control"
is a gene as an exact current symbol only (REST the factor, rest the group), and among perturbations a control's word
never is: a control that is taken for a gene invents an experiment, while a row that is left out is counted by its name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from bioverify.artifacts.own_screens.tally import Dropped
from bioverify.artifacts.own_screens.words import (
    is_control,
    is_group,
    is_missing,
    names_behind_date,
    without_guide,
)
from bioverify.core.genes import GeneResolver


@dataclass(frozen=True)
class Named:
    """What a name stands for. ``symbol``: empty if there is none, and then ``why``, perhaps with a ``remark``."""

    symbol: str
    why: Dropped | None = None
    remark: str = ""


MOUSE_SHARE = 0.3
"""Of the names; human tables have a few that are written like the mouse's (Control, a reporter, a typing error)."""

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u2064\ufeff]")
_QUOTES = "'\"`´‘’“”"
_ENSEMBL = re.compile(r"ENSG\d{11}")
_MOUSE_ID = re.compile(r"ENSMUSG\d{11}|MGI:\d+")
_MOUSE_SYMBOL = re.compile(r"[A-Z][a-z]{1,}[a-z0-9]*(?:-[A-Za-z0-9]+)?")
_ASSEMBLY = re.compile(r"^(?:GRCh3[78]|hg19|hg38|human|homo_sapiens)[ _.-]+", re.IGNORECASE)
_MOUSE_ASSEMBLY = re.compile(r"^(?:GRCm3[89]|mm10|mm39|mouse)[ _.-]+", re.IGNORECASE)
_VERSUS = re.compile(r"[\s_.-]+(?:vs?|versus|against|over)[\s_.-]+", re.IGNORECASE)
_JOINED = re.compile(r"\s*[+&|;,/:_]+\s*")
_TOKENS = re.compile(r"[\s_|:;,+/&()\[\]]+")
_DECORATION = re.compile(
    r"[+-]?[\d.]+(?:-\w*)?|P1P2|P[12]|KDs?|KOs?|CRISPRi|CRISPRa|[Gg]uides?\d*|sg(?:RNA)?\d*|sh(?:RNA)?\d*|g\d+|rep\d+|"
    r"(?:knock[ -]?(?:down|out))|i|a|ENST\d{11}(?:\.\d+)?|exp\d*|lib\d*",
    re.IGNORECASE,
)
_COPY = re.compile(r"(?P<name>.+)[-.]\d{1,2}")


def clean(name: str) -> str:
    """Without what cannot be seen or what a spreadsheet put around it."""
    return _INVISIBLE.sub("", name).replace("\u00a0", " ").strip().strip(_QUOTES).strip()


def share_of_mouse_names(names: Collection[str]) -> float:
    """How many of the names are written as mouse genes are (Trp53, mt-Co1, ENSMUSG…), of those that may be either."""
    written = [name for name in map(clean, names) if len(name) > 1 and any(map(str.isalpha, name))]
    mouse = [
        name
        for name in written
        if (_MOUSE_SYMBOL.fullmatch(name) and not (is_control(name) or is_missing(name) or names_behind_date(name)))
        or name.startswith("mt-")
        or _MOUSE_ID.search(name)
        or _MOUSE_ASSEMBLY.match(name)
    ]
    return len(mouse) / len(written) if written else 0.0


def resolved(name: str, resolver: GeneResolver) -> Named:
    """What the resolver says of a whole name."""
    found = resolver.resolve(name)
    if isinstance(found, str):
        return Named(found)
    if found.reason == "ambiguous_gene":
        return Named("", Dropped.AMBIGUOUS, found.detail.removesuffix("."))
    return Named("", Dropped.UNKNOWN, "an id of NCBI Gene? write NCBIGene: before it" if name.isdecimal() else "")


@dataclass(frozen=True)
class Names:
    """How the names of one screen are read.

    ``controls``: the setting's own words. ``orthologs``: name in another species → human name; None: human names.
    ``any_case``: a name like Aars1 is a person's spelling of a human one, because the settings say so.
    """

    resolver: GeneResolver
    controls: Collection[str] = ()
    orthologs: Mapping[str, str] | None = None
    any_case: bool = False

    def of_column(self, names: Iterable[str]) -> Names:
        """These, where a gene that stands in the column under its own name is not meant by a second one."""
        plain = [name for name in map(clean, names) if not (is_missing(name) or is_group(name) or is_control(name))]
        return replace(self, resolver=self.resolver.of_column(plain))

    def perturbation(self, written: str) -> Named:
        name = clean(written)
        if is_missing(name) or (is_group(name) and not self._is_exact(name)):
            return Named("", Dropped.MISSING)
        if self._is_control(name):
            return Named("", Dropped.CONTROL)
        named = self._whole(name)
        if named.why is not Dropped.UNKNOWN:
            return named
        compared = _VERSUS.split(name)
        if len(compared) == 2 and (self._is_control(compared[1]) or is_group(compared[1]) or is_missing(compared[1])):
            return self.perturbation(compared[0])
        if ids := _ENSEMBL.findall(name):
            return self._one_of([self._whole(found) for found in dict.fromkeys(ids)], named)
        # GEARS writes A+ctrl, Norman et al. A_NegCtrl0.
        joined = [part for part in _JOINED.split(name) if part]
        if any(map(self._is_control, joined)):
            rest = [part for part in joined if not self._is_control(part) and not _DECORATION.fullmatch(part)]
            if not rest:
                return Named("", Dropped.CONTROL)
            # The name of a guide against a control (NTC_+_123) holds no gene; A+ctrl does.
            return self._one_of([self._token(part) for part in rest], Named("", Dropped.CONTROL))
        if is_numbered := re.fullmatch(
            rf"(?P<gene>\w+)[-.](?:{_DECORATION.pattern})", without_guide(name), re.IGNORECASE
        ):
            # AARS-2, AARS.g1, AARS-KD
            return self._one_of([self._token(is_numbered["gene"])], named)
        return self._taken_apart(without_guide(name), named)

    def measured_gene(self, written: str, others: Collection[str] = ()) -> Named:
        """``others``: the other names of the column, which tell a repeated name (TRIB3-1) from one of its own."""
        name = clean(written)
        if is_missing(name) or (is_group(name) and not self._is_exact(name)):
            return Named("", Dropped.MISSING)
        if self._is_control(name) and not self._is_exact(name):
            return Named("", Dropped.CONTROL)
        named = self._whole(name)
        if named.why is not Dropped.UNKNOWN:
            return named
        if ids := _ENSEMBL.findall(name):
            return self._one_of([self._whole(found) for found in dict.fromkeys(ids)], named)
        if (match := _COPY.fullmatch(name)) and match["name"] in others:
            return self._whole(match["name"])
        return self._taken_apart(name, named)

    def _is_control(self, name: str) -> bool:
        # A number at a control's word may make a gene of it: WT1.
        return name in self.controls or is_control(name, numbered=not self._is_exact(name))

    def _is_exact(self, name: str) -> bool:
        return self.orthologs is None and self.resolver.current.get(name.upper()) == name

    def _whole(self, name: str) -> Named:
        if self.orthologs is not None:
            human = self.orthologs.get(_MOUSE_ASSEMBLY.sub("", name))
            if human is None:
                return Named("", Dropped.UNKNOWN, "no ortholog")
            name = human
        name = _ASSEMBLY.sub("", name)
        if dates := names_behind_date(name):
            return Named("", Dropped.DATE, self._candidates(dates))
        if _MOUSE_ID.search(name) or _MOUSE_ASSEMBLY.match(name):
            return Named("", Dropped.UNKNOWN, "a mouse gene")
        is_foreign = not self.any_case and self.orthologs is None and _MOUSE_SYMBOL.fullmatch(name) is not None
        if is_foreign and name.upper() not in self.resolver.current:
            # Ear2 of the mouse is not NR2F6, whose alias is EAR2.
            return Named("", Dropped.UNKNOWN, "written as a mouse gene")
        return resolved(name, self.resolver)

    def _candidates(self, dates: tuple[str, ...]) -> str:
        found: list[str] = []
        for name in dates:
            one = self.resolver.resolve(name)
            if isinstance(one, str):
                found.append(one)
            elif one.reason == "ambiguous_gene":
                found += re.split(", | or ", one.detail.partition(" may be ")[2].removesuffix("."))
        return f"{' or '.join(dict.fromkeys(found))}?" if found else ""

    def _token(self, token: str) -> Named:
        """A part of a name: only in the case of symbols, so that "cell" of "T_cell" is no gene."""
        if len(token) < 2 or _DECORATION.fullmatch(token):
            return Named("", Dropped.UNKNOWN)
        if token != token.upper() and not self._is_exact(token):
            token = without_guide(token)
            if token != token.upper() and not self._is_exact(token):
                return Named("", Dropped.UNKNOWN)
        return self._whole(token)

    def _taken_apart(self, name: str, whole: Named) -> Named:
        if self.orthologs is not None:
            return whole
        direct = self._token(name)
        if direct.symbol or direct.why is Dropped.AMBIGUOUS:
            return direct
        return self._one_of([self._token(token) for token in _TOKENS.split(name) if token], whole)

    def _one_of(self, parts: list[Named], otherwise: Named) -> Named:
        symbols = {part.symbol for part in parts if part.symbol}
        if len(symbols) > 1:
            return Named("", Dropped.SEVERAL)
        if symbols:
            return Named(symbols.pop())
        return next((part for part in parts if part.why is Dropped.AMBIGUOUS), otherwise)
