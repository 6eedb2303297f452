"""The phrases that name a Gene Ontology term or a gene, as people write them.

Of a term: its name, its synonyms, and forms that prose gives them ("ATP binding" is also "binds ATP", "DNA repair"
"repair of DNA"). "Promotes X" is found as X, which whoever is annotated with its regulation has to do with. Of a gene:
its full name, the name of its family, which is the full name without numbers and letters at the end, and runs of words
that several genes' names share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

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
    "GO:0036503": (
        "ERAD", "ER-associated degradation", "ER-associated protein degradation",
        "endoplasmic reticulum-associated protein degradation",
    ),
    "GO:0000502": ("proteasome", "26S proteasome"),
    "GO:0006418": ("tRNA charging", "charges tRNA"),
    "GO:0007049": ("cell cycle",),
    "GO:0006099": ("TCA cycle", "Krebs cycle", "citric acid cycle"),
    "GO:0022904": ("electron transport chain", "respiratory chain"),
    "GO:0005739": ("mitochondria",),
    "GO:0006412": ("protein synthesis", "mRNA translation"),
    "GO:0043161": ("proteasomal degradation", "proteasomal protein degradation", "degradation by the proteasome"),
    "GO:0004674": ("serine/threonine-protein kinase", "serine/threonine kinase"),
    "GO:0004713": ("tyrosine-protein kinase", "tyrosine kinase"),
    "GO:0006366": ("RNA polymerase II transcription",),
    "GO:0003700": ("transcription factor",),
    "GO:0140110": ("transcription factor", "regulation of transcription", "transcription regulation"),
    "GO:0006355": ("transcription factor", "regulation of transcription", "transcription regulation"),
    "GO:0045892": ("transcriptional repressor", "represses transcription", "repression of transcription"),
    "GO:0061630": ("E3 ubiquitin-protein ligase", "E3 ubiquitin ligase", "ubiquitin E3 ligase", "ubiquitin ligase"),
    "GO:0004842": ("E3 ubiquitin-protein ligase", "E3 ubiquitin ligase", "ubiquitin E3 ligase", "ubiquitin ligase"),
    "GO:0005761": ("mitochondrial ribosomal protein",),
    "GO:0003735": ("ribosomal protein",),
    "GO:0005840": ("ribosomal protein",),
    "GO:0008233": ("protease",),
    "GO:0008236": ("serine protease", "serine proteinase"),
    "GO:0008234": ("cysteine protease", "cysteine proteinase"),
    "GO:0004190": ("aspartic protease", "aspartyl protease"),
    "GO:0008237": ("metalloprotease", "metalloproteinase"),
    "GO:0006353": ("transcription termination",),
    "GO:0043631": ("polyadenylation",),
    "GO:0006457": ("chaperone", "molecular chaperone"),
    "GO:0051082": ("chaperone", "molecular chaperone"),
    "GO:0060090": ("adapter protein", "adaptor protein"),
    "GO:0008270": ("zinc finger",),
    "GO:0046872": ("zinc finger",),
    "GO:0005576": ("secreted", "secreted protein"),
    "GO:0045893": (
        "transcriptional activator", "activates transcription", "activation of transcription",
        "transcriptional activation", "activator of transcription",
    ),
}  # fmt: skip
"""Ids → forms that the ontology has as RELATED or not at all. One form of several terms is true if one of them is."""
NOT_SAID = frozenset(
    {
        "GO:0007349",
        "GO:0042640",
        "GO:0042641",
        "GO:0023052",
        "GO:0040007",
        "GO:0000003",
        "GO:0003002",
        "GO:0051923",
        "GO:0009293",
    }
)
"""One word that means something else in prose: cellularization, anagen, exogen, signaling, growth, reproduction,
regionalization, sulfation ("sulfate"), transduction."""
PHASES = "GO:0044848"
"""Of this term and those below it ("S phase") no gene is said to be a part; curators may not annotate with them."""
NOT_FORMS = frozenset(
    [
        "cytochrome", "cytochrome P450", "tumor suppressor", "tumour suppressor", "G protein", "RNA polymerase II",
        "tumor necrosis factor receptor superfamily", "membrane protein", "signaling molecule", "signalling molecule",
        "memory", "pore", "viral infection", "enzyme activity", "behavior", "growth hormone", "mitotic checkpoint",
        "ribosomal RNA", "envelope",
    ]
)  # fmt: skip
"""Synonyms and shortened names that name something else in prose."""
_QUALIFIED = re.compile(r" \((?:sensu [^)]*|obsolete[^)]*)\)$")
_MIN_WORD = 6
_MAX_SHARED_WORDS = 5
_GENERAL = (
    "protein gene family member domain containing factor subunit like type associated related homolog and of the "
    "non coding rna pseudogene antisense chromosome open reading frame uncharacterized novel putative transcript "
    "interacting dependent alpha beta gamma delta with to in binding complex component specific class group light "
    "heavy chain large small cell human glycoprotein transmembrane polypeptide membrane receptor"
)
_NO_FAMILY = frozenset(_GENERAL.split())
_FUNCTION_WORDS = frozenset(
    ["of", "and", "or", "to", "in", "with", "for", "by", "on", "at", "from", "via", "the", "a", "an", "as"]
)
_ENDINGS = re.compile(
    r"[\s,-]+(?:\d+[a-z]?|[a-z]|[ivx]+|alpha|beta|gamma|delta|epsilon|zeta|eta|theta|kappa|sigma|like|homolog|"
    r"member|subunit|type|isoform|mitochondrial|cytoplasmic|cytosolic|family|variant|group|class|chain|polypeptide)$",
    re.IGNORECASE,
)


def forms_of_term(name: str, aspect: str) -> Iterator[str]:
    """A term's name or synonym, and what prose makes of it."""
    name = _QUALIFIED.sub("", name)
    for number, form in enumerate(_forms(name, aspect)):
        if number == 0 or (form not in NOT_FORMS and not _is_cut_off(form.split())):
            yield form


