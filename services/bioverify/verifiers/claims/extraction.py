"""What a text claims of genes: phrases in sentences, each with the genes that it is about, and how it is put.

A claim is a phrase in a sentence about a gene: the sentence's subject, which is the gene that it or one of its clauses
begins with, else the subject of the sentence before. Genes that stand side by side ("A, B and C") are spoken of
together. A bare list of phrases claims nothing: a sentence makes at most as many claims as it has words that belong to
no phrase, no gene and are no "and".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import combinations, pairwise
from typing import NamedTuple, Protocol

from bioverify.verifiers.claims.effects import WORDS_OF_EFFECTS, Change, Effects, Group
from bioverify.verifiers.claims.phrases import FIRST_SYMBOL, FIRST_TERM, TURN_OF, TURNING, Turn, Words

NAMING_WORDS = "is are was encodes encode encoding encoded called named codes known as"
REGULATING_WORDS = (
    "regulates regulation controls activates activation represses repression inhibits inhibition targets upstream "
    "downstream upregulates downregulates"
)
COEXPRESSED_WORDS = "coexpressed expressed"
RELATING_WORDS = (
    "interacts interaction binds binding complex pathway partner together associates association phosphorylates "
    "process both share shared subunits bound"
)
BY = "by"
TARGETED_WORDS = "target downstream"
""" "A is regulated by B", "A is a target of B", "A is downstream of B": B regulates A."""
JOINT_WORDS = "complex heterodimer dimer interact interacts share together bind binds form forms"
"""Behind genes that stand side by side: they are told to do it with each other, and are no mere list."""
ONLY = "only"
OBJECT_WORDS = (
    "with by to for from via through against between into among toward towards including like as than other "
    "links linking recruits recruiting inhibiting activating activated regulating binding binds bind bound interacts "
    "interacting inhibits activates phosphorylates phosphorylated represses targets controls its their such"
)
"""Directly before a gene: it is an object, and no subject."""
TYING_WORDS = "interaction binding complex association between"
"""Before two genes: "the binding of A to B"."""
ASIDE_WORDS = "during upon following after"
"""Before a phrase that tells when something happens, and not what the gene does."""
ACTING_WORDS = (
    "inhibits inhibit inhibiting blocks block suppresses suppress activate activates activating stimulates recruits "
    "recruit recruiting degrade degrades cleaves cleave dephosphorylate dephosphorylates phosphorylates phosphorylate "
    "binds modulates modulate enhances enhance reduces such including "
    "regulates regulating ligand"
)
"""Before a function that is another's: "inhibits kinases" says no kinase. Two words may stand between."""
ACTED_REACH = 3
OF = "of"
PART_WORDS = "subunit component part member family function functions form isoform"
""" "Inhibitor of the kinase" says no kinase, "subunit of the kinase" does."""
MODIFYING_WORDS = "resistant sensitive independent inhibitor inhibitors"
"""Behind a phrase: "protease-resistant" says nothing of a protease."""
CLOSING_WORDS = "which that is are was has"
"""Behind a gene's whole name; any other word may belong to it."""
OF_OR_ON = "of on"
LACKING_WORDS = (
    "loss lack absence knockdown knockout depletion deletion silencing inhibition function role expression activity "
    "overexpression mutation depends depend depending relies rely"
)
""" "The loss of A" and "depends on A" speak of A; "phosphorylation of A" of what does it."""
VERBS = (
    "is are was were has have does do acts takes drives encodes regulates binds activates inhibits promotes plays "
    "controls mediates catalyzes forms functions works contributes needs depends may can could might will would not "
    "in also then"
)
"""Directly behind a gene that follows "and": it is a subject of its own."""
BEGINNINGS = (
    "mediates acts required involved regulates plays inhibits promotes activates binds may functions component part "
    "receptor substrate ligand target subunit member belongs regulator inhibitor activator known has"
)
"""A sentence that begins so speaks of the gene before."""
WORDS_OF_ROLES = (
    BEGINNINGS,
    TYING_WORDS,
    ASIDE_WORDS,
    ACTING_WORDS,
    OF,
    PART_WORDS,
    MODIFYING_WORDS,
    CLOSING_WORDS,
    NAMING_WORDS, REGULATING_WORDS, COEXPRESSED_WORDS, BY, TARGETED_WORDS, RELATING_WORDS,
    JOINT_WORDS, ONLY, OBJECT_WORDS, OF_OR_ON, LACKING_WORDS, VERBS, *WORDS_OF_EFFECTS,
)  # fmt: skip
"""Words that change what a claim is; all of them have a stem in the artifact."""

