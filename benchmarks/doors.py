"""The other ways in: the gateway's JSON over HTTP, and a verifier's stream beside its unary call.

Every figure includes writing what is sent and reading what comes back, as values that a program can use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import httpx
import orjson

from benchmarks.items import Questions
from benchmarks.measuring import cpu_of_all, spread
from benchmarks.rivals import RECIPE
from bioverify.cli.services import VERIFIERS
from bioverify.client import ScoreItem
from bioverify.client.messages import item_to_wire
from bioverify.ports import GATEWAY_OFFSET, HOST
from bioverify.transport.channels import CHANNEL_OPTIONS
from bioverify.v1 import verifier_pb2, verifier_pb2_grpc

CALL = 256
N = 2048
ScoreRequest = verifier_pb2.VerifierServiceScoreBatchRequest


def doors(questions: Questions, port_base: int, state: str, runs: int) -> dict[str, Any]:
    """Case → completions/s and CPU per completion of all processes, the client's among them."""
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}

    def timed(case: str, work: Callable[[], int]) -> None:
        before_s, started = cpu_of_all(state), time.perf_counter()
        n_scored = work()
        seconds = time.perf_counter() - started
        if n_scored != N:
            raise SystemExit(f"{case}: {n_scored} of {N} completions came back")
        rates.setdefault(case, []).append(N / seconds)
        cpu.setdefault(case, []).append((cpu_of_all(state) - before_s) / N * 1e6)

    with httpx.Client(base_url=f"http://{HOST}:{port_base + GATEWAY_OFFSET}", timeout=120) as http:
        for run in range(runs):
            items = questions.draw(N, 80_000 + run)
            for way in ("cold", "warm"):
                timed(f"gateway, JSON, 256 items, {way}", lambda items=items: over_json(http, items))
    for name in ("experimental", "format", "go_rouge"):
        with grpc.insecure_channel(f"{HOST}:{port_base + 1 + VERIFIERS.index(name)}", CHANNEL_OPTIONS) as channel:
            stub = verifier_pb2_grpc.VerifierServiceStub(channel)
            for run in range(runs):
                # A verifier remembers nothing, so both may have the same items.
                items = questions.draw(N, 81_000 + run)
                timed(f"{name} itself, ScoreBatch", lambda stub=stub, items=items: _batches(stub, items))
                timed(f"{name} itself, ScoreStream", lambda stub=stub, items=items: _stream(stub, items))
    return {case: spread(values) | {"cpu_us": round(spread(cpu[case])["median"])} for case, values in rates.items()}


def over_json(http: httpx.Client, items: Sequence[ScoreItem]) -> int:
    """Scores them by the gateway in calls of 256; how many rewards came back."""
    scored = 0
    for start in range(0, len(items), CALL):
        body = {
            "items": [_as_json(item) for item in items[start : start + CALL]],
            "recipe": RECIPE.model_dump(mode="json"),
            "evidence": False,
        }
        reply = http.post("/v1/score", content=orjson.dumps(body), headers={"content-type": "application/json"})
        reply.raise_for_status()
        scored += len(orjson.loads(reply.content)["rewards"])
    return scored


def _as_json(item: ScoreItem) -> dict[str, Any]:
    turns = [{"role": turn.role, "content": turn.content} for turn in item.prompt]
    return {"id": item.id, "group_id": item.group_id, "prompt": turns, "completion": item.completion}


def _requests(items: Sequence[ScoreItem]) -> Iterator[ScoreRequest]:
    for start in range(0, len(items), CALL):
        yield ScoreRequest(items=map(item_to_wire, items[start : start + CALL]), omit_evidence=True)


def _batches(stub: verifier_pb2_grpc.VerifierServiceStub, items: Sequence[ScoreItem]) -> int:
    return sum(len(stub.ScoreBatch(request, timeout=120).outcomes) for request in _requests(items))


def _stream(stub: verifier_pb2_grpc.VerifierServiceStub, items: Sequence[ScoreItem]) -> int:
    requests = (verifier_pb2.ScoreStreamRequest(batch=request) for request in _requests(items))
    return sum(len(reply.batch.outcomes) for reply in stub.ScoreStream(requests, timeout=120))
