"""Endpoints in the form that other frameworks call: docs/adapters.md."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from bioverify.client import ScoredBatch
from bioverify.gateway import frameworks
from bioverify.gateway.access import Scorer
from bioverify.gateway.routes import PROBLEMS, answer_scored, reads_body
from bioverify.gateway.scoring import Asked, Limits

router = APIRouter(tags=["frameworks"], responses=PROBLEMS)
RecipeName = Annotated[str, Path(max_length=256, examples=["all"])]


@router.post(
    "/v1/openrlhf/{recipe}",
    openapi_extra=reads_body(frameworks.OpenRLHFRequest),
    responses={200: {"model": frameworks.OpenRLHFReply}},
)
async def openrlhf(request: Request, recipe: RecipeName, key: Scorer) -> Response:
    """A remote reward model for OpenRLHF. The key may be the password of the address: http://any:KEY@host/…"""

    def read(body: bytes, limits: Limits) -> tuple[Asked, Callable[[ScoredBatch], bytes]]:
        return frameworks.read_openrlhf(body, recipe, limits), frameworks.write_openrlhf

    return await answer_scored(request, key, read)


@router.post(
    "/v1/fine_tuning/alpha/graders/run",
    openapi_extra=reads_body(frameworks.GraderRequest),
    responses={200: {"model": frameworks.GraderReply}},
)
async def run_grader(request: Request, key: Scorer) -> Response:
    """Run a grader, in OpenAI's form."""

    def read(body: bytes, limits: Limits) -> tuple[Asked, Callable[[ScoredBatch], bytes]]:
        asked, grader = frameworks.read_grader(body, limits)
        return asked, partial(frameworks.write_grader, grader)

    return await answer_scored(request, key, read)