NAMING_REACH, NEGATION_REACH, SUBJECT_REACH, RELATING_REACH = 5, 10, 5, 3
"""Words between a gene and its name, a negation and what it denies, a sentence's beginning and its subject, genes and
the word that relates them."""


class Tone(IntEnum):
    PLAIN = 0
    HEDGED = 1
    HYPOTHETICAL = 2


class Naming(IntEnum):
    """Whether a phrase is said to be what the gene is: "A encodes …", and whether more words of a name may follow."""

    NONE = 0
    OPEN = 1
    WHOLE = 2


class Property(NamedTuple):
    """A phrase said of a gene. ``start`` and ``end``: characters of the encoded text."""

    gene: int
    phrase: int
    start: int
    end: int
    is_denied: bool
    tone: Tone
    naming: Naming


class Relation(NamedTuple):
    """Two genes in one sentence with a word that relates them. ``says``: as networks do (`settings.Says`)."""

    gene: int
    other: int
    says: str
    start: int
    end: int
    is_denied: bool
    tone: Tone


class Effect(NamedTuple):
    """What a knockdown of one gene is said to do to another's expression, in cell lines that the sentence names."""

    perturbation: int
    measured: int
    change: Change
    lines: tuple[str, ...]
    start: int
    end: int
    is_denied: bool
    tone: Tone


class Automaton(Protocol):
    def find_matches_as_indexes(self, haystack: str) -> list[tuple[int, int, int]]: ...


@dataclass
class Claims:
    """In the order of the text. ``properties`` of a phrase that is a GO id are −1 − the row of the id."""

    properties: list[Property] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)


