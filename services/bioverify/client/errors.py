"""The one error of the client: a call that brought no rewards at all, with what to do about it."""

from __future__ import annotations

import grpc

from bioverify.errors import BioverifyError
from bioverify.transport.addresses import why_no_target
from bioverify.transport.headers import REQUEST_ID, Sent
from bioverify.transport.refusals import Refusal


class ClientError(BioverifyError, RuntimeError):
    """A call that reached no service, or that it refused as a whole. The message says what to do.

    ``refusal``: what the service said, with its stable word (``reason``) and when to come back (``retry_after_s``).
    ``request_id``: under which the services log the call; empty if it was never made. ``message``: without it.
    """

    def __init__(self, message: str, refusal: Refusal, request_id: str = "") -> None:
        told = request_id and refusal.code is not grpc.StatusCode.UNAVAILABLE and request_id not in message
        super().__init__(f"{message} (request {request_id})" if told else message)
        self.message = message
        self.refusal = refusal
        self.request_id = request_id

    @property
    def code(self) -> grpc.StatusCode:
        """gRPC's status, for instance UNAVAILABLE."""
        return self.refusal.code

    @property
    def violations(self) -> tuple[tuple[str, str], ...]:
        """Field path and what is wrong with it."""
        return self.refusal.violations

    @property
    def may_pass(self) -> bool:
        """Whether asking again later may help."""
        return self.refusal.may_pass


def mistake(field: str, problem: str) -> ClientError:
    """The error of a call that is not made, because one of its fields cannot be accepted."""
    message = f"{field}: {problem}"
    return ClientError(
        message, Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, "invalid_request", ((field, problem),))
    )


def checked_target(target: str) -> str:
    """The target. Raises ClientError for a URL, with the address that is meant."""
    if problem := why_no_target(target):
        raise mistake("target", problem)
    return target


def client_error(refusal: Refusal, target: str, deadline_s: float, sent: Sent = ()) -> ClientError:
    """The error of a failed call, in words for the person who made it."""
    if refusal.code is grpc.StatusCode.UNAVAILABLE:
        message = f"no aggregator at {target}: {_why_unreachable(refusal.message)}. Start one: bioverify up"
    elif refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"the aggregator at {target} did not answer within {deadline_s:g} s; allow more, or send fewer items"
    elif refusal.code is grpc.StatusCode.UNIMPLEMENTED:
        message = f"{target} is no bioverify aggregator ({refusal.message}); is it a verifier's address?"
    else:
        message = f"the aggregator at {target} refused the call ({refusal.code.name}): {refusal.message}"
    return ClientError(message, refusal, dict(sent).get(REQUEST_ID, ""))


def _why_unreachable(said: str) -> str:
    lowered = said.lower()
    if "connection refused" in lowered:
        return "connection refused"
    if "no such file" in lowered:
        return "no such socket"
    if "verif" in lowered or "handshake" in lowered or "socket closed" in lowered:
        return f"{said} (do both ends speak TLS, with certificates of one authority?)"
    return said or "not reachable"
