"""Traces: one per request, from whoever asks first down to every verifier, or one per step of a training run.

Spans go where the standard variables of OpenTelemetry say, over OTLP/gRPC: OTEL_EXPORTER_OTLP_ENDPOINT switches them on
(`bioverify[tracing]` has to be installed), OTEL_TRACES_SAMPLER and the others of its SDK apply. Without an endpoint the
calls below reach the bare API, whose spans hold nothing: about 3 µs each, docs/observability.md. A trace that a caller
of ours has under way goes on in either case if its process has an SDK of its own.

What is told of a span stands under ``bioverify.``: recipe, items, verifier, cache_hits, reason. No gene, no text.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from bioverify.errors import how_to_install

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
LAST_SPANS_S = 2.0
_tracer = trace.get_tracer("bioverify")

Told = str | int | float | bool


def is_asked_for() -> bool:
    """Whether the environment says where spans go, and does not switch them off."""
    return (
        any(os.environ.get(name) for name in _ENDPOINTS)
        and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
        and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )


@contextmanager
def exporting(service: str) -> Iterator[None]:
    """Send this process's spans while the block runs, if the environment asks for it.

    ``service``: its name in traces, unless OTEL_SERVICE_NAME says another. To be entered after a fork: the sender is a
    thread. What is not sent `LAST_SPANS_S` after the block is dropped, so that a collector that is gone delays no end.
    """
    if not is_asked_for():
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        logging.getLogger("bioverify.tracing").warning(
            "OTEL_… asks for traces, but %s is missing. %s", error.name, how_to_install("tracing")
        )
        yield
        return
    # The variables of the environment win over what is given here only if they are told to.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # Its own time limit is the exporter's, ten seconds, and a flush has none.
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(LAST_SPANS_S)


@contextmanager
def span(name: str, kind: SpanKind = SpanKind.INTERNAL, **told: Told) -> Iterator[Span]:
    """A span below the current one, or a trace of its own. An exception that leaves the block marks it as failed."""
    with _tracer.start_as_current_span(name, kind=kind, attributes=_named(told)) as opened:
        yield opened


def served(name: str, carrier: Mapping[str, str]) -> AbstractContextManager[Span]:
    """The span of a request that came in; ``carrier``: its headers, which may say whose trace this is part of."""
    return _tracer.start_as_current_span(
        name,
        context=propagate.extract(carrier),
        kind=SpanKind.SERVER,
        # What ends a request is told by `failed`; the exception behind it is in the log.
        record_exception=False,
        set_status_on_exception=False,
    )


def note(**told: Told) -> None:
    """Tell more about the current span."""
    current = trace.get_current_span()
    if current.is_recording():
        current.set_attributes(_named(told))


def failed(code: str, reason: str) -> None:
    """The current span's request was refused, or met a fault: its status code and a stable word."""
    current = trace.get_current_span()
    if current.is_recording():
        current.set_status(StatusCode.ERROR, code)
        current.set_attributes(_named({"reason": reason}))


def outgoing() -> tuple[tuple[str, str], ...]:
    """The headers that take the current trace along with a call; none if there is no trace."""
    if not trace.get_current_span().get_span_context().is_valid:
        return ()
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple(carrier.items())


def exemplar() -> dict[str, str] | None:
    """What ties a measurement to the current trace; None if that is not kept."""
    current = trace.get_current_span().get_span_context()
    return _ids(current) if current.trace_flags.sampled else None


def add_ids(_logger: Any, _method: str, event: Any) -> Any:
    """For structlog: the current trace and span, in every line that is written within one."""
    current = trace.get_current_span().get_span_context()
    if current.is_valid:
        event.update(_ids(current))
    return event


class Step:
    """A span that is opened and closed by two calls, for code that is called back at a beginning and at an end."""

    def __init__(self) -> None:
        self._open: tuple[Span, Any] | None = None

    def begin(self, name: str, **told: Told) -> None:
        opened = _tracer.start_span(name, attributes=_named(told))
        self._open = opened, context.attach(trace.set_span_in_context(opened))

    def end(self) -> None:
        if self._open is not None:
            opened, token = self._open
            self._open = None
            context.detach(token)
            opened.end()


def _named(told: Mapping[str, Told]) -> dict[str, Told]:
    return {f"bioverify.{name}": value for name, value in told.items()}


def _ids(of: trace.SpanContext) -> dict[str, str]:
    return {"trace_id": trace.format_trace_id(of.trace_id), "span_id": trace.format_span_id(of.span_id)}
