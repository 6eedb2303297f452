"""What a prompt asks: a task, a question that was not read, or nothing.

rbio's question forms are fixed sentences, so a task is recognised by matching the whole sentence, never by guessing
from gene-like words. White space, dashes, quotes and Markdown make no difference, nor do the few variations that
people write without changing what is asked (docs/reading.md).

The last question is the task, or there is none: a later sentence that asks about genes, perturbation or expression and
was not read ends the search, so that an earlier example is never scored in place of the question. Turns that ask
nothing ("Answer now, in the tags.") are passed over.

Source of the forms: the published rbio demo (differential expression) and its public history (direction,
co-expression); "CRISPRi knockdown" is PerturbQA's own wording.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from functools import lru_cache

from bioverify.core.tasks import TASKS, Task, TaskKind, make_task

MAX_QUOTE_CHARACTERS = 200

NOT_READ = "; the question was not read"
"""Begins, in the words why there is no reward, what is this prompt's own: its question, quoted."""

FORMS: dict[TaskKind, str] = {kind: make.about("{A}", "{B}", "{line}").question for kind, make in TASKS.items()}
"""Each kind's published wording, with names in braces."""


class UnreadReason(StrEnum):
    """Why no task was read off a prompt. ``NOTHING_ASKED``: there is no question in it, so none is quoted."""

    NOTHING_ASKED = "nothing_asked"
    KNOCKOUT = "knockout"
    ACTIVATION = "activation"
    DRUG = "drug"
    COMBINATION = "combination"
    OTHER_WORDING = "other_wording"
    OTHER_SUBJECT = "other_subject"


@dataclass(frozen=True, slots=True)
class Unread:
    """A question that has none of the known forms. ``quote``: the sentence, at most 200 characters of it."""

    reason: UnreadReason
    quote: str

    @property
    def detail(self) -> str:
        """For a person: what was not read, why, and what can be."""
        return f'The prompt\'s last question was not read: "{self.quote}". {self._why} Known forms: {_KNOWN_FORMS}'

    @property
    def beside_the_reason(self) -> str:
        """What is put behind the words why an item has no reward."""
        return f"{NOT_READ} ({self.reason}): {self.detail}"

    @property
    def _why(self) -> str:
        if self.reason is UnreadReason.OTHER_WORDING:
            return _difference(self.quote)
        return _WHY[self.reason]


Question = Task | Unread | None
"""What a prompt asks last: a task, a question that was not read, or None if it asks nothing."""

_WHY = {
    UnreadReason.KNOCKOUT: "It asks about a knockout; knockouts are not in the screens, which hold CRISPRi knockdowns.",
    UnreadReason.ACTIVATION: "It asks about activation or overexpression; the screens hold CRISPRi knockdowns only.",
    UnreadReason.DRUG: "It asks about a drug or treatment; the screens hold CRISPRi knockdowns of one gene only.",
    UnreadReason.COMBINATION: "It asks about several genes at once; the screens hold knockdowns of one gene each.",
    UnreadReason.OTHER_SUBJECT: "It is not about genes, perturbation or expression.",
}
_KNOWN_FORMS = "; ".join(f'"{form}"' for form in FORMS.values())

# --- One spelling of a text -------------------------------------------------------------------------------------------

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]"
)
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
    }
)
_MARKUP = re.compile(
    r"""[*`"]|~~|^[ \t]*>[ \t>]*|</?(?:b|i|em|strong|code|u)>|(?<![A-Za-z0-9])['_]+|['_]+(?![A-Za-z0-9_'])""",
    re.IGNORECASE | re.MULTILINE,
)


def plain_characters(text: str) -> str:
    """Compatible characters, dashes and quotes in their ASCII form; invisible characters taken out."""
    if text.isascii():
        return text
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).translate(_PLAIN))


def _plain(text: str) -> str:
    return " ".join(_MARKUP.sub("", plain_characters(text)).split())


# --- The forms --------------------------------------------------------------------------------------------------------

_SYMBOL = r"[A-Za-z0-9](?:[A-Za-z0-9.\-_@]{0,62}[A-Za-z0-9_@])?"
_CELL_LINE = r"[A-Za-z0-9][\w .\-/,()]{0,63}?"
_CRISPRI = r"(?:CRISPRi|CRISPR[- ]interference)(?:[- ](?:mediated|based))? "
_YES_NO_AFTER = r"(?:[,:;]? \(?(?:yes|no|increase|decrease)(?: or |/)(?:yes|no|increase|decrease)\)?)?"
_END = rf"{_YES_NO_AFTER} ?(?:\?|\.(?= |$)|$)"


