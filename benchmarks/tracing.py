"""What tracing costs: CPU of all services per completion, with spans sent to a receiver and without.

Two stacks run side by side and are asked the same in turn, so that whatever else the machine does meets both.

    BIOVERIFY_HOME=… python -m benchmarks.tracing
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from benchmarks.items import Questions
from benchmarks.measuring import processes_of, running_stack
from bioverify.artifacts.store import ArtifactStore
from bioverify.client import Client

PORT_BASES = (20_000, 20_020)
CALLS = {256: 24, 8: 240}
"""Items of a call → calls of each stack, in turn."""


class _Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    spans = 0

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the contract's name
        self.spans += sum(len(scope.spans) for one in request.resource_spans for scope in one.scope_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def receiver() -> Iterator[tuple[str, _Receiver]]:
    server, received = grpc.server(ThreadPoolExecutor(2)), _Receiver()
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # published without types
    add(received, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", received
    finally:
        server.stop(0)


def cpu_s(state: str) -> float:
    return sum(one["cpu_s"] for one in processes_of(state).values())


def main() -> None:
    questions = Questions(ArtifactStore.default())
    with receiver() as (endpoint, received), running_stack(PORT_BASES[0]) as (plain, plain_stack):
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        with running_stack(PORT_BASES[1]) as (traced, traced_stack), Client(plain) as one, Client(traced) as other:
            for client in (one, other):
                client.score(questions.draw(256, seed=-1 % 2**32), "all")
            found = {}
            for items, calls in CALLS.items():
                before, spans = [cpu_s(stack["state"]) for stack in (plain_stack, traced_stack)], received.spans
                for call in range(calls):
                    batch = questions.draw(items, seed=1000 * items + call)
                    for client in (one, other):
                        client.score(batch, "all")
                used = [
                    cpu_s(stack["state"]) - started
                    for stack, started in zip((plain_stack, traced_stack), before, strict=True)
                ]
                off, on = (round(seconds / (calls * items) * 1e6, 1) for seconds in used)
                found[f"{items} items a call"] = {
                    "cpu_us_per_completion_off": off,
                    "cpu_us_per_completion_on": on,
                    "ratio": round(on / off, 3),
                    "spans_per_call": round((received.spans - spans) / calls, 1),
                }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
