"""Checks of what models really write. Whatever it is, it is one item's matter: the others' scores stay as they are."""

from __future__ import annotations

from bioverify.conformance import probes
from bioverify.conformance.outcomes import difference, problem_of
from bioverify.conformance.peer import Broken, Peer, changed, numbered
from bioverify.core.tasks import TASKS
from bioverify.v1 import types_pb2
from bioverify.wire.tasks import task_to_wire


def outlives_junk_texts(peer: Peer) -> None:
    texts = probes.junk_texts(peer.described.limits.max_bytes // 4)
    for case, text in texts.items():
        _must_stand(
            peer,
            case,
            [changed(peer.probes[0], completion=text), changed(peer.probes[-1], completion=text, answer=None)],
        )


def outlives_junk_names(peer: Peer) -> None:
    for name in probes.JUNK_NAMES:
        tasks = [
            make.about(*names)
            for make in TASKS.values()
            for names in ((name, "TRIB3", "k562"), ("AARS", name, "k562"), ("AARS", "TRIB3", name))
        ]
        _must_stand(
            peer, f"a gene or cell line called {name!r}", [changed(peer.probes[0], task=task_to_wire(t)) for t in tasks]
        )


def _must_stand(peer: Peer, case: str, junk: list[types_pb2.Item]) -> None:
    """Junk among good items: whole outcomes for all, no fault for the junk, nothing new for the good ones."""
    size = max(1, peer.described.limits.max_items)
    items = numbered([*junk[: max(1, size - 1)], *peer.probes[:2]][:size])
    outcomes = peer.score(items)
    for index, outcome in enumerate(outcomes):
        if problem := problem_of(outcome, peer.described):
            raise Broken(f"{case}: {problem}")
        if index < len(junk) and outcome.HasField("failure"):
            detail = f"{outcome.failure.reason}: {outcome.failure.detail}"
            raise Broken(f"{case}: failure ({detail[:200]}); such a text is to be scored, or not applicable")
    for outcome, expected in zip(outcomes[len(junk) :], peer.alone, strict=False):
        if problem := difference(expected, outcome):
            raise Broken(f"{case}: another item of the call changed: {problem}")