def _gene(group: str) -> str:
    return rf"(?:the )?(?:gene )?(?P<{group}>{_SYMBOL})(?: gene)?"


_PERTURBED = (
    rf"(?:(?:an? |the )?(?:{_CRISPRI})?(?:gene )?(?:knock[- ]?down of|knocking[- ]down) {_gene('perturbation')}"
    rf"|(?:an? |the )?(?:{_CRISPRI})?(?P<perturbed>{_SYMBOL}) knock[- ]?down)"
)
_IN_CELLS = rf"in (?:the )?(?P<cell_line>{_CELL_LINE})(?: cells?| cell lines?)?"
_KNOCKDOWN = rf"(?:Is|Does|Will|Would) {_PERTURBED} {_IN_CELLS}(?: (?:be )?likely to)?"
_UP_DOWN = r"(?:{0} ?(?:or|/) ?(?:an? )?{1}|{1} ?(?:or|/) ?(?:an? )?{0})"
_NOUNS = "|".join(
    _UP_DOWN.format(*pair)
    for pair in (
        ("increased?", "decreased?"),
        (r"up[- ]?regulation", r"down[- ]?regulation"),
        (r"up[- ]?regulated", r"down[- ]?regulated"),
    )
)
_VERBS = "|".join(
    _UP_DOWN.format(*pair) for pair in (("increase", "decrease"), (r"up[- ]?regulate", r"down[- ]?regulate"))
)
_EXPRESSION_OF = r"(?:the )?expression (?:levels? )?(?:of|in)"
_FORMS: tuple[tuple[TaskKind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(form + _END, re.IGNORECASE | re.ASCII))
    for kind, form in (
        (
            TaskKind.DIFFERENTIAL_EXPRESSION,
            rf"{_KNOCKDOWN} (?:(?:result in|lead to|cause) (?:the )?differential (?:gene )?expression (?:of|in)"
            rf"|(?:change|alter|affect) {_EXPRESSION_OF}) {_gene('measured_gene')}",
        ),
        (
            TaskKind.DIRECTION_OF_CHANGE,
            rf"{_KNOCKDOWN} (?:(?:result(?: in)?|lead to|cause) (?:an? |the )?(?:{_NOUNS})"
            rf"(?: (?:of|in)(?: {_EXPRESSION_OF})?| expression (?:of|in))|(?:{_VERBS})(?: {_EXPRESSION_OF})?)"
            rf" {_gene('measured_gene')}",
        ),
        (
            TaskKind.CO_EXPRESSION,
            rf"(?:Are|Is) (?:the )?(?:genes? )?(?P<gene_a>{_SYMBOL})(?: gene)?"
            rf"(?: and {_gene('gene_b')}(?: genes)? (?:likely )?(?:to be )?"
            r"(?:co-?expressed(?: together| with each other)?|expressed together)"
            rf"| (?:likely )?(?:to be )?co-?expressed with {_gene('partner')})",
        ),
        (
            TaskKind.GENE_ANNOTATION,
            r"What (?:is|are|do (?:we|you) know about|is (?:already )?known about) "
            r"(?:the )?(?:biological |molecular |cellular )?functions? of (?:the )?(?:genes? )?"
            rf"(?P<genes>{_SYMBOL}(?:(?:, and|,| and) (?:gene )?{_SYMBOL}){{0,63}})(?: genes?)?",
        ),
    )
)
_NO_SYMBOL = frozenset(
    [
        "a",
        "an",
        "and",
        "any",
        "both",
        "each",
        "either",
        "expression",
        "gene",
        "genes",
        "he",
        "how",
        "in",
        "is",
        "it",
        "its",
        "no",
        "not",
        "of",
        "or",
        "she",
        "that",
        "the",
        "their",
        "them",
        "these",
        "they",
        "this",
        "those",
        "we",
        "what",
        "which",
        "you",
    ]
)
# A name of a cell line with one of these has run into the rest of the sentence, or names a condition.
_NO_PART_OF_A_LINE = re.compile(
    r"\b(?:after|and|be|cause|cells?|during|following|if|in|is|knock\w*|likely|lacking|never|not|of|or|to|treated|under"
    r"|unlikely|when|where|with|without)\b",
    re.IGNORECASE,
)
_BETWEEN_GENES = re.compile(r"(?:, and|,| and) (?:gene )?", re.IGNORECASE)


