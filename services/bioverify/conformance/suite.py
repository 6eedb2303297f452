"""All checks, in the order in which a person would mend what they find, and how they are run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import grpc

from bioverify.conformance import batches, calls, reading, service, texts
from bioverify.conformance.peer import Broken, NotShown, Peer
from bioverify.errors import BioverifyError
from bioverify.transport.addresses import why_no_target
from bioverify.transport.tls import TlsIdentity
from bioverify.v1 import types_pb2

CONNECT_S = 10.0

_CONTRACT = "proto/bioverify/v1/verifier.proto"
_TYPES = "proto/bioverify/v1/types.proto"
_HEALTH = "grpc.health.v1, Health.Check"


class Unreachable(BioverifyError):  # noqa: N818 - the way it reads where it is caught
    """Nobody answers at the target."""


class Status(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_SHOWN = "not shown"


@dataclass(frozen=True, slots=True)
class Check:
    """``says``: the rule. ``where``: the place in the contract that asks for it. ``mend``: what to do if it is broken.

    ``holds`` raises Broken or NotShown with what it found.
    """

    name: str
    says: str
    where: str
    mend: str
    holds: Callable[[Peer], None]


@dataclass(frozen=True, slots=True)
class Result:
    check: Check
    status: Status
    found: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        check = {key: value for key, value in asdict(self.check).items() if key != "holds"}
        return {**check, "status": self.status, "found": self.found, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class Report:
    """``name`` and ``fingerprint``: what the verifier says it is, empty if it does not."""

    target: str
    name: str
    fingerprint: str
    results: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.status is Status.FAILED)

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "passed": not self.failed,
            "checks": [result.as_json() for result in self.results],
        }


CHECKS = (
    Check(
        "alive",
        'Health of "" is SERVING.',
        _HEALTH,
        'Add the standard health service and set "" to SERVING as soon as the process listens.',
        service.says_alive,
    ),
    Check(
        "ready",
        "Health of bioverify.v1.VerifierService is SERVING once the verifier can score.",
        _HEALTH,
        "Set the status by the service's full name; NOT_SERVING while data are being opened.",
        service.says_ready,
    ),
    Check(
        "health-unknown",
        "Health of a service that there is not is NOT_FOUND.",
        _HEALTH,
        "Answer for the names that you serve only, as the published health packages do.",
        service.knows_no_other_health,
    ),
    Check(
        "reflection",
        "Reflection lists the service and shows the contract.",
        "grpc.reflection.v1alpha, ServerReflection",
        "Add the reflection service over the unchanged proto files.",
        service.reflects,
    ),
    Check(
        "describe",
        "Describe is complete: name, version, fingerprint, kinds, reads, limits, digests.",
        f"{_CONTRACT}, DescribeResponse",
        "Fill the fields that are named; each has its meaning in the contract.",
        service.describes_itself,
    ),
    Check(
        "fingerprint",
        "Describe is the same each time, and every reply carries its fingerprint.",
        f"{_CONTRACT}, DescribeResponse.fingerprint",
        "Compute it once, when the data are open: a hash of code version, artifact digests and parameters.",
        service.keeps_its_fingerprint,
    ),
    Check(
        "order",
        "One outcome per item, in order, under the item's id.",
        f"{_CONTRACT}, VerifierService.ScoreBatch; {_TYPES}, Outcome.item_id",
        "Make the outcomes by going through the items, and echo each id unchanged.",
        batches.keeps_order_and_ids,
    ),
    Check(
        "outcomes",
        "Each outcome is one of three; values and beliefs lie in [0, 1], components are finite and described.",
        f"{_TYPES}, Outcome and Scored; {_CONTRACT}, DescribeResponse.components",
        "Say not_applicable with a reason if there is no number; never NaN, never a number for a fault.",
        batches.gives_whole_outcomes,
    ),
    Check(
        "scores",
        "Some item is scored, with a belief if Describe says that one is held.",
        f"{_CONTRACT}, DescribeResponse.task_kinds and holds_belief",
        "Give the suite items that the verifier knows: --items FILE.jsonl.",
        batches.scores_something,
    ),
    Check(
        "empty",
        "A call without items is answered without outcomes.",
        f"{_CONTRACT}, VerifierServiceScoreBatchRequest.items",
        "An empty list is a valid one: answer with no outcomes and the fingerprint.",
        batches.answers_an_empty_batch,
    ),
    Check(
        "full",
        "A call of max_items is taken.",
        f"{_CONTRACT}, Limits.max_items",
        "Lower max_items to what one call may really hold, or raise the server's limit on message size.",
        batches.takes_a_full_batch,
    ),
    Check(
        "too-many-items",
        "A call of more than max_items is RESOURCE_EXHAUSTED, without RetryInfo.",
        f"{_CONTRACT}, Limits",
        "Count the items before any work; waiting does not help, so give no RetryInfo.",
        batches.refuses_too_many_items,
    ),
    Check(
        "too-many-bytes",
        "A message above max_bytes is RESOURCE_EXHAUSTED.",
        f"{_CONTRACT}, Limits.max_bytes",
        "Set the server's limit on received messages to max_bytes.",
        batches.refuses_too_many_bytes,
    ),
    Check(
        "duplicates",
        "An id that stands twice is INVALID_ARGUMENT, with the field in BadRequest.",
        f"{_TYPES}, Item.id",
        "Refuse the call with google.rpc.BadRequest in grpc-status-details-bin, field items[2].id.",
        batches.refuses_repeated_ids,
    ),
    Check(
        "invalid",
        "What breaks a field's rule is INVALID_ARGUMENT, with the field in BadRequest.",
        f"{_TYPES}, (buf.validate.field) and (buf.validate.oneof)",
        "Check the rules written beside the fields, with protovalidate if your language has it.",
        batches.refuses_invalid_fields,
    ),
    Check(
        "batching",
        "An item's outcome is the same alone, in any call and in any order.",
        f"{_CONTRACT}, VerifierService.ScoreBatch",
        "Score each item by itself; normalise over nothing that the caller happened to send along.",
        batches.scores_the_same_in_any_batch,
    ),
    Check(
        "evidence",
        "omit_evidence leaves the evidence out and nothing else.",
        f"{_CONTRACT}, VerifierServiceScoreBatchRequest.omit_evidence",
        "Leave Scored.evidence empty if it is set.",
        batches.leaves_evidence_out,
    ),
    Check(
        "stream",
        "ScoreStream answers batch by batch, in order, as ScoreBatch does.",
        f"{_CONTRACT}, VerifierService.ScoreStream",
        "Let both methods call the same function, and write one reply per request.",
        batches.streams_the_same,
    ),
    Check(
        "stream-invalid",
        "A stream with an invalid batch ends with INVALID_ARGUMENT that names the field.",
        f"{_CONTRACT}, ScoreStreamRequest.batch",
        "Check each batch as ScoreBatch does; field paths begin with batch.",
        batches.refuses_invalid_batches_of_a_stream,
    ),
    Check(
        "deterministic",
        "The same input gives the same output, if Describe says so.",
        f"{_CONTRACT}, DescribeResponse.deterministic",
        "Fix seeds and the order of sums, or say deterministic: false.",
        reading.is_deterministic,
    ),
    Check(
        "never-read",
        "Ids, groups, sources, prompts beside a task and unknown fields change nothing.",
        f"{_CONTRACT}, ReadField",
        "Look at task, answer and completion only.",
        reading.ignores_what_is_never_read,
    ),
    Check(
        "reads",
        "Fields that are not in reads change nothing.",
        f"{_CONTRACT}, DescribeResponse.reads",
        "Add the field to reads, or do not look at it: outcomes are remembered by what is read.",
        reading.ignores_what_it_does_not_read,
    ),
    Check(
        "reads-enough",
        "Fields that are not in reads are not needed: the aggregator does not send them.",
        f"{_CONTRACT}, ReadField",
        "Add the field to reads.",
        reading.needs_only_what_it_reads,
    ),
    Check(
        "answers",
        "An answer that is left out is parsed from the completion.",
        f"{_TYPES}, Item.answer",
        "One closed answer block with one of the two words: yes or no; increase or decrease for a direction.",
        reading.parses_answers,
    ),
    Check(
        "other-kinds",
        "A task of a kind that Describe does not list is not_applicable.",
        f"{_CONTRACT}, DescribeResponse.task_kinds",
        'Answer not_applicable with reason "other_task_kind".',
        reading.knows_other_kinds,
    ),
    Check(
        "no-task",
        "Without a task an item is scored, read off its prompt or not_applicable, and no fault.",
        f"{_TYPES}, Item.task",
        'Answer not_applicable with reason "unrecognised_question".',
        reading.takes_items_without_a_task,
    ),
    Check(
        "junk-texts",
        "Completions of any kind are one item's matter: control characters, a megabyte, HTML, nested tags.",
        f"{_CONTRACT}, VerifierService.ScoreBatch: a bad item never fails the batch",
        "Score such a text or say not_applicable; look for patterns that take quadratic time.",
        texts.outlives_junk_texts,
    ),
    Check(
        "junk-names",
        "Genes and cell lines of any name are one item's matter.",
        f"{_CONTRACT}, VerifierService.ScoreBatch: a bad item never fails the batch",
        'Answer not_applicable, for instance with reason "unknown_gene".',
        texts.outlives_junk_names,
    ),
    Check(
        "concurrency",
        "Callers at once get their own outcomes, the same as alone.",
        f"{_CONTRACT}, VerifierService.ScoreBatch",
        "Keep no state between calls that is not behind a lock.",
        calls.keeps_callers_apart,
    ),
    Check(
        "in-flight",
        "What exceeds max_items_in_flight is served, or RESOURCE_EXHAUSTED with RetryInfo.",
        f"{_CONTRACT}, Limits",
        "Count items in flight and refuse at once, with google.rpc.RetryInfo.",
        calls.refuses_what_does_not_fit,
    ),
    Check(
        "deadline",
        "Calls that expired in the queue are not worked on.",
        "gRPC deadlines (grpc-timeout)",
        "Look at the call's deadline when its turn comes, before the work.",
        calls.drops_expired_calls,
    ),
    Check(
        "cancel",
        "Cancelled calls give their place back.",
        f"{_CONTRACT}, Limits.max_items_in_flight",
        "Count a call down when its work ends, also if the caller has left.",
        calls.forgets_cancelled_calls,
    ),
)


def run(
    target: str,
    probe_items: Sequence[types_pb2.Item] = (),
    *,
    tls: TlsIdentity | None = None,
    checks: Sequence[Check] = CHECKS,
    on_result: Callable[[Result], None] = lambda _: None,
) -> Report:
    """Ask the service at ``target``, as ``tls`` if it is given. ``on_result`` is called after each check.

    Raises Unreachable, and TlsError if the files of ``tls`` are unusable.
    """
    if problem := why_no_target(target):
        raise Unreachable(problem)
    peer = Peer(target, probe_items, tls)
    try:
        grpc.channel_ready_future(peer.channel).result(CONNECT_S)
        results = []
        for check in checks:
            results.append(_try(check, peer))
            on_result(results[-1])
        try:
            name, fingerprint = peer.described.name, peer.described.fingerprint
        except NotShown:
            name = fingerprint = ""
    except grpc.FutureTimeoutError as error:
        raise Unreachable(f"nobody answers at {target} within {CONNECT_S:g} s") from error
    finally:
        peer.close()
    return Report(target, name, fingerprint, tuple(results))


def _try(check: Check, peer: Peer) -> Result:
    started = time.monotonic()
    status, found = Status.PASSED, ""
    try:
        check.holds(peer)
    except Broken as broken:
        status, found = Status.FAILED, str(broken)
    except NotShown as not_shown:
        status, found = Status.NOT_SHOWN, str(not_shown)
    except grpc.RpcError as error:
        status, found = (
            Status.FAILED,
            f"a call that should be answered ended with {error.code().name}: {error.details()}",
        )
    return Result(check, status, found, time.monotonic() - started)
