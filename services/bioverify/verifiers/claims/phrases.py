"""Text as a string of one character per word, so that phrases of words are found by an automaton over characters.

A word is a run of letters, digits and hyphens. One that is a gene's symbol as it is written is one character (MET is a
gene, "met" a verb); any other is one character per part between hyphens, that of the part's stem, so "translational"
and "translation" are one, "double-strand" and "double strand" too. Articles have no character. Words that turn a claim
round (negations, hedges, …) have characters below `FIRST_STEM`, symbols from `FIRST_SYMBOL` on, the numbers of GO ids
from `FIRST_TERM` on. What no phrase holds is `UNKNOWN`, which matches nothing. `END` stands where a sentence ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum, auto

from rouge_score_rs.tokenizers import DefaultTokenizer

from bioverify.core.cell_lines import CELL_LINES

MAX_CACHED_WORDS = 32_768
FIRST_STEM, FIRST_SYMBOL, FIRST_TERM = 0x80, 0x20000, 0x80000
UNKNOWN, END = "\x01", "\x02"

_SURROGATES = 0xD800, 0x800
_ID_DIGITS = 7
_tokenizer = DefaultTokenizer(use_stemmer=True)  # type: ignore[no-untyped-call]


class Turn(IntEnum):
    """What a word does to the claims of its sentence."""

    END = auto()
    NEGATION = auto()
    HEDGE = auto()
    HYPOTHESIS = auto()
    BREAK = auto()
    """A negation does not reach beyond it."""
    JOIN = auto()


_TURNING_WORDS = {
    Turn.NEGATION: (
        "not no never neither nor cannot without lacks lack lacking fails fail isn doesn don didn aren wasn weren hasn "
        "devoid independent unrelated nothing none"
    ),
    Turn.HEDGE: (
        "may might could possibly perhaps probably likely unlikely potentially presumably putative putatively suggest "
        "suggests suggesting speculate hypothesized thought believed can"
    ),
    Turn.HYPOTHESIS: "if suppose supposing assuming hypothetically hypothetical whether would",
    Turn.BREAK: "but however although though whereas while instead yet because since therefore thus hence so",
    Turn.JOIN: "and or",
}
_TURNING = {
    word: (turn, chr(3 + at))
    for at, (word, turn) in enumerate((word, turn) for turn, words in _TURNING_WORDS.items() for word in words.split())
}
TURN_OF = {END: Turn.END, **{character: turn for turn, character in _TURNING.values()}}
"""Character → what its word does."""
TURNING = re.compile(f"[{END}-{chr(FIRST_STEM - 1)}{chr(FIRST_SYMBOL)}-\U0010ffff]")
"""A character that turns a claim, or a symbol's."""

_ARTICLES = frozenset({"an", "the"})
# Plurals and adjectives of Greek and Latin, which Porter's rules do not lead to one stem.
_IRREGULAR = {
    "mitochondria": "mitochondrion", "mitochondrial": "mitochondrion", "nuclei": "nucleus", "nuclear": "nucleus",
    "nucleoli": "nucleolus", "nucleolar": "nucleolus", "cytoskeletal": "cytoskeleton", "cilia": "cilium",
    "ciliary": "cilium", "flagella": "flagellum", "cytoplasmic": "cytoplasm", "cytosolic": "cytosol",
    "biosynthetic": "biosynthesis", "synthetic": "synthesis", "centrioles": "centriole", "vacuolar": "vacuole",
    "melanogenesis": "melanogenesis", "signalling": "signaling", "haem": "heme", "oestrogen": "estrogen",
    "sulphate": "sulfate", "chemotactic": "chemotaxis", "apoptotic": "apoptosis", "mitotic": "mitosis",
    "meiotic": "meiosis",
    "endocytic": "endocytosis", "exocytic": "exocytosis", "phagocytic": "phagocytosis", "autophagic": "autophagy",
    "lysosomes": "lysosome", "catabolism": "catabolic", "nuclease": "nuclease",
}  # fmt: skip
_KEPT_APART = frozenset(
    [
        "region", "regions", "sensitivity", "keratin", "keratins", "glycosyl", "fertility", "proteasomal", "secreted",
        "phosphorylated", "dephosphorylated", "methylated", "demethylated", "acetylated", "deacetylated",
        "ubiquitinated", "ubiquitylated", "glycosylated", "fragment", "fragments", "transcriptionally",
        "factors", "receptors", "channels", "ribosomal", "sensitive", "phosphoryl",
        "transcript", "transcripts", "segment", "segments", "mitogen", "nucleosomal", "ubiquitin", "polyadenylated",
        "myelin", "myelinated",
    ]
)  # fmt: skip
"""Words whose stem is that of a term's name, of which they say nothing: what is phosphorylated does not do it."""
_JOINED = frozenset({"post", "non", "up", "down"})
"""Prefixes that make another word: what is post-translational is no translation, "up-regulates" is "upregulates"."""
_LETTERS = "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu pi sigma omega"
_GREEK = {ord(letter): f" {name} " for letter, name in zip("αβγδεζηθκλμπσω", _LETTERS.split(), strict=True)}
_PLAIN = {**_GREEK, **dict.fromkeys(range(0x2010, 0x2016), "-"), 0x2212: "-", 0xA0: " "}
_BETWEEN_WORDS = bytes(
    code if code < 128 and (chr(code).isalnum() or chr(code) in f"-{END}") else ord(" ") for code in range(256)
)
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$|[\"')\]])|\n(?=\s*(?:\n|[-*•#]|\d+[.)]\s))")
_WORD_OR_END = re.compile(rf"[A-Za-z0-9-]+|{_SENTENCE_END.pattern}")