def _task(kind: TaskKind, match: re.Match[str]) -> Task | None:
    """The task of a matched sentence; None if one of its names is none."""
    found = match.groupdict()
    if kind is TaskKind.GENE_ANNOTATION:
        genes = _BETWEEN_GENES.split(found["genes"])
        # "the function of mitochondria" has a gene's place, not a gene.
        return make_task(kind, [genes]) if all(map(_looks_like_a_symbol, genes)) else None
    if kind is TaskKind.CO_EXPRESSION:
        genes = [found["gene_a"], found["gene_b"] or found["partner"]]
        return make_task(kind, genes) if _are_symbols(genes) else None
    genes = [found["perturbation"] or found["perturbed"], found["measured_gene"]]
    if not _are_symbols(genes) or _NO_PART_OF_A_LINE.search(found["cell_line"]):
        return None
    return make_task(kind, [*genes, found["cell_line"]])


def _are_symbols(words: Sequence[str]) -> bool:
    # In capitals it may be a gene: AN, HOW.
    return not any(word.lower() in _NO_SYMBOL and not word.isupper() for word in words)


def _looks_like_a_symbol(word: str) -> bool:
    return not word.islower() or any(map(str.isdigit, word))


def _last_task(text: str) -> tuple[Task, int] | None:
    """The last sentence of a known form, and its end."""
    latest: tuple[int, int, Task] | None = None
    for kind, form in _FORMS:
        at = 0
        while match := form.search(text, at):
            task = _task(kind, match)
            # What was matched and refused may hide a question that begins within.
            at = match.end() if task is not None else match.start() + 1
            if task is not None and (latest is None or match.start() > latest[0]):
                latest = (match.start(), match.end(), task)
    return None if latest is None else (latest[2], latest[1])


# --- What was asked and not read --------------------------------------------------------------------------------------

