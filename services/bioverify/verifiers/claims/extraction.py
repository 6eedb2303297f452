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
    "binds modulates modulate enhances enhance reduces antagonizes opposes such including "
    "regulates regulating ligand"
)
"""Before a function that is another's: "inhibits kinases" says no kinase. Two words may stand between."""
ACTED_REACH, FURTHER_REACH = 3, 5
OF = "of"
PART_WORDS = "subunit component part member family function functions form isoform"
""" "Inhibitor of the kinase" says no kinase, "subunit of the kinase" does."""
DOING_WORDS = "by whose"
"""What is done "by the kinase", or what "whose products" do, is another's."""
ABSENCE_WORDS = "absence independently"
"""With "of": what happens without a thing is not done by it."""
CONTROLLED_WORDS = "regulated controlled modulated activated inhibited"
"""With "by": a gene that is "regulated by proteolysis" does none."""
SERVED_WORDS = "for with to"
"""Before a function that is another's, unless it is called an activity: "essential for RNA polymerase III"."""
ACTIVITY = "activity binding"
HOLDING_WORDS = "receptor receptors expression signaling pathway signal"
"""Behind a function that is then a part of another name: "phospholipase A2 receptor", "telomerase expression"."""
BUILDING_WORDS = (
    "biogenesis development assembly disassembly maintenance formation remodeling degradation import export stability "
    "architecture turnover gene"
)
"""Beside a place that is made or taken apart, where the gene need not be: "biogenesis of the ribosomal subunit"."""
DOMAIN_WORDS = "domain domains motif motifs anchored anchor"
"""Behind a symbol that then names no gene: "via its EGF domain"."""
MOVING_WORDS = (
    "recruits recruitment targets targeting transports delivers delivery traffics trafficking exports imports directs "
    "anchors tethers attaches sorts sorting transfers releases guides brings drives"
)
LOCATING_WORDS = "localization translocation"
TO_WORDS = "to into onto at from"
""" "Recruits B to the membrane" and "localization of B at the membrane" say where B is; "is recruited to", where A."""
OWN_MOVE_WORDS = "is are was were be been being its their own"
MOVED_REACH = 8
BINDING_WORDS = "binds bound"
BELONGING = "belongs annotated linked"
MODIFYING_WORDS = "resistant sensitive independent inhibitor inhibitors superfamily linked"
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
    DOING_WORDS, ABSENCE_WORDS, CONTROLLED_WORDS, SERVED_WORDS, ACTIVITY,
    HOLDING_WORDS, BUILDING_WORDS, DOMAIN_WORDS,
    MOVING_WORDS, LOCATING_WORDS, TO_WORDS, OWN_MOVE_WORDS, BINDING_WORDS, BELONGING,
    CLOSING_WORDS,
    NAMING_WORDS, REGULATING_WORDS, COEXPRESSED_WORDS, TARGETED_WORDS, RELATING_WORDS,
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

    def __init__(self, words: Words, automaton: Automaton, gene_of_mention: Sequence[int], aspect_of: bytes) -> None:
        """``aspect_of``: of each phrase C, F or P if it names nothing else, f if also a function, else 0."""
        self._automaton, self._gene_of_mention, self._aspect_of = automaton, gene_of_mention, aspect_of
        self._effects = Effects(words)
        self._tying = words.stems_in(TYING_WORDS)
        self._aside = words.stems_in(ASIDE_WORDS)
        self._acting = words.stems_in(ACTING_WORDS)
        self._of = words.stems_in(OF)
        self._parts = words.stems_in(PART_WORDS)
        self._by, self._whose, self._absence = (
            words.stems_in("by"),
            words.stems_in("whose"),
            words.stems_in(ABSENCE_WORDS),
        )
        self._controlled, self._served = words.stems_in(CONTROLLED_WORDS), words.stems_in(SERVED_WORDS)
        self._such, self._with_or_to = words.stems_in("such"), words.stems_in("with to")
        self._between = words.stems_in("between")
        self._holding, self._building = words.stems_in(HOLDING_WORDS), words.stems_in(BUILDING_WORDS)
        self._domain = words.stems_in(DOMAIN_WORDS)
        self._activity = words.stems_in(ACTIVITY)
        self._moving, self._locating = words.stems_in(MOVING_WORDS), words.stems_in(LOCATING_WORDS)
        self._to, self._own_move = words.stems_in(TO_WORDS), words.stems_in(OWN_MOVE_WORDS)
        self._bound, self._belonging = words.stems_in(BINDING_WORDS), words.stems_in(BELONGING)
        self._modifying = words.stems_in(MODIFYING_WORDS)
        self._closing = words.stems_in(CLOSING_WORDS)
        self._naming = words.stems_in(NAMING_WORDS)
        self._regulating = words.stems_in(REGULATING_WORDS)
        self._coexpressed = words.stems_in(COEXPRESSED_WORDS)
        self._targeted = words.stems_in(TARGETED_WORDS)
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
        # Without one of them nothing says that a phrase is another's, which is most often so.
        self._telling_behind = self._modifying | self._holding | self._building
        self._telling_before = frozenset().union(
            self._aside, self._absence, self._by, self._acting, self._between, self._such, self._to, self._of,
            self._served, self._with_or_to,
        )  # fmt: skip

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
                if text[end : end + 1] in self._domain:
                    continue
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
        subjects = self._subjects(text, begin, groups, last, turns)
        speaks_of = tuple(subjects[-1][2]) if subjects else last
        if own_words > 0 and not is_list:
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
                if is_denied and self._is_excepted(start, turns):
                    continue
                naming = Naming.NONE
                if (
                    subject_end <= start
                    and 0 < start - subject_end <= NAMING_REACH
                    and not self._naming.isdisjoint(text[subject_end:start])
                    and text[start - 1] not in self._of  # "encodes a coactivator of …"
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
        return speaks_of

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
        """Whether the phrase tells when something happens, who acts or is acted on, or is a part of another word."""
        further, behind = text[max(begin, start - FURTHER_REACH) : start], text[stop : stop + 1]
        if behind not in self._telling_behind and self._telling_before.isdisjoint(further):
            return not self._whose.isdisjoint(text[begin:start])
        near = further[-ACTED_REACH:]
        before = near[-1:]
        if behind in self._modifying or before in self._aside or not self._whose.isdisjoint(text[begin:start]):
            return True
        if not self._absence.isdisjoint(further) and not self._of.isdisjoint(further):
            return True
        aspect = self._aspect_of[phrase] if phrase >= 0 else 0
        if aspect == _PLACE:
            is_moved = before in self._to and (
                self._is_moved(text, begin, start) or not self._bound.isdisjoint(further)
            )
            is_partner_s = not self._between.isdisjoint(further) or not self._such.isdisjoint(further)
            if is_partner_s or _has_three(near, self._with_or_to, self._parts, self._of):
                return True  # "binds to components of the complex"
            is_built = behind in self._building or (before in self._of and near[-2:-1] in self._building)
            return is_moved or is_built or before in self._by or before in self._acting
        if aspect not in _FUNCTIONS:
            return before in self._by and not self._controlled.isdisjoint(near)
        if aspect == _FUNCTION and (behind in self._holding or self._is_served(text, near, stop)):
            return True
        return (
            before in self._by
            or not self._acting.isdisjoint(further if _names_others(near) else near)
            or not self._between.isdisjoint(near)
            or (not self._of.isdisjoint(near) and self._parts.isdisjoint(further))
        )

    def _is_served(self, text: str, near: str, stop: int) -> bool:
        """ "Essential for the polymerase", but not "needed for polymerase activity" and "belongs to the kinases"."""
        is_own = text[stop - 1] in self._activity or near[-2:-1] in self._belonging
        return near[-1:] in self._served and not is_own

    def _is_moved(self, text: str, begin: int, start: int) -> bool:
        """Whether something else is taken to the place that begins at ``start``."""
        for at in range(start - 3, max(begin, start - MOVED_REACH) - 1, -1):
            if text[at] in self._moving or (text[at] in self._locating and text[at + 1] in self._of):
                return at == begin or text[at - 1] not in self._own_move
        return False

    def _is_object(self, text: str, begin: int, start: int) -> bool:
        if start == begin:
            return False
        before = text[start - 1]
        if before in self._of_or_on:
            return self._lacking.isdisjoint(text[begin:start])
        return before in self._before_objects

    def _is_excepted(self, start: int, turns: list[tuple[int, Turn]]) -> bool:
        """ "Enhances A, but not B" and "but does not affect B" deny less than that the gene has to do with B."""
        denials = [at for at, turn in turns if turn is Turn.NEGATION and at < start]
        return bool(denials) and any(turn is Turn.BREAK and denials[-1] - 2 <= at < denials[-1] for at, turn in turns)

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
            if text[start_of_other - 2] in self._absence and text[start_of_other - 1] in self._of:
                continue
            before = text[max(begin, start - RELATING_REACH) : start]
            # "Associates with A and phosphorylates B" ties them to what does it, not to each other.
            is_tied = not self._tying.isdisjoint(before) and not (self._of | self._between).isdisjoint(before)
            if is_tied or (is_subject and not self._relating.isdisjoint(between)):
                says = "interacts" if is_tied else self._says(between)
                pairs_of = ((gene, other) for gene in members for other in others)
                if says == "regulates" and self._is_passive(between):
                    pairs_of = ((other, gene) for gene in members for other in others)
                self._add(text, pairs_of, says, start, end, turns, found)
        for start, stop, members in groups:
            if 1 < len(members) <= MOST_JOINT and not self._joint.isdisjoint(
                text[stop : min(end, stop + RELATING_REACH)]
            ):
                self._add(text, combinations(members, 2), "interacts", start, stop, turns, found)

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


_PLACE, _FUNCTION = b"CF"
_FUNCTIONS = b"Ff"
MOST_JOINT = 3
"""Genes side by side that are told to act together, at most: more are a list."""
LONGEST_LIST = 3
"""Phrases of a sentence without a verb that is known, at most: more of them are a list, which claims nothing."""
BETWEEN_REACH = 8
"""Words between two genes that are related."""
MAX_RELATED = 6
"""Genes, and pairs of them, of a sentence that are related to each other."""


def _names_others(near: str) -> bool:
    """Whether what is acted on began before: "stimulates ATPase and helicases", "regulates A and B activity"."""
    return any(one >= chr(FIRST_SYMBOL) or TURN_OF.get(one) is Turn.JOIN for one in near)


def _has_three(near: str, *sets: frozenset[str]) -> bool:
    return len(near) == len(sets) and all(one in own for one, own in zip(near, sets, strict=True))


def _start(event: tuple[int, int, int]) -> int:
    return event[1]


def _are_side_by_side(text: str, end: int, start: int) -> bool:
    return start == end or (start == end + 1 and TURN_OF.get(text[end]) is Turn.JOIN)
