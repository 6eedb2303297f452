"""The service under test as the checks see it: calls with a time limit, its description, what it is asked about."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import grpc

from bioverify.conformance import probes
from bioverify.errors import BioverifyError
from bioverify.transport.channels import CHANNEL_OPTIONS
from bioverify.transport.refusals import Refusal, refusal_from_error
from bioverify.transport.tls import TlsIdentity, open_channel
from bioverify.v1 import types_pb2, verifier_pb2, verifier_pb2_grpc

SERVICE = verifier_pb2.DESCRIPTOR.services_by_name["VerifierService"].full_name
CALL_S = 60.0
DESCRIBE_S = 10.0
# A full call is a trainer's step; beyond this many items the rule is the same and only the wait is longer.
MOST_ITEMS = 20_000

Request = verifier_pb2.VerifierServiceScoreBatchRequest
Reply = verifier_pb2.VerifierServiceScoreBatchResponse


class Broken(BioverifyError):  # noqa: N818 - a finding, not an error of the suite
    """The rule is broken; the message says what was found."""


class NotShown(BioverifyError):  # noqa: N818
    """The rule can be neither shown nor refuted here; the message says why."""


class Peer:
    """``probes``: complete items, with task, answer and completion. Close it after use."""

    def __init__(self, target: str, probe_items: Sequence[types_pb2.Item], tls: TlsIdentity | None = None) -> None:
        self._options = [
            *((key, value) for key, value in CHANNEL_OPTIONS if key != "grpc.max_send_message_length"),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self.target = target
        self._shown = tls.read() if tls else None
        self.channel = self.new_channel()
        self.stub = verifier_pb2_grpc.VerifierServiceStub(self.channel)
        self._given = probe_items

    def new_channel(self) -> grpc.Channel:
        return open_channel(self.target, self._options, self._shown)

    def close(self) -> None:
        self.channel.close()

    @cached_property
    def _description(self) -> verifier_pb2.DescribeResponse | grpc.RpcError:
        try:
            return self.stub.Describe(verifier_pb2.DescribeRequest(), timeout=DESCRIBE_S)
        except grpc.RpcError as error:
            return error

    @property
    def described(self) -> verifier_pb2.DescribeResponse:
        """Raises NotShown if Describe fails, which is the finding of one check and not of all."""
        if isinstance(self._description, grpc.RpcError):
            raise NotShown("Describe does not answer")
        return self._description

    @cached_property
    def probes(self) -> list[types_pb2.Item]:
        """As many as one call may hold: those that were given, else some of every kind that the verifier answers."""
        items = list(self._given) or probes.for_kinds(self.described.task_kinds)
        return numbered(items[: max(1, self.described.limits.max_items)])

    @cached_property
    def alone(self) -> list[types_pb2.Outcome]:
        """What it says of each probe by itself: what all else is compared with."""
        return [self.score([item])[0] for item in self.probes]

    @cached_property
    def full_size(self) -> int:
        """Items of a full call: as many as it says it takes, within its bytes."""
        limits = self.described.limits
        item_bytes = max(item.ByteSize() for item in self.probes) + 8
        return max(1, min(limits.max_items, limits.max_bytes // (2 * item_bytes), MOST_ITEMS))

    def filled(self, size: int) -> list[types_pb2.Item]:
        """``size`` items: the probes, over and over, under ids of their own."""
        return numbered(itertools.islice(itertools.cycle(self.probes), size))

    def reply(
        self, items: Sequence[types_pb2.Item], *, timeout_s: float = CALL_S, omit_evidence: bool = False
    ) -> Reply:
        request = Request(items=items, omit_evidence=omit_evidence)
        return self.stub.ScoreBatch(request, timeout=timeout_s)

    def score(
        self,
        items: Sequence[types_pb2.Item],
        *,
        parse_mode: types_pb2.ParseMode.ValueType = types_pb2.PARSE_MODE_UNSPECIFIED,
    ) -> list[types_pb2.Outcome]:
        """One outcome per item. Raises Broken if there are more or fewer."""
        reply = self.stub.ScoreBatch(Request(items=items, parse_mode=parse_mode), timeout=CALL_S)
        return matched(reply, items)

    def start(self, items: Sequence[types_pb2.Item], timeout_s: float = CALL_S) -> Any:
        """The call under way: gRPC's own object, which is future, call and error in one."""
        return self.stub.ScoreBatch.future(Request(items=items), timeout=timeout_s)


def matched(reply: Reply, items: Sequence[types_pb2.Item]) -> list[types_pb2.Outcome]:
    """The outcomes, if there is one per item."""
    if len(reply.outcomes) != len(items):
        raise Broken(f"{len(reply.outcomes)} outcomes for {len(items)} items")
    return list(reply.outcomes)


def refusal_of(call: Callable[[], object], *, expected: grpc.StatusCode, case: str) -> Refusal:
    """How the call was refused. Raises Broken if it was not, or with another status."""
    try:
        call()
    except grpc.RpcError as error:
        refusal = refusal_from_error(error)
        if refusal.code is not expected:
            raise Broken(f"{case}: {refusal.code.name} ({refusal.message}) in place of {expected.name}") from error
        return refusal
    raise Broken(f"{case}: accepted; expected {expected.name}")


def numbered(items: Sequence[types_pb2.Item] | itertools.islice[types_pb2.Item]) -> list[types_pb2.Item]:
    """Copies under the ids "0", "1", …"""
    return [changed(item, id=str(number)) for number, item in enumerate(items)]


def changed(item: types_pb2.Item, **fields: object) -> types_pb2.Item:
    """A copy with these fields; None clears one."""
    copy = types_pb2.Item()
    copy.CopyFrom(item)
    for name, value in fields.items():
        copy.ClearField(name)  # type: ignore[arg-type]
        if value is not None:
            copy.MergeFrom(types_pb2.Item(**{name: value}))  # type: ignore[arg-type]
    return copy
