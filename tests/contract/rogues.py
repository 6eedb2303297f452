"""Verifiers that break one rule each, to see that the conformance suite notices.

Each passes calls on to an honest verifier and spoils one thing on the way.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bioverify.transport.channels import CHANNEL_OPTIONS, MAX_MESSAGE_BYTES
from bioverify.transport.refusals import Refusal, refusal_from_error, refusal_metadata
from bioverify.v1 import types_pb2, verifier_pb2, verifier_pb2_grpc
from tests.fault.rogue import LIES
from tests.fixtures.servers import VERIFIER_SERVICE, free_port

Description = verifier_pb2.DescribeResponse
Request = verifier_pb2.VerifierServiceScoreBatchRequest
Reply = verifier_pb2.VerifierServiceScoreBatchResponse
_SERVING = health_pb2.HealthCheckResponse.SERVING


class Honest(verifier_pb2_grpc.VerifierServiceServicer):
    """Says what the verifier behind it says. The others override one thing of it."""

    workers = 16
    reflects = True
    serving = ("", VERIFIER_SERVICE)

    def __init__(self, stub: verifier_pb2_grpc.VerifierServiceStub) -> None:
        self.stub = stub

    def describe(self, said: Description) -> None: ...

    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        return self.stub.ScoreBatch(request)

    def health(self) -> health_pb2_grpc.HealthServicer:
        servicer = health.HealthServicer()
        for service in ("", VERIFIER_SERVICE):
            servicer.set(service, _SERVING if service in self.serving else health_pb2.HealthCheckResponse.NOT_SERVING)
        return servicer

    def Describe(self, request, context) -> Description:  # noqa: N802
        said = self.stub.Describe(request)
        self.describe(said)
        return said

    def ScoreBatch(self, request, context) -> Reply:  # noqa: N802
        try:
            return self.ask(request, context)
        except grpc.RpcError as error:
            refuse(context, refusal_from_error(error))

    def ScoreStream(self, requests, context) -> Iterator[verifier_pb2.ScoreStreamResponse]:  # noqa: N802
        try:
            yield from self.stub.ScoreStream(requests)
        except grpc.RpcError as error:
            refuse(context, refusal_from_error(error))


def refuse(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    context.set_trailing_metadata(refusal_metadata(refusal))
    context.abort(refusal.code, refusal.message)
    raise AssertionError("abort raises")


@contextlib.contextmanager
def serving(kind: Callable[[verifier_pb2_grpc.VerifierServiceStub], Honest], honest: str) -> Iterator[str]:
    """The rogue's target."""
    with grpc.insecure_channel(honest, options=CHANNEL_OPTIONS) as channel:
        servicer = kind(verifier_pb2_grpc.VerifierServiceStub(channel))
        options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", -1)]
        server = grpc.server(ThreadPoolExecutor(servicer.workers), options=options)
        verifier_pb2_grpc.add_VerifierServiceServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(servicer.health(), server)
        if servicer.reflects:
            reflection.enable_server_reflection((VERIFIER_SERVICE, health.SERVICE_NAME), server)
        target = f"127.0.0.1:{free_port()}"
        server.add_insecure_port(target)
        server.start()
        try:
            yield target
        finally:
            server.stop(0)


def liar(spoil: Callable[[Reply], None], check: str) -> tuple[type[Honest], str]:
    """A rogue that spoils every reply that has an outcome."""

    class Liar(Honest):
        def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
            reply = super().ask(request, context)
            if reply.outcomes:
                spoil(reply)
            return reply

    Liar.__name__ = spoil.__name__.strip("_")
    return Liar, check


def scored(reply: Reply) -> Iterable[types_pb2.Scored]:
    return (outcome.scored for outcome in reply.outcomes if outcome.HasField("scored"))


def says(name: str, check: str, change: Callable[[Description], object]) -> tuple[type[Honest], str]:
    """A rogue whose description is changed."""
    return type(name, (Honest,), {"describe": lambda _, said: change(said)}), check


def value_by(name: str, check: str, number: Callable[[types_pb2.Item, Request], float]) -> tuple[type[Honest], str]:
    """A rogue whose values are made from what they must not depend on."""

    class Nosy(Honest):
        def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
            reply = super().ask(request, context)
            for item, outcome in zip(request.items, reply.outcomes, strict=True):
                if outcome.HasField("scored"):
                    outcome.scored.value = abs(math.sin(outcome.scored.value + number(item, request)))
            return reply

    Nosy.__name__ = name
    return Nosy, check


def without_fingerprint(reply: Reply) -> None:
    reply.fingerprint = ""


def unknown_component(reply: Reply) -> None:
    for one in scored(reply):
        one.components["made_up"] = 0.5


def no_belief(reply: Reply) -> None:
    for one in scored(reply):
        one.ClearField("belief")


def all_failed(reply: Reply) -> None:
    for outcome in reply.outcomes:
        outcome.failure.CopyFrom(types_pb2.Failure(reason="internal", detail="no idea"))


