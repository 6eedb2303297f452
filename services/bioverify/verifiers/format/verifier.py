"""Format: is the completion in the asked form, and does it name the genes of the question?

The value is the mean of rbio's form checks; the share of the question's genes that the thoughts name is the component
``mention``. Nothing is looked up, so it applies to every item, with or without a recognised question. An item in the
reading mode ``rbio-demo`` is checked exactly as the published demo does.

Source of the checks: the published rbio demo, and its public history for prompts that ask for ``<gene_info>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from bioverify.core import rbio_demo
from bioverify.core.answers import ParseMode
from bioverify.core.completions import PromptForm, TaggedText, format_score, mentions
from bioverify.core.outcomes import Evidence, Outcome, Scored
from bioverify.core.tasks import DifferentialExpression, TaskKind
from bioverify.core.verifier import Description, Item, Reads

NAME = "format"
_EMPTY = "empty_completion"
_PUBLISHED = "published_format"

_DESCRIPTION = Description(
    name=NAME,
    version="3",
    summary="Form of the completion (tags, length, order) and mention of the question's genes.",
    task_kinds=tuple(TaskKind),
    reads=Reads.TASK | Reads.COMPLETION,
    holds_belief=False,
    components={
        "mention": "Share of the question's genes that the thoughts name; 1 if it has none.",
        **{check: "Form check in [0, 1]." for form in PromptForm for check in TaggedText("").form_checks(form)},
        _PUBLISHED: "In rbio-demo mode, the demo's format term: the mean of its checks, above 1 with nested tags.",
        _EMPTY: "1 if the completion is empty; the value is then 0 (rbio-demo: the demo's).",
    },
)


class FormatCheck:
    """Needs no artifact and no task."""

    reads: ClassVar[Reads] = _DESCRIPTION.reads

    @property
    def description(self) -> Description:
        return _DESCRIPTION

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order, always scored. Value: mean of the form checks; 0 for an empty completion."""
        return [_score_one(item, with_evidence) for item in items]

    def canary(self) -> tuple[Item, Outcome]:
        """A completion in perfect form that names both genes."""
        item = Item(
            DifferentialExpression("AARS1", "ASNS", "k562"),
            completion="<think>AARS1 charges alanine; its loss starves the cell, and ASNS answers.</think>"
            "<answer>yes</answer>",
        )
        checks = dict.fromkeys(TaggedText("").form_checks(), 1.0)
        evidence = (Evidence("form: all 11 checks passed"), Evidence("names AARS1, ASNS"))
        return item, Scored(1.0, {**checks, "mention": 1.0}, evidence)


def _score_one(item: Item, with_evidence: bool) -> Scored:
    symbols = item.task.genes if item.task is not None else ()
    as_published = item.parse_mode is ParseMode.RBIO_DEMO
    read = TaggedText(item.completion)
    if as_published:
        checks = rbio_demo.demo_format_checks(item.completion, go=item.prompt_form is PromptForm.GENE_INFO)
        mention = rbio_demo.mention_share(item.completion, symbols)
    else:
        checks = read.form_checks(item.prompt_form)
        mention = read.mention_share(symbols)
    components = {**checks, "mention": mention}
    value = format_score(checks)
    if as_published:
        # Its share of tagged words can exceed 1; a value cannot, a component can.
        components[_PUBLISHED] = value
        value = min(1.0, value)
    if not item.completion.strip():
        components[_EMPTY] = 1.0
        # The published demo gives an empty completion its point for being short; its own mode keeps that.
        value = value if as_published else 0.0
    evidence = _explain(read, checks, symbols, as_published=as_published) if with_evidence else ()
    return Scored(value, components, evidence)


def _explain(
    read: TaggedText, checks: dict[str, float], symbols: Sequence[str], *, as_published: bool
) -> tuple[Evidence, ...]:
    if not read.text.strip():
        return (Evidence("form: the completion is empty"),)
    failed = [name if score == 0.0 else f"{name} {score:.2f}" for name, score in checks.items() if score < 1.0]
    if failed:
        form = Evidence(f"form: {len(checks) - len(failed)} of {len(checks)} checks passed; not: {', '.join(failed)}")
    else:
        form = Evidence(f"form: all {len(checks)} checks passed")
    if not symbols:
        return (form,)
    thoughts = read.thoughts
    named = [symbol for symbol in symbols if (symbol in thoughts if as_published else mentions(thoughts, symbol))]
    unnamed = [symbol for symbol in symbols if symbol not in named]
    sentences = [f"names {', '.join(named)}"] if named else []
    if unnamed:
        sentences.append(f"does not name {', '.join(unnamed)}")
    return form, Evidence("; ".join(sentences))


def open_verifier() -> FormatCheck:
    return FormatCheck()