def _is_cut_off(words: Sequence[str]) -> bool:
    """ "response to" of "response to activity", "mediator of" of a gene's name."""
    return words[0] in _FUNCTION_WORDS or words[-1] in _FUNCTION_WORDS


def _forms(name: str, aspect: str) -> Iterator[str]:
    yield name
    words = name.split()
    if words[-1] == "activity" and (len(words) > 2 or _is_telling_word(words[0])):
        yield (bare := name.removesuffix(" activity"))
        yield from _turned(bare)
    elif (
        words[-1] == "complex"
        and not words[-2].endswith(("ase", "enzyme"))
        and (len(words) > 2 or _is_telling_word(words[0]))
    ):
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
    return word.endswith(("ase", "some", "porter")) and len(word) >= _MIN_WORD


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


def names_a_family(parts: list[str]) -> bool:
    """Whether a family's name is no other gene's: "ankyrin repeat domain containing" and "RAS related" are of many."""
    return parts[-1] not in _NO_FAMILY and sum(part not in _NO_FAMILY for part in parts) > 1


def runs_of(parts: list[str]) -> Iterator[tuple[str, ...]]:
    """Runs of two words and more of a gene's name."""
    for first in range(len(parts) - 1):
        for end in range(first + 2, min(len(parts), first + _MAX_SHARED_WORDS) + 1):
            if not _is_cut_off(parts[first:end]):
                yield tuple(parts[first:end])


def shared_runs(names: Iterable[list[str]]) -> dict[tuple[str, ...], set[int]]:
    """Run → positions of the names that hold it, of those that are telling and in two names or more."""
    found: dict[tuple[str, ...], set[int]] = {}
    for at, parts in enumerate(names):
        for run in runs_of(parts):
            found.setdefault(run, set()).add(at)
    return {run: own for run, own in found.items() if len(own) > 1 and is_telling(list(run))}
