"""From judged claims to numbers: S / (S + F + 1).

S is the weight of what is supported, F half the weight of what is not known and one and a half times that of what is
contradicted. Of each of the question's genes at most `MOST_OF_A_GENE` counts, of what ties them together, directly or
through one gene, `MOST_OF_LINKS`, and of all else, which weighs a quarter, `MOST_OF_OTHERS`: so a list of true facts
cannot outweigh false ones. Of one gene's claims a term counts once, and not beside a more special one of the same
verdict: repeating a claim, or what follows from it, changes nothing. Hedges halve a claim, hypotheses leave a quarter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from bioverify.core.outcomes import Verdict
from bioverify.verifiers.claims.extraction import Tone
from bioverify.verifiers.claims.knowledge import Kind, Knowledge

SMOOTHING = 1.0
MOST_OF_A_GENE, MOST_OF_LINKS, MOST_OF_OTHERS = 3.0, 2.0, 0.5
OTHERS_SHARE = 0.25
UNSUPPORTED_SHARE, CONTRADICTED_SHARE = 0.5, 1.5
SHARE_OF_TONE = {Tone.PLAIN: 1.0, Tone.HEDGED: 0.5, Tone.HYPOTHETICAL: 0.25}


class Judged(NamedTuple):
    """A claim and what the sources say of it. ``genes``: one, or two that it relates. ``target``: as in `Finding`."""

    genes: tuple[int, ...]
    kind: Kind
    target: int
    verdict: Verdict
    weight: float
    start: int
    end: int
    is_denied: bool
    tone: Tone


class Sums(NamedTuple):
    value: float
    precision: float
    n_claims: int


def distinct(claims: Iterable[Judged], knowledge: Knowledge) -> list[Judged]:
    """Each claim once, in its plainest form, without what follows from another one of the same verdict."""
    strongest: dict[tuple[object, ...], Judged] = {}
    for claim in claims:
        key = (claim.genes, claim.kind, claim.target, claim.verdict)
        held = strongest.get(key)
        if held is None or claim.weight > held.weight:
            strongest[key] = claim
    if len(strongest) < 2:
        return list(strongest.values())
    groups: dict[tuple[object, ...], list[Judged]] = {}
    for claim in strongest.values():
        groups.setdefault((claim.genes, claim.kind, claim.verdict), []).append(claim)
    kept: list[Judged] = []
    for (_, kind, _), own in groups.items():
        if kind is Kind.NAME:
            kept.append(max(own, key=_weight))
        elif kind is Kind.TERM and len(own) > 1:
            kept += _without_implied(own, knowledge)
        else:
            kept += own
    return kept


def _without_implied(own: Sequence[Judged], knowledge: Knowledge) -> Iterable[Judged]:
    for claim in own:
        if not any(
            other.target != claim.target
            and other.weight >= claim.weight
            and knowledge.ancestors.has(other.target, claim.target)
            for other in own
        ):
            yield claim


def sums(claims: Collection[Judged], asked: Collection[int]) -> Sums:
    """Of `distinct` claims. ``asked``: the question's genes; none: all genes count alike."""
    of_gene: dict[int, float] = {}
    links = others = wrong = everything = 0.0
    between = _between(claims, asked)
    for claim in claims:
        genes = claim.genes
        is_asked = not asked or all(gene in asked for gene in genes)
        if claim.verdict is Verdict.SUPPORTED:
            everything += claim.weight
            if len(genes) == 1 and is_asked:
                of_gene[genes[0]] = of_gene.get(genes[0], 0.0) + claim.weight
            elif is_asked or all(gene in between or gene in asked for gene in genes):
                links += claim.weight
            else:
                others += claim.weight
        else:
            share = CONTRADICTED_SHARE if claim.verdict is Verdict.CONTRADICTED else UNSUPPORTED_SHARE
            wrong += claim.weight * share * (1.0 if is_asked else OTHERS_SHARE)
    supported = sum(min(own, MOST_OF_A_GENE) for own in of_gene.values())
    supported += min(links, MOST_OF_LINKS) + min(others * OTHERS_SHARE, MOST_OF_OTHERS)
    return Sums(
        supported / (supported + wrong + SMOOTHING) if supported else 0.0,
        everything / (everything + wrong + SMOOTHING) if everything else 0.0,
        len(claims),
    )


def _between(claims: Iterable[Judged], asked: Collection[int]) -> set[int]:
    """Genes that supported claims tie to both of the question's genes."""
    tied: dict[int, set[int]] = {}
    for claim in claims:
        if len(claim.genes) == 2 and claim.verdict is Verdict.SUPPORTED and not claim.is_denied:
            for gene, other in (claim.genes, claim.genes[::-1]):
                if other in asked and gene not in asked:
                    tied.setdefault(gene, set()).add(other)
    return {gene for gene, others in tied.items() if len(others) > 1}


def _weight(claim: Judged) -> float:
    return claim.weight