_ACTIVE = {
    **dict.fromkeys(["activate", "activates", "activated", "activating", "activation"], "activation="),
    **dict.fromkeys(["activator", "activators"], "activator="),
}
"""Words with stems of their own, not that of an activity: "GTPase activator" and "receptor activation" name none."""


def stem_of(word: str) -> str:
    lowered = word.lower()
    if active := _ACTIVE.get(lowered):
        return active
    # "Inhibits kinases" does not say that the gene is one: the plural is another word.
    if lowered in _KEPT_APART or lowered.endswith("ases"):
        return f"{lowered}="
    lowered = _IRREGULAR.get(lowered, lowered)
    return "".join(_tokenizer.tokenize(lowered)) or lowered  # type: ignore[no-untyped-call]


def _parts(word: str) -> list[str]:
    if (line := word.replace("-", "").lower()) in CELL_LINES:
        return [line]  # "K-562"
    parts = word.split("-")
    if len(parts) > 1 and parts[0].lower() in _JOINED:
        parts[:2] = ["".join(parts[:2])]
    return parts


def words_of(text: str) -> list[bytes]:
    """The words, and `END` where a sentence ends."""
    if not text.isascii():
        text = text.translate(_PLAIN)
    marked = _SENTENCE_END.sub(f" {END} ", text)
    return marked.encode("ascii", "replace").translate(_BETWEEN_WORDS).split()


class Words(dict[bytes, str]):
    """Word as it is written → its characters, found once per word. Forgets all when texts have brought too many."""

    def __init__(self, stems: Mapping[str, int], symbols: Mapping[str, int], term_rows: Mapping[str, int]) -> None:
        """Numbers of stems, of symbols and aliases of genes as they are written, and of GO ids without "GO:"."""
        super().__init__()
        self._stems, self._symbols, self._term_rows = stems, symbols, term_rows

    def __missing__(self, word: bytes) -> str:
        if len(self) >= MAX_CACHED_WORDS:
            self.clear()
        written = word.decode()
        parts = _parts(written)
        symbol = self._symbol(written) if "-" in written and parts[0] not in CELL_LINES else ""
        # "Calcium-independent adhesion" denies nothing.
        characters = self[word] = symbol or "".join([self._part(part, is_whole=len(parts) == 1) for part in parts])
        return characters

    def _symbol(self, written: str) -> str:
        number = self._symbols.get(written)
        return "" if number is None else chr(FIRST_SYMBOL + number)

    def _part(self, part: str, *, is_whole: bool) -> str:
        # "A" may be a sentence's first word, but is a part of names: coenzyme A.
        lowered = part.lower()
        if not part or part == "a" or lowered in _ARTICLES:
            return ""
        if part == END:
            return END
        if symbol := self._symbol(part):
            return symbol
        if is_whole and (turning := _TURNING.get(lowered)):
            return turning[1]
        if len(part) == _ID_DIGITS and (row := self._term_rows.get(part)) is not None:
            return chr(FIRST_TERM + row)
        number = self._stems.get(stem_of(lowered))
        return UNKNOWN if number is None else _stem_character(number)

    def encode(self, text: str) -> str:
        """The string that phrases are looked for in."""
        return "".join(map(self.__getitem__, words_of(text)))

    def stems_in(self, words: str) -> frozenset[str]:
        """Characters of words that all have one."""
        return frozenset(self.encode(words)) - {UNKNOWN}

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each character of ``encode(text)`` comes from."""
        origin: list[int] | None = None
        if not text.isascii():
            text, origin = _plain_with_origin(text)
        spans = []
        for found in _WORD_OR_END.finditer(text):
            word = found[0].encode()
            characters = self[word] if found[0][0].isalnum() or found[0][0] == "-" else END
            span = found.span() if origin is None else (origin[found.start()], origin[found.end() - 1] + 1)
            spans += [span] * len(characters)
        return spans


def _plain_with_origin(text: str) -> tuple[str, list[int]]:
    written, origin = [], []
    for at, character in enumerate(text):
        plain = character.translate(_PLAIN)
        written.append(plain)
        origin += [at] * len(plain)
    return "".join(written), origin


def _stem_character(at: int) -> str:
    code = FIRST_STEM + at
    surrogates, width = _SURROGATES
    return chr(code if code < surrogates else code + width)


def parts_of(text: str) -> list[str]:
    """The parts of a phrase's words that have a stem, in lower case."""
    return [part.lower() for word in words_of(text) for part in _parts(word.decode()) if part and part != END]
