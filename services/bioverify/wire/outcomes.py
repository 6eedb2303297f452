"""Outcomes and descriptions on the wire."""

from __future__ import annotations

from bioverify.core.outcomes import Evidence, Failed, NotApplicable, Outcome, Quote, Scored, Verdict
from bioverify.core.verifier import Description
from bioverify.v1 import types_pb2, verifier_pb2
from bioverify.wire.tasks import TASK_KINDS, reads_to_wire

MAX_OUTCOME_BYTES = 8192
MAX_EVIDENCE = 32
MAX_TEXT_BYTES = 2048
MAX_REASON_CHARACTERS = 64
"""Of the stable word; what is longer is none."""
_REMARK_BYTES = 256


def outcome_to_wire(item_id: str, outcome: Outcome) -> types_pb2.Outcome:
    match outcome:
        case Scored(value, components, evidence, belief):
            # Field by field: a map takes twice as long by the constructor.
            message = types_pb2.Outcome(item_id=item_id)
            scored = message.scored
            scored.value = value
            written = scored.components
            for name, number in components.items():
                written[name] = number
            for one in evidence:
                scored.evidence.add(
                    text=one.text, source=one.source, simulated=one.simulated, quote=_quote_to_wire(one.quote)
                )
            if belief is not None:
                scored.belief = belief
            return message
        case NotApplicable(reason, detail):
            return types_pb2.Outcome(
                item_id=item_id, not_applicable=types_pb2.NotApplicable(reason=reason, detail=detail)
            )
        case Failed():
            return types_pb2.Outcome(item_id=item_id, failure=failure_to_wire(outcome))


def bound_outcome(message: types_pb2.Outcome) -> None:
    """Cut the texts of an outcome that is longer than `MAX_OUTCOME_BYTES`, or has more evidence than `MAX_EVIDENCE`,
    and say so in it. Numbers are never cut: raises ValueError if they alone are too many.
    """
    if message.ByteSize() <= MAX_OUTCOME_BYTES and len(message.scored.evidence) <= MAX_EVIDENCE:
        return
    kind = message.WhichOneof("result")
    if kind == "not_applicable":
        _cut_reason(message.not_applicable)
    elif kind == "failure":
        _cut_reason(message.failure)
    elif kind == "scored":
        evidence = list(message.scored.evidence)
        message.scored.ClearField("evidence")
        left_bytes = MAX_OUTCOME_BYTES - message.ByteSize() - _REMARK_BYTES
        if left_bytes < 0:
            raise ValueError(
                f"the numbers of one outcome take {message.ByteSize():,} bytes; with its evidence it has at most "
                f"{MAX_OUTCOME_BYTES:,}"
            )
        kept = 0
        for one in evidence[: MAX_EVIDENCE - 1]:
            one.text, one.source = _cut(one.text), _cut(one.source)
            left_bytes -= one.ByteSize() + 4
            if left_bytes < 0:
                break
            message.scored.evidence.append(one)
            kept += 1
        message.scored.evidence.add(
            text=f"cut: {kept} of {len(evidence)} pieces of evidence are shown, with at most {MAX_TEXT_BYTES:,} bytes "
            f"of each text and {MAX_OUTCOME_BYTES:,} bytes in all",
            source="bioverify",
        )


def _cut_reason(message: types_pb2.NotApplicable | types_pb2.Failure) -> None:
    message.reason, message.detail = message.reason[:MAX_REASON_CHARACTERS], _cut(message.detail)


def _cut(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= MAX_TEXT_BYTES:
        return text
    return encoded[:MAX_TEXT_BYTES].decode(errors="ignore") + f"… (cut: it has {len(encoded):,} bytes)"


def outcome_from_wire(message: types_pb2.Outcome) -> Outcome:
    """The outcome. Raises ValueError if the message holds none, or a value outside [0, 1]."""
    kind = message.WhichOneof("result")
    if kind == "scored":
        scored = message.scored
        components, evidence = scored.components, scored.evidence
        return Scored(
            scored.value,
            # Four times as fast as dict(components); and to find an empty field empty is cheaper than to go through it.
            dict(components.items()) if components else {},
            tuple([Evidence(e.text, e.source, e.simulated, _quote_from_wire(e)) for e in evidence]) if evidence else (),
            scored.belief if scored.HasField("belief") else None,
        )
    if kind == "not_applicable":
        return NotApplicable(message.not_applicable.reason, message.not_applicable.detail)
    if kind == "failure":
        return failure_from_wire(message.failure)
    raise ValueError(f"the outcome of item {message.item_id!r} holds no result")


def _quote_to_wire(quote: Quote | None) -> types_pb2.Quote | None:
    if quote is None:
        return None
    return types_pb2.Quote(start=quote.start, end=quote.end, verdict=_VERDICTS[quote.verdict])


def _quote_from_wire(message: types_pb2.Evidence) -> Quote | None:
    # Of a verdict that is none of these, or newer than this code, nothing can be shown.
    verdict = _VERDICT_OF.get(message.quote.verdict) if message.HasField("quote") else None
    return None if verdict is None else Quote(message.quote.start, message.quote.end, verdict)


_VERDICTS = {verdict: types_pb2.Verdict.Value(f"VERDICT_{verdict.name}") for verdict in Verdict}
_VERDICT_OF = {number: verdict for verdict, number in _VERDICTS.items()}


def failure_to_wire(failure: Failed) -> types_pb2.Failure:
    return types_pb2.Failure(reason=failure.reason, detail=failure.detail, retryable=failure.retryable)


def failure_from_wire(message: types_pb2.Failure) -> Failed:
    return Failed(message.reason, message.detail, message.retryable)


def description_to_wire(description: Description, limits: verifier_pb2.Limits) -> verifier_pb2.DescribeResponse:
    return verifier_pb2.DescribeResponse(
        name=description.name,
        version=description.version,
        fingerprint=description.fingerprint,
        task_kinds=[TASK_KINDS[kind] for kind in description.task_kinds],
        reads=reads_to_wire(description.reads),
        deterministic=True,
        idempotent=True,
        holds_belief=description.holds_belief,
        limits=limits,
        artifacts=[
            verifier_pb2.Artifact(
                name=artifact.name,
                digest=artifact.digest,
                simulated=artifact.simulated,
                license=artifact.license,
                sources=artifact.sources,
                figures=artifact.figures,
            )
            for artifact in description.artifacts
        ],
        components=description.components,
        summary=description.summary,
    )