_SENTENCES = re.compile(r"(?<=[.?!]) ")
_CLOSING = " )]}'"
# The answer to an earlier example, in front of the question.
_GIVEN_ANSWER = re.compile(r"^(?:(?:a|answer)\W+)?(?:yes|no|increase|decrease)\b\W*", re.IGNORECASE)
# The same right behind a question, which was an example then. "Yes or no", "answer yes if …" answer nothing.
_ANSWERED = re.compile(
    r"(?:^|(?<=[.?!]) )\W*(?:(?:a|answer) ?[:>]\W*)?(?:yes|no|increase|decrease)(?:</answer>)?[.!;,]* (?-i:[A-Z])",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\W*(?:(?:a|also|and|answer|but|decrease|increase|next|no|now|ok|or|please|q|question|so|task|then|user|yes)\b\W*)*(?:"
    r"(?:are|can|could|do(?! not\b)|does|how|is|what|which|will|would)\b"
    r"|(?:assess|classify|decide|determine|estimate|evaluate|infer|judge|predict|say|state|tell)\b"
    r".*\b(?:direction|effect|how|if|impact|outcome|whether)\b"
    r"|(?:i|we)\b.*\b(?:ask|find out|know|learn|wonder)\b)",
    re.IGNORECASE,
)
_OF_GENES = re.compile(
    r"\bgenes?\b|knock|perturb|express|crispr|silenc|deplet|\bdelet|regulat|inhibit|activat|transcri|\b(?:sh|si)rna"
    r"|\bmutat|\b(?:ko|kd)\b|\bdrugs?\b|\btreat(?:ed|ing|ment)|repress",
    re.IGNORECASE,
)
# A question that a label announces needs no verb.
_LABELLED = re.compile(r"\W*(?:predict(?:ion)?|problem|query|q|question|task)\W{0,3}:", re.IGNORECASE)
_GOES_ON = re.compile(r"\bsame (?:for|in|of|question|with)\b|\b(?:how|what) about\b", re.IGNORECASE)
# Bounded, so that no run of letters is gone through again from each of them.
_LIKE_A_GENE = re.compile(
    r"\b(?:[A-Z]{2}[A-Z-]{0,14}[A-Z]|[A-Z][A-Z-]{0,9}[0-9][A-Z0-9-]{0,9}|C[0-9]{1,2}orf[0-9]{1,4})\b"
)
_NO_GENES = frozenset(
    [
        "ALL",
        "AND",
        "ANSWER",
        "ANY",
        "DNA",
        "FINAL",
        "HTML",
        "JSON",
        "MUST",
        "NOT",
        "NOW",
        "ONE",
        "ONLY",
        "REALLY",
        "RNA",
        "THE",
        "THINK",
        "XML",
        "YES",
        "YOU",
        "YOUR",
    ]
)
# Questions about the question: a turn of these alone asks nothing new.
_ABOUT_THE_ANSWER = re.compile(
    r"\b(?:again|answer|certain|conclusion|confident|decide|decided|explain|final|format|it|mean|no|ok|okay|ready|reason"
    r"|reasoning|sure|tags?|that|think|this|verdict|why|yes|you|your)\b",
    re.IGNORECASE,
)
_REASONS = tuple(
    (reason, re.compile(words, re.IGNORECASE))
    for reason, words in (
        (
            UnreadReason.KNOCKOUT,
            r"knock(?:ed|ing)?[- ]?out|\bko\b|\bdelet(?:e|ed|ing|ion)|\bcas9\b|\bnull\b|loss[- ]of[- ]function",
        ),
        (
            UnreadReason.ACTIVATION,
            r"\bcrispra\b|over-?express|\bactivat(?:ion of|ing)\b|gain[- ]of[- ]function|\binduction of\b",
        ),
        (
            UnreadReason.DRUG,
            r"\bdrugs?\b|\bcompound|\binhibitor|\btreat(?:ed|ing|ment)|\bdose|small molecule|\d ?[nuµμ]M\b",
        ),
        (
            UnreadReason.COMBINATION,
            r"\w ?\+ ?\w|\b(?:double|combin\w+|simultaneous\w*|together with)\b|knock[- ]?downs? of \S+ and\b",
        ),
    )
)


def _asks_of_genes(sentence: str) -> bool:
    if not (sentence.rstrip(_CLOSING).endswith("?") or _ASKS.match(sentence) or _LABELLED.match(sentence)):
        return False
    return _names_genes(sentence) or bool(_GOES_ON.search(sentence) and not _ABOUT_THE_ANSWER.search(sentence))


def _names_genes(sentence: str) -> bool:
    if _OF_GENES.search(sentence):
        return True
    # In a sentence of capitals alone, every word looks like a gene.
    return not sentence.isupper() and any(word not in _NO_GENES for word in _LIKE_A_GENE.findall(sentence))


def _asks_something_else(sentence: str) -> bool:
    return sentence.rstrip(_CLOSING).endswith("?") and not _ABOUT_THE_ANSWER.search(sentence)


def _unread(sentence: str) -> Unread:
    reason = next((reason for reason, words in _REASONS if words.search(sentence)), UnreadReason.OTHER_WORDING)
    return Unread(reason, _cut(sentence))


def _cut(sentence: str) -> str:
    if len(sentence) <= MAX_QUOTE_CHARACTERS:
        return sentence
    return f"…{sentence[1 - MAX_QUOTE_CHARACTERS :]}"


def _difference(quote: str) -> str:
    """In what a sentence differs from the form that it is nearest to."""
    words = quote.lower().split()
    forms = [form.split("?")[0] + "?" for form in FORMS.values()]
    alike, form = max((SequenceMatcher(None, words, form.lower().split()).ratio(), form) for form in forms)
    if alike < 0.3:
        return "It is near to none of them."
    known = form.split()
    written = quote.split()
    differences = []
    for tag, i, j, k, m in SequenceMatcher(None, words, [word.lower() for word in known]).get_opcodes():
        wanted = " ".join(known[k:m])
        # A name stands for what is in braces.
        if tag != "equal" and not (tag == "replace" and j - i == m - k and "{" in wanted and m - k == 1):
            differences.append(f'"{" ".join(written[i:j])}" stands for "{wanted}"')
    return f'It is nearest to "{form}", but {", ".join(differences) or "ends otherwise"}.'


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_question(text: str) -> Question:
    """What one text asks last."""
    # The members of a group share their prompt; a long one is not worth its memory.
    return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _read(text)


def read_conversation(latest_first: Iterable[tuple[str, str]]) -> Question:
    """What a conversation asks last: its turns as (role, text), from the last one back over those that ask nothing."""
    for role, text in latest_first:
        if role == "user" and (question := read_question(text)) is not None:
            return question
    return None


def parse_task(text: str) -> Task | None:
    """The task that a text asks last; None if it asks nothing, or something that was not read."""
    question = read_question(text)
    return None if isinstance(question, Unread) else question


def _read(text: str) -> Question:
    plain = _plain(text)
    last = _last_task(plain)
    later = plain if last is None else plain[last[1] :]
    sentences = [_GIVEN_ANSWER.sub("", sentence.strip()) for sentence in _SENTENCES.split(later)]
    # What comes behind an example is the question, with or without a verb.
    answered = last is not None and _ANSWERED.search(later)
    for sentence in reversed(sentences):
        if _asks_of_genes(sentence) or (answered and _names_genes(sentence)):
            return _unread(sentence)
    if last is not None:
        return last[0]
    for sentence in reversed(sentences):
        if _asks_something_else(sentence):
            return Unread(UnreadReason.OTHER_SUBJECT, _cut(sentence))
    return None


_LONGEST_REMEMBERED = 4096
_remembered = lru_cache(maxsize=1024)(_read)
