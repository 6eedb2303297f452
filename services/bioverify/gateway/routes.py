"""Scoring, verifiers, recipes, health: everything that is answered at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
import orjson
from fastapi import APIRouter, Path, Request
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel
from starlette.responses import Response

from bioverify.client import ClientError, ListedVerifier, ScoredBatch
from bioverify.client.json_form import listed_verifier_json
from bioverify.gateway import bodies, scoring
from bioverify.gateway.access import Administrator, Scorer, charger, gateway_of
from bioverify.gateway.api_keys import Key
from bioverify.gateway.problems import Problem, ProblemError, of_client_error
from bioverify.gateway.responses import json_answer, tagged_answer
from bioverify.gateway.schemas import ClaimsReply, ReadyReply, RecipesReply, ScoreReply, VerifierReply, VerifiersReply

_PROBLEM = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"content": _PROBLEM, "description": "Refused, with the reason."},
    "5XX": {"content": _PROBLEM, "description": "The aggregator did not answer."},
}
VerifierName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,63}$", examples=["format"])]
router = APIRouter(responses=PROBLEMS)


def reads_body(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI entry of a body that is read by hand, off the event loop."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("/v1/score", openapi_extra=reads_body(scoring.ScoreRequest), responses={200: {"model": ScoreReply}})
async def score(request: Request, key: Scorer) -> Response:
    """Reward completions by a recipe or by weights. A verifier's fault is part of the answer, never a number."""
    return await _score(request, key, None)


@router.post(
    "/v1/verifiers/{name}:score",
    openapi_extra=reads_body(scoring.VerifierScoreRequest),
    responses={200: {"model": ScoreReply}},
)
async def score_by_verifier(request: Request, name: VerifierName, key: Scorer) -> Response:
    """Score completions by one verifier: its value is the reward."""
    known = [verifier.name for verifier in await _verifiers(request)]
    if name not in known:
        raise _unknown_verifier(name, known)
    return await _score(request, key, name)


@router.post("/v1/claims", openapi_extra=reads_body(scoring.ClaimsRequest), responses={200: {"model": ClaimsReply}})
async def check_claims(request: Request, key: Scorer) -> Response:
    """Check what texts say of genes against the verifier claims' sources, without a question. A text is one item."""

    def read(body: bytes, limits: scoring.Limits) -> tuple[scoring.Asked, Callable[[ScoredBatch], bytes]]:
        return scoring.read_claims(body, limits), scoring.write_claims

    return await answer_scored(request, key, read)


@router.get("/v1/verifiers", responses={200: {"model": VerifiersReply}})
async def list_verifiers(request: Request, key: Scorer) -> Response:
    """The verifiers, whether they answer, and what they say of themselves."""
    verifiers = await _verifiers(request)
    listed = {"verifiers": [listed_verifier_json(verifier) for verifier in verifiers]}
    return await anyio.to_thread.run_sync(tagged_answer, request, listed)


@router.get("/v1/verifiers/{name}", responses={200: {"model": VerifierReply}})
async def show_verifier(request: Request, name: VerifierName, key: Scorer) -> Response:
    """One verifier."""
    verifiers = {verifier.name: verifier for verifier in await _verifiers(request)}
    if name not in verifiers:
        raise _unknown_verifier(name, list(verifiers))
    return await anyio.to_thread.run_sync(tagged_answer, request, listed_verifier_json(verifiers[name]))


@router.get("/v1/recipes", responses={200: {"model": RecipesReply}})
async def list_recipes(request: Request, key: Scorer) -> Response:
    """The recipes that can be named."""
    client = gateway_of(request).client
    try:
        recipes = await client.list_recipes()
    except ClientError as error:
        raise of_client_error(error) from error
    listed = {"recipes": [recipe.model_dump(mode="json") for recipe in recipes]}
    return await anyio.to_thread.run_sync(tagged_answer, request, listed)


@router.get("/healthz", responses={200: {"model": ReadyReply}}, tags=["operation"])
async def healthz() -> Response:
    """This process answers."""
    return Response(orjson.dumps({"ready": True}), media_type="application/json")


@router.get("/readyz", responses={200: {"model": ReadyReply}}, tags=["operation"])
async def readyz(request: Request) -> Response:
    """Rewards can be had: the aggregator answers. 503 if it does not."""
    client = gateway_of(request).client
    try:
        await client.list_recipes(deadline_s=2)
    except ClientError as error:
        raise of_client_error(error) from error
    return Response(orjson.dumps({"ready": True}), media_type="application/json")


@router.get("/metrics", tags=["operation"], responses={200: {"content": {"text/plain": {}}}})
async def show_metrics(request: Request, key: Administrator) -> Response:
    """For Prometheus; exemplars come with OpenMetrics, if that is asked for."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(REGISTRY), media_type=media_type)


async def answer_scored(
    request: Request,
    key: Key,
    read: Callable[[bytes, scoring.Limits], tuple[scoring.Asked, Callable[[ScoredBatch], bytes]]],
) -> Response:
    """``read`` says what the body asks for and how the reply is written; both are done by the threads of scoring."""
    gateway = gateway_of(request)
    config = gateway.config
    with gateway.call():
        body = await bodies.whole(request, config.max_body_bytes, config.body_timeout_s)
        arrived = time.monotonic()
        limits = scoring.Limits(config.max_items, config.max_deadline_s, charger(request, key))
        asked, write = await gateway.work(partial(read, body, limits))
        batch = await scoring.scored(gateway.client, asked, arrived)
        return await gateway.work(lambda: json_answer(request, write(batch)))


async def _score(request: Request, key: Key, verifier: str | None) -> Response:
    def read(body: bytes, limits: scoring.Limits) -> tuple[scoring.Asked, Callable[[ScoredBatch], bytes]]:
        asked = scoring.read_request(body, verifier, limits)
        return asked, partial(scoring.write_reply, asked)

    return await answer_scored(request, key, read)


async def _verifiers(request: Request) -> list[ListedVerifier]:
    try:
        return await gateway_of(request).client.list_verifiers()
    except ClientError as error:
        raise of_client_error(error) from error


def _unknown_verifier(name: str, known: list[str]) -> ProblemError:
    return ProblemError(404, "unknown_verifier", f"no verifier is called {name}; there are: {', '.join(known)}")
