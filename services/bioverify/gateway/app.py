"""The application: routes, pages, problems and the description of it all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from bioverify.client import Client
from bioverify.gateway import job_routes, routes, run_routes
from bioverify.gateway.access import Gateway
from bioverify.gateway.boundary import REQUEST_ID, Boundary
from bioverify.gateway.config import GatewayConfig
from bioverify.gateway.jobs import Jobs
from bioverify.gateway.keys import Keyring
from bioverify.gateway.problems import ProblemError, field_path
from bioverify.gateway.scoring import ScoreRequest, VerifierScoreRequest

_PAGES = Path(__file__).parent / "pages"
_WORDS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


def make_app(config: GatewayConfig) -> ASGIApp:
    """The gateway as an ASGI application. Raises KeysError where the keys file cannot be used."""
    keyring = Keyring(config.keys_file) if config.keys_file else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        client = Client(config.aggregator)
        jobs = Jobs(config.folder / "jobs", config.aggregator, config.keep_jobs_s) if config.folder else None
        app.state.gateway = Gateway(config, client, keyring, jobs)
        yield
        if jobs:
            jobs.close()
        client.close()

    app = FastAPIOffline(
        title="bioverify",
        version=version("bioverify"),
        description="Verifiers as a service for reasoning in biology. A fault is never a number.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.include_router(routes.router)
    app.include_router(job_routes.router)
    app.include_router(run_routes.router)
    app.mount("/", StaticFiles(directory=_PAGES, html=True), name="pages")
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _parameter_problem)
    app.add_exception_handler(Exception, _fault)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", REQUEST_ID],
            expose_headers=[REQUEST_ID],
        )
    return Boundary(app, with_tls=config.tls_certificate is not None)


def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response(_request_id(request))


def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _WORDS.get(error.status_code, "refused")
    detail = f"there is no {request.url.path}; see /docs" if error.status_code == 404 else str(error.detail)
    return ProblemError(error.status_code, code, detail, headers=error.headers).response(_request_id(request))


def _parameter_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The first part of a place says path, query or body.
    errors = [(field_path(each["loc"][1:]), each["msg"]) for each in error.errors()]
    detail = f"{errors[0][0]}: {errors[0][1]}"
    return ProblemError(422, "invalid_request", detail, errors).response(_request_id(request))


def _fault(request: Request, error: Exception) -> Response:
    detail = "a fault of the gateway; its log has the cause under this request id"
    return ProblemError(500, "internal", detail).response(_request_id(request))


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, bodies = models_json_schema(
            [(ScoreRequest, "validation"), (VerifierScoreRequest, "validation")],
            ref_template="#/components/schemas/{model}",
        )
        schema["components"]["schemas"] = bodies["$defs"] | schema["components"]["schemas"]
        app.openapi_schema = schema
    return app.openapi_schema
