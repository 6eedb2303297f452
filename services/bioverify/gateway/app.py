"""The application: routes, pages, problems and the description of it all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from bioverify import __version__
from bioverify.client import AsyncClient, TrainingClient
from bioverify.gateway import framework_routes, job_routes, routes, run_routes, training_routes
from bioverify.gateway.access import Gateway
from bioverify.gateway.api_keys import Keyring
from bioverify.gateway.boundary import Boundary
from bioverify.gateway.config import GatewayConfig
from bioverify.gateway.frameworks import GraderRequest, OpenRLHFRequest
from bioverify.gateway.jobs import Jobs
from bioverify.gateway.problems import Problem, ProblemError, of_findings
from bioverify.gateway.scoring import ClaimsRequest, ScoreRequest, VerifierScoreRequest
from bioverify.gateway.strangers import Strangers
from bioverify.gateway.training_routes import RunRequest
from bioverify.settings import problem
from bioverify.transport.headers import REQUEST_ID

_PAGES = Path(__file__).parent / "pages"
_ROUTERS = (routes.router, framework_routes.router, job_routes.router, run_routes.router, training_routes.router)
_WORDS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


def make_app(config: GatewayConfig) -> ASGIApp:
    """The gateway as an ASGI application. Raises SettingsError if the keys file cannot be used."""
    keyring = Keyring(config.keys_file) if config.keys_file else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Of many callers; the aggregator counts what it could not read.
        client = AsyncClient(config.aggregator, tls=config.identity, warns=False)
        jobs = (
            Jobs(
                config.folder / "jobs",
                config.aggregator,
                config.keep_jobs_s,
                config.max_jobs_per_key,
                config.identity,
            )
            if config.folder
            else None
        )
        trainer = (
            TrainingClient(config.trainer, config.trainer_token_file, tls=config.identity) if config.trainer else None
        )
        app.state.gateway = Gateway(config, client, keyring, jobs, trainer)
        yield
        if trainer:
            await trainer.close()
        if jobs:
            jobs.close()
        await client.close()

    app = FastAPIOffline(
        title="bioverify",
        version=__version__,
        description="Verifiers as a service for reasoning in biology. A fault is never a number.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        # Boundary has the request's span, so that the audit log is within it too.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    for router in _ROUTERS:
        app.include_router(router)
    for page in _PAGES.iterdir():
        app.add_route(f"/{page.name}", _page(page), include_in_schema=False)
    app.add_route("/", _page(_PAGES / "index.html"), include_in_schema=False)
    app.openapi = lambda: _openapi(app, keyring is not None)  # type: ignore[method-assign]
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
    guarded = app if keyring else Strangers(app, config)
    return Boundary(guarded, with_tls=config.tls_certificate is not None)


def _page(path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return FileResponse(path)

    return answer


def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response(_request_id(request))


def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _WORDS.get(error.status_code, "refused")
    headers = {"allow": ", ".join(_allowed(request))} if error.status_code == 405 else {}
    detail = f"there is no {request.url.path}; see /docs" if error.status_code == 404 else str(error.detail)
    return ProblemError(error.status_code, code, detail, headers=headers).response(_request_id(request))


def _allowed(request: Request) -> list[str]:
    """The methods of all routes with this path; Starlette names those of the first one only."""
    matching = [
        route
        for router in _ROUTERS
        for route in router.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    # "/v1/verifiers/{name}" fits "/v1/verifiers/format:score" as well: the longer template is meant.
    meant = max((route.path for route in matching), key=len, default="")
    return sorted({method for route in matching if route.path == meant for method in route.methods or ()})


def _parameter_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if ":" in request.url.path:
        # The template of a thing fits the path of an action on it, "/v1/verifiers/format:score", as well.
        return _http_problem(request, HTTPException(405))
    # The first part of a place says path, query or body.
    errors = [problem({**each, "loc": each["loc"][1:]}) for each in error.errors()]
    return of_findings(errors).response(_request_id(request))


def _fault(request: Request, error: Exception) -> Response:
    detail = "a fault of the gateway; its log has the cause under this request id"
    return ProblemError(500, "internal", detail).response(_request_id(request))


def _openapi(app: FastAPI, with_keys: bool) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        # Bodies that are read by hand, and refusals of another media type, are not among the routes' models.
        _, by_hand = models_json_schema(
            [
                (ScoreRequest, "validation"),
                (VerifierScoreRequest, "validation"),
                (ClaimsRequest, "validation"),
                (OpenRLHFRequest, "validation"),
                (GraderRequest, "validation"),
                (RunRequest, "validation"),
                (Problem, "serialization"),
            ],
            ref_template="#/components/schemas/{model}",
        )
        schema["components"]["schemas"] |= by_hand["$defs"]
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                if not with_keys:
                    operation.pop("security", None)
        app.openapi_schema = schema
    return app.openapi_schema