def zero_for_a_fault(reply: Reply) -> None:
    for outcome in reply.outcomes:
        if outcome.HasField("not_applicable"):
            outcome.scored.value = 0.5


def no_reason(reply: Reply) -> None:
    reply.outcomes[0].not_applicable.CopyFrom(types_pb2.NotApplicable())


_clock = itertools.count()


def other_evidence(reply: Reply) -> None:
    for one in scored(reply):
        one.evidence.add(text=f"asked {next(_clock)} times")


class ServesAnyName(Honest):
    def health(self) -> health_pb2_grpc.HealthServicer:
        class Yes(health_pb2_grpc.HealthServicer):
            def Check(self, request, context) -> health_pb2.HealthCheckResponse:  # noqa: N802
                return health_pb2.HealthCheckResponse(status=_SERVING)

        return Yes()


class NeverReady(Honest):
    serving = ("",)


class NeverAlive(Honest):
    serving = (VERIFIER_SERVICE,)


class NoReflection(Honest):
    reflects = False


class NoDescribe(Honest):
    def Describe(self, request, context) -> NoReturn:  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not written yet")


class RefusesEmptyBatches(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        if not request.items:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no items")
        return super().ask(request, context)


class SaysToWaitForASmallerCall(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        if len(request.items) > 64:
            refuse(context, Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many", retry_after_s=1))
        return super().ask(request, context)


class TakesAnyBytes(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        for item in request.items:
            item.completion = item.completion[:1000]
        return super().ask(request, context)


class TakesRepeatedIds(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        ids = [item.id for item in request.items]
        for number, item in enumerate(request.items):
            item.id = str(number)
        reply = super().ask(request, context)
        for item_id, outcome in zip(ids, reply.outcomes, strict=True):
            outcome.item_id = item_id
        return reply


class RefusesWithoutDetails(Honest):
    def ScoreBatch(self, request, context) -> Reply:  # noqa: N802
        try:
            return self.ask(request, context)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())


class TakesInvalidFields(Honest):
    def ScoreBatch(self, request, context) -> Reply:  # noqa: N802
        try:
            return self.ask(request, context)
        except grpc.RpcError:
            return Reply(outcomes=[types_pb2.Outcome(item_id=item.id) for item in request.items])


class KeepsEvidence(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        request.omit_evidence = False
        return super().ask(request, context)


class StreamsOtherValues(Honest):
    def ScoreStream(self, requests, context) -> Iterator[verifier_pb2.ScoreStreamResponse]:  # noqa: N802
        for reply in super().ScoreStream(requests, context):
            for one in scored(reply.batch):
                one.value /= 2
            yield reply


class StreamsOneReply(Honest):
    def ScoreStream(self, requests, context) -> Iterator[verifier_pb2.ScoreStreamResponse]:  # noqa: N802
        *_, last = super().ScoreStream(requests, context)
        yield last


class SkipsInvalidBatches(Honest):
    def ScoreStream(self, requests, context) -> Iterator[verifier_pb2.ScoreStreamResponse]:  # noqa: N802
        for request in requests:
            with contextlib.suppress(grpc.RpcError):
                yield verifier_pb2.ScoreStreamResponse(batch=self.stub.ScoreBatch(request.batch))


class NeedsTheText(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        reply = super().ask(request, context)
        for item, outcome in zip(request.items, reply.outcomes, strict=True):
            if not item.completion:
                outcome.not_applicable.CopyFrom(types_pb2.NotApplicable(reason="no_text", detail="There is no text."))
        return reply


class ParsesNoAnswer(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        for item in request.items:
            if not item.HasField("answer"):
                item.answer.problem = types_pb2.ANSWER_PROBLEM_NO_ANSWER_BLOCK
        return super().ask(request, context)


class FailsWithoutATask(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        reply = super().ask(request, context)
        for item, outcome in zip(request.items, reply.outcomes, strict=True):
            if not item.HasField("task"):
                outcome.failure.CopyFrom(types_pb2.Failure(reason="internal", detail="NoneType"))
        return reply


class DiesOfControlCharacters(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        if any("\x00" in item.completion for item in request.items):
            context.abort(grpc.StatusCode.INTERNAL, "embedded null byte")
        return super().ask(request, context)


class FailsOnLongTexts(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        reply = super().ask(request, context)
        for item, outcome in zip(request.items, reply.outcomes, strict=True):
            if len(item.completion) > 100_000:
                outcome.failure.CopyFrom(types_pb2.Failure(reason="internal", detail="too long"))
        return reply


class DiesOfOddGenes(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        if any(not item.task.differential_expression.perturbation.isprintable() for item in request.items):
            context.abort(grpc.StatusCode.INTERNAL, "no such file")
        return super().ask(request, context)


class MixesCallers(Honest):
    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        self.latest = request
        time.sleep(0.01)
        return super().ask(self.latest, context)


class OneCallAtATime(Honest):
    refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")

    def __init__(self, stub: Any) -> None:
        super().__init__(stub)
        self._turn = threading.Lock()

    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        if not self._turn.acquire(blocking=False):
            refuse(context, self.refusal)
        try:
            time.sleep(0.05)
            return super().ask(request, context)
        finally:
            self._turn.release()


class UnavailableWhenBusy(OneCallAtATime):
    refusal = Refusal(grpc.StatusCode.UNAVAILABLE, "busy", retry_after_s=0.1)


class WorksOnExpiredCalls(Honest):
    def __init__(self, stub: Any) -> None:
        super().__init__(stub)
        self._turn = threading.Lock()

    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        with self._turn:
            time.sleep(0.01 * len(request.items))
        return super().ask(request, context)


class LeaksCancelledCalls(Honest):
    in_flight = 0

    def ask(self, request: Request, context: grpc.ServicerContext) -> Reply:
        if self.in_flight + len(request.items) > 128:
            refuse(context, Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_s=0.1))
        self.in_flight += len(request.items)
        time.sleep(0.02)
        reply = super().ask(request, context)
        if context.is_active():
            self.in_flight -= len(request.items)
        return reply


_ORDER_LIES = ("wrong_ids", "swapped", "one_missing", "one_too_many", "nothing")
ROGUES: list[tuple[type[Honest], str]] = [
    *(liar(lie, "order" if name in _ORDER_LIES else "outcomes") for name, lie in LIES.items()),
    (NeverAlive, "alive"),
    (NeverReady, "ready"),
    (ServesAnyName, "health-unknown"),
    (NoReflection, "reflection"),
    (NoDescribe, "describe"),
    says("Nameless", "describe", lambda said: said.ClearField("name")),
    says("Unlimited", "describe", lambda said: said.ClearField("limits")),
    says("ReadsNothing", "describe", lambda said: said.ClearField("reads")),
    says("NoDigest", "describe", lambda said: setattr(said.artifacts[0], "digest", "latest")),
    says("NewFingerprints", "fingerprint", lambda said: setattr(said, "fingerprint", str(next(_clock)))),
    liar(without_fingerprint, "fingerprint"),
    liar(unknown_component, "outcomes"),
    liar(all_failed, "outcomes"),
    liar(no_reason, "outcomes"),
    says("HoldsNoBelief", "outcomes", lambda said: setattr(said, "holds_belief", False)),
    liar(no_belief, "scores"),
    (RefusesEmptyBatches, "empty"),
    says("SaysThatItTakesMore", "full", lambda said: setattr(said.limits, "max_items", 96)),
    says("SaysThatItTakesLess", "too-many-items", lambda said: setattr(said.limits, "max_items", 32)),
    (SaysToWaitForASmallerCall, "too-many-items"),
    (TakesAnyBytes, "too-many-bytes"),
    (TakesRepeatedIds, "duplicates"),
    (RefusesWithoutDetails, "duplicates"),
    (RefusesWithoutDetails, "invalid"),
    (TakesInvalidFields, "invalid"),
    value_by("NormalisesOverTheBatch", "batching", lambda _, request: len(request.items)),
    (KeepsEvidence, "evidence"),
    (StreamsOtherValues, "stream"),
    (StreamsOneReply, "stream"),
    (SkipsInvalidBatches, "stream-invalid"),
    value_by("Moody", "deterministic", lambda *_: next(_clock)),
    liar(other_evidence, "deterministic"),
    value_by("ReadsTheGroup", "never-read", lambda item, _: len(item.group_id)),
    value_by("ReadsThePrompt", "never-read", lambda item, _: len(item.prompt)),
    value_by("ReadsTheId", "never-read", lambda item, _: len(item.id)),
    value_by("ReadsTheText", "reads", lambda item, _: len(item.completion)),
    value_by("ReadsThePromptForm", "reads", lambda item, _: item.prompt_form),
    value_by("ReadsTheParseMode", "reads", lambda _, request: request.parse_mode),
    says("HidesThatItReadsTheAnswer", "reads", lambda said: said.reads.remove(verifier_pb2.READ_FIELD_ANSWER)),
    says("HidesThatItReadsTheTask", "reads-enough", lambda said: said.reads.remove(verifier_pb2.READ_FIELD_TASK)),
    (NeedsTheText, "reads-enough"),
    (ParsesNoAnswer, "answers"),
    liar(zero_for_a_fault, "other-kinds"),
    (FailsWithoutATask, "no-task"),
    (DiesOfControlCharacters, "junk-texts"),
    (FailsOnLongTexts, "junk-texts"),
    (DiesOfOddGenes, "junk-names"),
    (MixesCallers, "concurrency"),
    (OneCallAtATime, "in-flight"),
    (UnavailableWhenBusy, "in-flight"),
    (WorksOnExpiredCalls, "deadline"),
    (LeaksCancelledCalls, "cancel"),
]
"""Each with the check that has to catch it."""
