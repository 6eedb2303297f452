"""Checks of the service as such: is it there, does it say so the standard way, and who does it say it is?"""

from __future__ import annotations

import re
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from bioverify.conformance.peer import DESCRIBE_S, SERVICE, Broken, Peer, refusal_of
from bioverify.v1 import verifier_pb2, verifier_pb2_grpc
from bioverify.wire.tasks import READ_FIELDS, TASK_KINDS

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SERVING = health_pb2.HealthCheckResponse.SERVING


def says_alive(peer: Peer) -> None:
    _must_serve(peer, "")


def says_ready(peer: Peer) -> None:
    _must_serve(peer, SERVICE)


def _must_serve(peer: Peer, service: str) -> None:
    status = _health(peer, service).status
    if status != _SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
        raise Broken(f'health of "{service}" is {name}')


def knows_no_other_health(peer: Peer) -> None:
    refusal_of(
        lambda: _health(peer, "bioverify.v1.NoSuchService"),
        expected=grpc.StatusCode.NOT_FOUND,
        case="health of a service that there is not",
    )


def _health(peer: Peer, service: str) -> health_pb2.HealthCheckResponse:
    request = health_pb2.HealthCheckRequest(service=service)
    stub: Any = health_pb2_grpc.HealthStub(peer.channel)  # its published types lack the methods
    reply: health_pb2.HealthCheckResponse = stub.Check(request, timeout=DESCRIBE_S)
    return reply


def reflects(peer: Peer) -> None:
    database = ProtoReflectionDescriptorDatabase(peer.channel)
    listed = set(database.get_services())
    if missing := {SERVICE, "grpc.health.v1.Health"} - listed:
        raise Broken(f"reflection lists {', '.join(sorted(listed)) or 'nothing'}, not {', '.join(sorted(missing))}")
    file = database.FindFileContainingSymbol(SERVICE)
    if problem := _other_contract(file):
        raise Broken(problem)


def _other_contract(file: FileDescriptorProto) -> str:
    """What of the contract is missing in a server's own description of it; it may know of more."""
    ours = FileDescriptorProto()
    verifier_pb2.DESCRIPTOR.CopyToProto(ours)
    methods = {(method.name, method.input_type) for service in file.service for method in service.method}
    for service in ours.service:
        for method in service.method:
            if (method.name, method.input_type) not in methods:
                return f"reflection shows no {service.name}.{method.name}({method.input_type})"
    return ""


def describes_itself(peer: Peer) -> None:
    try:
        said = peer.stub.Describe(verifier_pb2.DescribeRequest(), timeout=DESCRIBE_S)
    except grpc.RpcError as error:
        raise Broken(f"Describe ended with {error.code().name}: {error.details()}") from error
    limits = said.limits
    problems = [
        *(f"{field} is empty" for field in ("name", "version", "fingerprint", "summary") if not getattr(said, field)),
        *([] if said.task_kinds else ["task_kinds is empty"]),
        *(f"task_kinds has {kind}" for kind in said.task_kinds if kind not in TASK_KINDS.values()),
        *([] if said.reads else ["reads is empty: a result that depends on nothing"]),
        *(f"reads has {field}" for field in said.reads if field not in READ_FIELDS.values()),
        *(
            f"limits.{field} is 0"
            for field in ("max_items", "max_bytes", "max_items_in_flight")
            if not getattr(limits, field)
        ),
        *(
            [f"limits.max_items_in_flight {limits.max_items_in_flight} is below max_items {limits.max_items}"]
            if limits.max_items_in_flight < limits.max_items
            else []
        ),
        *(
            f'artifact {artifact.name!r} has digest {artifact.digest!r}, not "sha256:" and 64 hexadecimal digits'
            for artifact in said.artifacts
            if not (artifact.name and _DIGEST.fullmatch(artifact.digest))
        ),
        *(f"component {name} has no meaning" for name, meaning in said.components.items() if not meaning),
    ]
    if problems:
        raise Broken("; ".join(problems))


def keeps_its_fingerprint(peer: Peer) -> None:
    first = peer.described
    with peer.new_channel() as channel:
        again = verifier_pb2_grpc.VerifierServiceStub(channel).Describe(
            verifier_pb2.DescribeRequest(), timeout=DESCRIBE_S
        )
    if again != first:
        differing = [
            field.name for field in first.DESCRIPTOR.fields if getattr(first, field.name) != getattr(again, field.name)
        ]
        raise Broken(f"a second Describe says another {', '.join(differing)}")
    for items in ([], peer.probes):
        found = peer.reply(items).fingerprint
        if found != first.fingerprint:
            raise Broken(f"ScoreBatch of {len(items)} items says {found!r}, Describe {first.fingerprint!r}")