class Extractor:
    """Reads claims off encoded texts."""

    def __init__(
        self, words: Words, automaton: Automaton, gene_of_mention: Sequence[int], is_function: Sequence[int]
    ) -> None:
        """``is_function``: of each phrase, 1 if all that it names are molecular functions."""
        self._automaton, self._gene_of_mention, self._is_function = automaton, gene_of_mention, is_function
        self._effects = Effects(words)
        self._tying = words.stems_in(TYING_WORDS)
        self._aside = words.stems_in(ASIDE_WORDS)
        self._acting = words.stems_in(ACTING_WORDS)
        self._of = words.stems_in(OF)
        self._parts = words.stems_in(PART_WORDS)
        self._modifying = words.stems_in(MODIFYING_WORDS)
        self._closing = words.stems_in(CLOSING_WORDS)
        self._naming = words.stems_in(NAMING_WORDS)
        self._regulating = words.stems_in(REGULATING_WORDS)
        self._coexpressed = words.stems_in(COEXPRESSED_WORDS)
        self._by, self._targeted = words.stems_in(BY), words.stems_in(TARGETED_WORDS)
        self._relating = words.stems_in(RELATING_WORDS) | self._regulating | self._coexpressed
        self._only = words.stems_in(ONLY)
        self._joint = words.stems_in(JOINT_WORDS)
        self._before_objects = words.stems_in(OBJECT_WORDS)
        self._of_or_on = words.stems_in(OF_OR_ON)
        self._lacking = words.stems_in(LACKING_WORDS)
        self._beginnings = words.stems_in(BEGINNINGS)
        # Also those that turn a claim: "and B may not …".
        self._verbs = words.stems_in(VERBS)
        self._verbal = self._verbs | self._beginnings | self._naming | self._relating | self._acting

    def claims(self, text: str, spoken_of: int = -1) -> Claims:
        """All claims of a text. ``spoken_of``: the gene that it is about as long as it names none."""
        found = Claims()
        events = self._automaton.find_matches_as_indexes(text)
        marks = [(-ord(match[0]), at := match.start(), at + 1) for match in TURNING.finditer(text)]
        if not marks and spoken_of < 0:
            return found
        merged = sorted([*events, *marks], key=_start)
        last: tuple[int, ...] = (spoken_of,) if spoken_of >= 0 else ()
        begin = 0
        phrases: list[tuple[int, int, int]] = []
        groups: list[Group] = []
        turns: list[tuple[int, Turn]] = []
        covered = joins = reach = 0
        for event in merged:
            number, start, end = event
            if number >= 0:
                phrases.append(event)
                covered += end - start
                reach = end
                continue
            if start < reach:  # a word of a phrase
                continue
            code = -number
            if code >= FIRST_TERM:
                phrases.append((FIRST_TERM - 1 - code, start, end))
                covered += 1
            elif code >= FIRST_SYMBOL:
                gene = self._gene_of_mention[code - FIRST_SYMBOL]
                covered += 1
                if groups and _are_side_by_side(text, groups[-1][1], start):
                    first, _, members = groups[-1]
                    groups[-1] = (first, end, members if gene in members else [*members, gene])
                else:
                    groups.append((start, end, [gene]))
            else:
                turn = TURN_OF[chr(code)]
                if turn is Turn.END:
                    if phrases or groups:
                        last = self._sentence(text, begin, start, phrases, groups, turns, covered + joins, last, found)
                        phrases, groups, covered = [], [], 0
                    turns, joins, begin = [], 0, end
                elif turn is Turn.JOIN:
                    joins += 1
                else:
                    turns.append((start, turn))
        if phrases or groups:
            self._sentence(text, begin, len(text), phrases, groups, turns, covered + joins, last, found)
        return found

    def _sentence(
        self,
        text: str,
        begin: int,
        end: int,
        phrases: list[tuple[int, int, int]],
        groups: list[Group],
        turns: list[tuple[int, Turn]],
        spent: int,
        last: tuple[int, ...],
        found: Claims,
    ) -> tuple[int, ...]:
        """Adds the sentence's claims; the genes that the next one may be about."""
        own_words = end - begin - spent
        is_list = len(phrases) > LONGEST_LIST and self._verbal.isdisjoint(text[begin:end])
        if own_words > 0 and not is_list:
            subjects = self._subjects(text, begin, groups, last, turns)
            if not subjects and groups:
                subjects = groups[:1]
            for number, start, stop in phrases[:own_words]:
                genes: Sequence[int] = ()
                subject_start = subject_end = begin
                for group in subjects:
                    if group[0] > start and genes:
                        break
                    subject_start, subject_end, genes = group
                if not genes:
                    continue
                if self._is_another_s(text, max(begin, subject_end), number, start, stop):
                    continue
                is_denied, tone = self._put(text, start, turns, subject_start) if turns else (False, Tone.PLAIN)
                naming = Naming.NONE
                if (
                    subject_end <= start
                    and 0 < start - subject_end <= NAMING_REACH
                    and not self._naming.isdisjoint(text[subject_end:start])
                ):
                    behind = text[stop : stop + 1]
                    is_whole = not behind or behind in TURN_OF or behind in self._closing
                    naming = Naming.WHOLE if is_whole else Naming.OPEN
                for gene in genes:
                    found.properties.append(Property(gene, number, start, stop, is_denied, tone, naming))
            if len(groups) > 1 or (groups and len(groups[0][2]) > 1):
                n_before = len(found.relations)
                self._relate(text, begin, end, groups, subjects, turns, found)
                told = self._add_effects(text, begin, end, groups, turns, found)
                if told:  # what a knockdown does is no relation beside
                    related = found.relations[n_before:]
                    found.relations[n_before:] = [one for one in related if {one.gene, one.other} not in told]
        subjects = self._subjects(text, begin, groups, last, turns)
        return tuple(subjects[-1][2]) if subjects else last

    def _subjects(
        self,
        text: str,
        begin: int,
        groups: list[Group],
        last: tuple[int, ...],
        turns: list[tuple[int, Turn]],
    ) -> list[Group]:
        """The genes that the sentence speaks of, in order: those of the sentence before, until it begins with its own.

        A gene further on is an object ("binds B"), unless a clause begins with it: "…, whereas B", "…, and B does".
        """
        subjects: list[Group] = []
        reach = 0 if text[begin] in self._beginnings else SUBJECT_REACH
        for group in groups:
            start, end, _ = group
            before = text[start - 1 : start]
            if (
                (not subjects and (not last or (start - begin <= reach and not self._is_object(text, begin, start))))
                or any(start - 2 <= at < start for at, turn in turns if turn is Turn.BREAK)
                or (start > begin and TURN_OF.get(before) is Turn.JOIN and text[end : end + 1] in self._verbs)
            ):
                subjects.append(group)
        is_far = subjects and subjects[0][0] - begin > SUBJECT_REACH
        if last and (not subjects or (is_far and text[subjects[0][0] - 2] not in self._lacking)):
            subjects.insert(0, (begin, begin, last))
        return subjects

    def _is_another_s(self, text: str, begin: int, phrase: int, start: int, stop: int) -> bool:
        """Whether the phrase tells when something happens, what is acted on, or is a part of another word."""
        if text[stop : stop + 1] in self._modifying or (start > begin and text[start - 1] in self._aside):
            return True
        if phrase < 0 or not self._is_function[phrase]:
            return False
        before = text[max(begin, start - ACTED_REACH) : start]
        return not self._acting.isdisjoint(before) or (before[-1:] in self._of and self._parts.isdisjoint(before))

    def _is_object(self, text: str, begin: int, start: int) -> bool:
        if start == begin:
            return False
        before = text[start - 1]
        if before in self._of_or_on:
            return self._lacking.isdisjoint(text[begin:start])
        return before in self._before_objects

    def _put(self, text: str, start: int, turns: list[tuple[int, Turn]], subject: int) -> tuple[bool, Tone]:
        """Whether what begins at ``start`` is denied, and its tone. ``subject``: where the gene stands.

        "If proteins are not folded, A does X": the denial is the condition's, before the gene that does.
        """
        is_denied, tone = False, Tone.PLAIN
        for at, turn in turns:
            if at > start:
                break
            if turn is Turn.BREAK:
                is_denied = False
                tone = Tone.PLAIN if tone is Tone.HEDGED else tone
            elif turn is Turn.NEGATION:
                is_of_condition = tone is Tone.HYPOTHETICAL and at < subject
                is_only = text[at + 1 : at + 2] in self._only
                is_denied = start - at <= NEGATION_REACH and not is_only and not is_of_condition
            elif turn is Turn.HEDGE:
                tone = max(tone, Tone.HEDGED)
            else:
                tone = Tone.HYPOTHETICAL
        return is_denied, tone

    def _relate(
        self,
        text: str,
        begin: int,
        end: int,
        groups: list[Group],
        subjects: list[Group],
        turns: list[tuple[int, Turn]],
        found: Claims,
    ) -> None:
        """A subject and an object with a word between that relates them, and genes side by side that do it jointly."""
        pairs = [(one, other) for at, one in enumerate(groups) for other in groups[at + 1 : at + 1 + MAX_RELATED]]
        for (start, stop, members), (start_of_other, end, others) in pairs[:MAX_RELATED]:
            between = text[stop:start_of_other]
            if len(between) > BETWEEN_REACH:
                continue
            is_subject = any(start == one[0] for one in subjects)
            is_tied = not self._tying.isdisjoint(text[max(begin, start - RELATING_REACH) : start])
            if is_tied or (is_subject and not self._relating.isdisjoint(between)):
                says = "interacts" if is_tied else self._says(between)
                pairs_of = ((gene, other) for gene in members for other in others)
                if says == "regulates" and self._is_passive(between):
                    pairs_of = ((other, gene) for gene in members for other in others)
                self._add(text, pairs_of, says, start, end, turns, found)
        for start, stop, members in groups:
            if len(members) > 1 and not self._joint.isdisjoint(text[stop : min(end, stop + RELATING_REACH)]):
                self._add(text, combinations(members[:MAX_RELATED], 2), "interacts", start, stop, turns, found)

    def _says(self, between: str) -> str:
        if not self._regulating.isdisjoint(between):
            return "regulates"
        return "interacts" if self._coexpressed.isdisjoint(between) else "co-expressed"

    def _is_passive(self, between: str) -> bool:
        if not self._by.isdisjoint(between):
            return True
        return any(one in self._targeted and other in self._of for one, other in pairwise(between))

    def _add(
        self,
        text: str,
        pairs: Iterable[tuple[int, int]],
        says: str,
        start: int,
        end: int,
        turns: list[tuple[int, Turn]],
        found: Claims,
    ) -> None:
        is_denied, tone = self._put(text, end, turns, start)
        found.relations += [Relation(*pair, says, start, end, is_denied, tone) for pair in pairs if pair[0] != pair[1]]

    def _add_effects(
        self,
        text: str,
        begin: int,
        end: int,
        groups: list[Group],
        turns: list[tuple[int, Turn]],
        found: Claims,
    ) -> list[set[int]]:
        """The pairs that they are about."""
        told: list[set[int]] = []
        for read in self._effects.read(text, begin, end, groups):
            is_denied, tone = self._put(text, read.at, turns, read.start)
            for gene in read.measured:
                if gene != read.perturbation:
                    told.append({gene, read.perturbation})
                    said = (read.perturbation, gene, read.change, read.lines, read.start, read.end)
                    found.effects.append(Effect(*said, is_denied is not read.is_unchanged, tone))
        return told


LONGEST_LIST = 3
"""Phrases of a sentence without a verb that is known, at most: more of them are a list, which claims nothing."""
BETWEEN_REACH = 8
"""Words between two genes that are related."""
MAX_RELATED = 6
"""Genes, and pairs of them, of a sentence that are related to each other."""


def _start(event: tuple[int, int, int]) -> int:
    return event[1]


def _are_side_by_side(text: str, end: int, start: int) -> bool:
    return start == end or (start == end + 1 and TURN_OF.get(text[end]) is Turn.JOIN)
