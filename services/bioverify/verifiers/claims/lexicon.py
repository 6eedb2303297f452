"""The phrases that name a Gene Ontology term or a gene, as people write them.

Of a term: its name, its synonyms, and forms that prose gives them ("ATP binding" is also "binds ATP", "DNA repair"
"repair of DNA"). "Promotes X" is found as X, which whoever is annotated with its regulation has to do with. Of a gene:
its full name, the name of its family, which is the full name without numbers and letters at the end, and runs of words
that several genes' names share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

SCOPES = frozenset({"EXACT", "NARROW", "RELATED"})
"""Of a synonym: what of it is taken for the term. BROAD ones name more than the term."""
SHORT_FORMS = {
    "GO:0005783": ("ER", "endoplasmic reticulum"),
    "GO:0005794": ("Golgi", "Golgi complex"),
    "GO:0030968": ("UPR", "unfolded protein response", "ER unfolded protein response"),
    "GO:0034976": ("ER stress", "ER stress response"),
    "GO:0140467": ("ISR", "integrated stress response"),
    "GO:0000184": ("NMD", "nonsense-mediated decay"),
    "GO:0006119": ("OXPHOS",),
    "GO:0036503": ("ERAD", "ER-associated degradation"),
    "GO:0000502": ("proteasome", "26S proteasome"),
    "GO:0006418": ("tRNA charging", "charges tRNA"),
    "GO:0007049": ("cell cycle",),
    "GO:0006099": ("TCA cycle", "Krebs cycle", "citric acid cycle"),
    "GO:0022904": ("electron transport chain", "respiratory chain"),
    "GO:0005739": ("mitochondria",),
    "GO:0006412": ("protein synthesis", "mRNA translation"),
}
"""Ids → forms that the ontology has as RELATED or not at all."""
NOT_SAID = frozenset({"GO:0007349", "GO:0042640", "GO:0042641", "GO:0023052", "GO:0040007", "GO:0000003"})
"""One word that means something else in prose: cellularization, anagen, exogen, signaling, growth, reproduction."""
_QUALIFIED = re.compile(r" \((?:sensu [^)]*|obsolete[^)]*)\)$")
_MIN_WORD = 6
_MAX_SHARED_WORDS = 5
_GENERAL = (
    "protein gene family member domain containing factor subunit like type associated related homolog and of the "
    "non coding rna pseudogene antisense chromosome open reading frame uncharacterized novel putative transcript "
    "interacting dependent alpha beta gamma delta with to in binding complex component specific class group light "
    "heavy chain large small cell human"
)
_NO_FAMILY = frozenset(_GENERAL.split())
_ENDINGS = re.compile(
    r"[\s,-]+(?:\d+[a-z]?|[a-z]|[ivx]+|alpha|beta|gamma|delta|epsilon|zeta|eta|theta|kappa|sigma|like|homolog|"
    r"member|subunit|type|isoform|mitochondrial|cytoplasmic|cytosolic|family|variant|group|class|chain|polypeptide)$",
    re.IGNORECASE,
)


def forms_of_term(name: str, aspect: str) -> Iterator[str]:
    """A term's name or synonym, and what prose makes of it."""
    name = _QUALIFIED.sub("", name)
    yield name
    words = name.split()
    if words[-1] == "activity" and (len(words) > 2 or _is_telling_word(words[0])):
        yield (bare := name.removesuffix(" activity"))
        yield from _turned(bare)
    elif words[-1] == "complex" and (len(words) > 2 or _is_telling_word(words[0])):
        yield name.removesuffix(" complex")
    elif words[-1] == "binding" and len(words) > 1:
        bound = name.removesuffix(" binding")
        yield from (f"{verb} {bound}" for verb in ("binds", "binds to", "bound to"))
    elif words[-1] == "process" and words[-2:-1] == ["biosynthetic"]:
        made = " ".join(words[:-2])
        yield from (f"{made} biosynthesis", f"{made} synthesis", f"synthesis of {made}", f"biosynthesis of {made}")
    elif words[-1] == "process" and words[-2:-1] == ["metabolic"]:
        yield from (f"{' '.join(words[:-2])} metabolism", f"metabolism of {' '.join(words[:-2])}")
    elif words[-1] == "process" and words[-2:-1] == ["catabolic"]:
        lost = " ".join(words[:-2])
        yield from (f"{lost} {how}" for how in ("catabolism", "degradation", "breakdown"))
        yield from (f"{how} of {lost}" for how in ("catabolism", "degradation", "breakdown"))
    else:
        yield from _turned(name)
    if aspect == "P" and name.startswith("cellular response to "):
        yield name.removeprefix("cellular ")


def _is_telling_word(word: str) -> bool:
    """ "ligase activity" is a ligase, and a proteasome a complex; a receptor may be anything."""
    return word.endswith(("ase", "some")) and len(word) >= _MIN_WORD


def _turned(name: str) -> Iterator[str]:
    """ "DNA repair" ↔ "repair of DNA"."""
    words = name.split()
    if "of" in words:
        at = words.index("of")
        if at == 1 and len(words) <= 4 and not {"to", "in", "by", "from", "via", "involved"} & set(words):
            yield " ".join([*words[at + 1 :], words[0]])
    elif 2 <= len(words) <= 4 and not {"to", "in", "by", "from", "via", "into", "and", "or"} & set(words):
        yield f"{words[-1]} of {' '.join(words[:-1])}"


def family_of(name: str) -> str:
    """A gene's full name without numbers, letters and the like at its end."""
    while True:
        shorter = _ENDINGS.sub("", name)
        if shorter == name or not shorter:
            return name
        name = shorter


def is_telling(parts: list[str]) -> bool:
    """Whether words of a gene's name tell it from any gene: one that is long, or two that are not general."""
    telling = [part for part in parts if part not in _NO_FAMILY and not part.isdigit() and len(part) > 2]
    return bool(telling) and (len(parts) > 1 or len(parts[0]) >= _MIN_WORD)


def runs_of(parts: list[str]) -> Iterator[tuple[str, ...]]:
    """Runs of two words and more of a gene's name."""
    for first in range(len(parts) - 1):
        for end in range(first + 2, min(len(parts), first + _MAX_SHARED_WORDS) + 1):
            yield tuple(parts[first:end])


def shared_runs(names: Iterable[list[str]]) -> dict[tuple[str, ...], set[int]]:
    """Run → positions of the names that hold it, of those that are telling and in two names or more."""
    found: dict[tuple[str, ...], set[int]] = {}
    for at, parts in enumerate(names):
        for run in runs_of(parts):
            found.setdefault(run, set()).add(at)
    return {run: own for run, own in found.items() if len(own) > 1 and is_telling(list(run))}
