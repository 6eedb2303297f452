"""Checks of what the verifier says that it reads. The aggregator sends only that and remembers the answer by it, so a
verifier that looks elsewhere gives one item's score to another."""

from __future__ import annotations

from collections.abc import Callable

from bioverify.conformance import probes
from bioverify.conformance.outcomes import difference, must_agree, problem_of
from bioverify.conformance.peer import Broken, NotShown, Peer, changed, numbered
from bioverify.core.tasks import CoExpression, DifferentialExpression, TaskKind
from bioverify.core.verifier import Reads
from bioverify.v1 import types_pb2
from bioverify.wire.tasks import TASK_KINDS, reads_from_wire, task_from_wire, task_kind_from_wire, task_to_wire

_SYSTEM = types_pb2.Message(role="system", content="Write <gene_info> </gene_info> first.")
_QUESTION = types_pb2.Message(role="user", content=CoExpression("BRCA1", "TP53").question)
_OTHER_TEXT = "<think>BRCA1 repairs DNA.</think> <answer>no</answer> <answer>yes</answer>"
_OTHER_TASK = task_to_wire(DifferentialExpression("BRCA1", "TP53", "rpe1"))

Change = Callable[[types_pb2.Item], types_pb2.Item]


def _reads(peer: Peer) -> Reads:
    return reads_from_wire(list(peer.described.reads))


def is_deterministic(peer: Peer) -> None:
    if not peer.described.deterministic:
        raise NotShown("Describe says deterministic: false")
    first = list(peer.reply(peer.probes).outcomes)
    for _ in range(3):
        for index, (one, other) in enumerate(zip(first, peer.reply(peer.probes).outcomes, strict=True)):
            if one != other:
                raise Broken(f"probe {index}, asked again: {difference(one, other) or 'other evidence or wording'}")


def ignores_what_is_never_read(peer: Peer) -> None:
    changes: dict[str, Change] = {
        "another group_id": lambda item: changed(item, group_id="group"),
        "a source": lambda item: changed(item, source="experimental"),
        "another prompt beside the task": lambda item: (
            changed(item, prompt=[_SYSTEM, _QUESTION]) if item.HasField("task") else item
        ),
        "a field that the contract does not know yet": _with_unknown_field,
    }
    _must_not_matter(peer, changes)
    renamed = [changed(item, id=f"other {item.id}") for item in peer.probes]
    must_agree(peer.score(renamed), peer.alone, "with another id")


def _with_unknown_field(item: types_pb2.Item) -> types_pb2.Item:
    later = types_pb2.Item.FromString(item.SerializeToString() + b"\xc2\x3e\x03new")  # field 1000, a string
    assert later.ByteSize() > item.ByteSize()
    return later


def ignores_what_it_does_not_read(peer: Peer) -> None:
    reads = _reads(peer)
    changes: dict[str, Change] = {}
    if Reads.TASK not in reads:
        changes["another task"] = lambda item: changed(item, task=_OTHER_TASK)
        changes["no task"] = lambda item: changed(item, task=None)
    if Reads.ANSWER not in reads:
        changes["another answer"] = _with_opposite_answer
        changes["no answer field"] = lambda item: changed(item, answer=None)
    if Reads.COMPLETION not in reads:
        changes["another completion"] = lambda item: changed(item, completion=_OTHER_TEXT)
        changes["no completion"] = lambda item: changed(item, completion=None)
        changes["another prompt form"] = lambda item: changed(item, prompt_form=types_pb2.PROMPT_FORM_GENE_INFO)
    # Without the answer's own field it would be parsed from what is changed here.
    _must_not_matter(peer, changes)
    if Reads.COMPLETION not in reads:
        answered = [item for item in peer.probes if item.HasField("answer")]
        found = peer.score(answered, parse_mode=types_pb2.PARSE_MODE_RBIO_DEMO)
        must_agree(found, peer.score(answered), "in another parse mode, with the answer given")


def _with_opposite_answer(item: types_pb2.Item) -> types_pb2.Item:
    return changed(item, answer=types_pb2.Answer(affirms=not item.answer.affirms))


def needs_only_what_it_reads(peer: Peer) -> None:
    reads = _reads(peer)

    def stripped(item: types_pb2.Item) -> types_pb2.Item:
        reads_text = Reads.COMPLETION in reads
        return changed(
            item,
            **({} if Reads.TASK in reads else {"task": None}),
            **({} if Reads.ANSWER in reads else {"answer": None}),
            **({} if reads_text else {"completion": None, "prompt_form": None}),
        )

    _must_not_matter(peer, {"with no other field than it reads": stripped})


def _must_not_matter(peer: Peer, changes: dict[str, Change]) -> None:
    for case, change in changes.items():
        found = peer.score([change(item) for item in peer.probes])
        must_agree(found, peer.alone, f"unchanged and with {case.removeprefix('with ')}")


def parses_answers(peer: Peer) -> None:
    if Reads.ANSWER not in _reads(peer):
        raise NotShown("it does not read the answer")
    kinds = [task_kind_from_wire(kind) for kind in peer.described.task_kinds]
    asked = [
        item
        for item in peer.probes
        if item.answer.WhichOneof("reading") == "affirms" and task_from_wire(item.task).kind in kinds
    ]
    if not asked:
        raise NotShown("no item has a yes or no to it")
    told, left_out = [], []
    for item in asked:
        kind = task_from_wire(item.task).kind
        for affirms in (True, False):
            text = f"<think>So.</think> {probes.answer_block(kind, affirms)}"
            given = types_pb2.Answer(affirms=affirms)
            told.append(changed(item, completion=text, answer=given))
            left_out.append(changed(item, completion=text, answer=None))
    size = max(1, peer.described.limits.max_items)
    told, left_out = numbered(told[:size]), numbered(left_out[:size])
    must_agree(peer.score(left_out), peer.score(told), "with the answer given and with it left to be parsed")


def knows_other_kinds(peer: Peer) -> None:
    if Reads.TASK not in _reads(peer):
        raise NotShown("it does not read the task")
    others = [kind for kind in TaskKind if TASK_KINDS[kind] not in peer.described.task_kinds]
    if not others:
        raise NotShown("it answers every kind of task that there is")
    for kind in others:
        for task in probes.tasks_of(kind)[:1]:
            [outcome] = peer.score([probes.probe(task, affirms=True)])
            if not outcome.HasField("not_applicable"):
                raise Broken(f"a {kind} task, which Describe does not list, came back {outcome.WhichOneof('result')}")


def takes_items_without_a_task(peer: Peer) -> None:
    """The aggregator reads tasks off prompts; a verifier may do so too, or say that it has nothing to say."""
    bare = types_pb2.Item(id="bare", completion="<think>Why?</think> <answer>yes</answer>")
    asked = changed(bare, prompt=[types_pb2.Message(role="user", content="Why is the sky blue?")])
    for item, case in ((bare, "neither task nor prompt"), (asked, "a prompt that asks nothing known")):
        [outcome] = peer.score([item])
        if problem := problem_of(outcome, peer.described):
            raise Broken(f"{case}: {problem}")
        if outcome.HasField("failure"):
            raise Broken(f"{case}: failure {outcome.failure.reason}; nothing to say of an item is no fault")
    for index, item in enumerate(peer.probes):
        if not item.HasField("task"):
            continue
        question = types_pb2.Message(role="user", content=task_from_wire(item.task).question)
        [outcome] = peer.score([changed(item, task=None, prompt=[question])])
        if (problem := difference(peer.alone[index], outcome)) and not outcome.HasField("not_applicable"):
            raise Broken(f"probe {index}, its task given and left in the prompt: {problem}")
