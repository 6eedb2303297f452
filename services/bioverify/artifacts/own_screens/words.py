"""Words that stand where a gene's name is expected and are no gene: nothing measured, no perturbation, a date.

Many of them are aliases of genes in capitals (NA of XK, nan of SCN11A, all of BCR) or symbols in another case (ctrl,
rest), so they are told from genes before a name is resolved (`naming`).
"""

from __future__ import annotations

import re

MISSING = frozenset(
    {
        *("", "na", "n/a", "n.a.", "#n/a", "n/d", "nd", "nan", "<na>", "nat", "null", "nil", "none", "missing"),
        *(".", "-", "--", "_", "?", "unknown", "unassigned", "undefined", "not available", "not assigned"),
        *("#name?", "#ref!", "#value!", "#div/0!", "#num!", "#null!"),
    }
)
"""In lower case. What R, pandas, spreadsheets and people write for nothing."""

_GROUPS = frozenset({"all", "rest", "other", "others", "any", "each", "total", "multiple", "multiplet", "doublet"})
"""In lower case. Names of groups of cells, which differential expression is tested against."""

_CONTROL = re.compile(
    r"""
      (?:gene[ _.-]?)?(?:ctrls?|ctl|controls?|contr)
    | (?:neg|negative|pos|positive)(?:[ _.-]?(?:ctrls?|ctl|controls?|con))?
    | nt|ntc|nt[ _.-]?(?:ctrls?|controls?)|nc
    | non?[ _.-]?target(?:ing|s|ed)?(?:[ _.-]?(?:ctrls?|controls?|guides?|sgrnas?))*
    | not[ _.-]?targeting
    | no[ _.-]?(?:site|target|guide|perturbation|treatment)
    | one[ _.-]?(?:non[ _.-]?gene|intergenic)[ _.-]?site
    | intergenic(?:[ _.-]?(?:ctrls?|controls?))?
    | safe(?:[ _.-]?(?:targeting|harbou?r|cutters?|ctrls?|controls?|region|locus))?
    | scr|scrambled?(?:[ _.-]?(?:ctrls?|controls?))?
    | dmso|mock|pbs|vehicle|untreated|unperturbed|unedited|untransduced|uninfected|parental|wild[ _.-]?type|wt
    | empty(?:[ _.-]?vector)?|ev
    | aavs1|rosa26|lacz|luc|luc2|f?luciferase|renilla
    | (?:e|m|d2)?gfp|(?:e|m|tag)?bfp2?|(?:e|m|tag)?[ryc]fp|mcherry|m?scarlet|t?d?tomato|dsred|m?venus|m?citrine
    | m?neon(?:green)?|zsgreen1?|m?cerulean|m?turquoise2?|mkate2?|i?rfp(?:670|713|720)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NUMBERED = re.compile(r"[ _.\-#]*(?:[gs][ _.-]?)?\d{1,6}$")
_GUIDE = re.compile(
    r"^(?:sgRNAs?|shRNAs?|siRNAs?|gRNAs?|crRNAs?|guides?|sg|sh|si|g|p|lenti|CRISPRi)[ _.-]?(?=[A-Za-z])"
)

_MONTHS = {
    "jan": ("JAN",),
    "feb": ("FEB",),
    "mar": ("MARCH", "MARC"),
    "mrz": ("MARCH", "MARC"),
    "apr": ("APR",),
    "may": ("MAY",),
    "jun": ("JUN",),
    "jul": ("JUL",),
    "aug": ("AUG",),
    "sep": ("SEPT", "SEP"),
    "oct": ("OCT",),
    "okt": ("OCT",),
    "nov": ("NOV",),
    "dec": ("DEC",),
    "dez": ("DEC",),
}
_MONTH_BY_NUMBER = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_MONTH = re.compile(
    rf"0?(?P<day>\d{{1,2}})[-. /]+(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?(?:[-. /]\d{{2,4}})?", re.IGNORECASE
)
_MONTH_DAY = re.compile(
    rf"(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?[-. /]+0?(?P<day>\d{{1,2}})(?:[-. /,]+\d{{4}})?", re.IGNORECASE
)
_ISO = re.compile(r"\d{4}-(?P<number>\d{2})-(?P<day>\d{2})(?:[T ]00:00:00)?")


def is_missing(name: str) -> bool:
    return name.strip().lower() in MISSING


def is_group(name: str) -> bool:
    return name.strip().lower() in _GROUPS


def is_control(name: str, *, numbered: bool = True) -> bool:
    """Whether a name is a control's: also as a guide against it (sgNT), and ``numbered`` (NTC_12, shLuc-2)."""
    forms = (name, _GUIDE.sub("", name))
    if any(_CONTROL.fullmatch(form) for form in forms):
        return True
    return numbered and any(_CONTROL.fullmatch(_NUMBERED.sub("", form)) for form in forms)


def without_guide(name: str) -> str:
    """sgAARS → AARS. The marks of guides are read in their own case, because SHC1 and SIK1 are genes."""
    return _GUIDE.sub("", name)


def names_behind_date(name: str) -> tuple[str, ...]:
    """What a spreadsheet may have turned into this date, best first: 1-Mar → MARCH1, MARC1. Empty: it is no date."""
    name = name.strip()
    if match := _ISO.fullmatch(name):
        number = int(match["number"])
        if not 1 <= number <= len(_MONTH_BY_NUMBER):
            return ()
        month = _MONTH_BY_NUMBER[number - 1]
    elif match := _DAY_MONTH.fullmatch(name) or _MONTH_DAY.fullmatch(name):
        month = match["month"].lower()
    else:
        return ()
    return tuple(f"{written}{int(match['day'])}" for written in _MONTHS[month])
