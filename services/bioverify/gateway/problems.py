"""Refusals as problem+json (RFC 9457): what was wrong, where, and under which request id to ask about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import grpc
import orjson
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from bioverify.client import ClientError
from bioverify.errors import BioverifyError
from bioverify.settings import problems

MAX_FIELDS = 100


class FieldProblem(BaseModel):
    """One field that cannot be accepted."""

    field: str = Field(examples=["items[3].task.differential_expression.cell_line"])
    problem: str = Field(examples=["String should have at least 1 character"])


class Problem(BaseModel):
    """Why a request was refused. ``code`` is a stable word for programs."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    code: str = Field(examples=["invalid_request"])
    detail: str = Field(examples=["items[3].completion: Field required"])
    request_id: str
    errors: list[FieldProblem] = []


class ProblemError(BioverifyError):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> Response:
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
            "errors": [{"field": field, "problem": problem} for field, problem in self.errors],
        }
        return Response(orjson.dumps(problem), self.status, self.headers, "application/problem+json")


_OF_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: (422, "invalid_request"),
    grpc.StatusCode.NOT_FOUND: (404, "not_found"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "overloaded"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (504, "deadline_exceeded"),
    grpc.StatusCode.UNAVAILABLE: (503, "aggregator_unavailable"),
}
_TOO_LARGE = (413, "too_large")


def of_client_error(
    error: ClientError,
    words: Mapping[grpc.StatusCode, tuple[int, str]] = _OF_CODE,
    otherwise: tuple[int, str] = (502, "aggregator_failed"),
) -> ProblemError:
    """A service's refusal, or that there is no service, in HTTP's words. ``retry-after`` only if waiting may help."""
    too_large = error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not error.may_pass
    status, code = _TOO_LARGE if too_large else words.get(error.code, otherwise)
    headers = {}
    if error.may_pass and status in {429, 503}:
        headers["retry-after"] = str(max(1, math.ceil(error.refusal.retry_after_s or 0)))
    return ProblemError(status, code, error.message, error.violations, headers)


def of_validation(error: ValidationError, model: type[BaseModel]) -> ProblemError:
    """Every field that does not fit, by its path in the request."""
    return of_findings(problems(error, model))


def of_findings(found: Sequence[tuple[str, str]]) -> ProblemError:
    """Fields that cannot be accepted, and why."""
    errors = [(field or "body", why) for field, why in found]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return ProblemError(422, "invalid_request", f"{errors[0][0]}: {errors[0][1]}{more}", errors[:MAX_FIELDS])
