"""The ways the field scores completions, on our items: the baselines that the stack is measured against.

* ``one by one``: inside the trainer, sample by sample, as rbio's training script does.
* an HTTP server per verifier (FastAPI, uvicorn, one process each), asked with one POST per item, as most verifier
  servers are, or with a POST per batch.

``usual`` scorers are what the field uses: the package rouge-score against the joined names of the gene's terms, and the
net asked for one pair at a time. ``ours`` are the verifiers of this project. Both give the same values, which is
checked before anything is timed.

Run as a program, it serves one verifier: ``python -m benchmarks.rivals NAME PORT usual|ours``.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from pydantic import BaseModel
from rouge_score.rouge_scorer import RougeScorer

from bioverify import recipes
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import open_verifier
from bioverify.client import ScoreItem
from bioverify.client.messages import item_to_wire
from bioverify.core.answers import ParseMode
from bioverify.core.completions import TaggedText
from bioverify.core.outcomes import Outcome, Scored
from bioverify.core.recipes import Recipe
from bioverify.core.rewards import Row, compose
from bioverify.core.tasks import DifferentialExpression
from bioverify.core.verifier import Item, Reads, Verifier
from bioverify.wire.tasks import read_item

_ALL = recipes.load("all")


def all_but(*verifiers: str) -> Recipe:
    """The recipe `all` without these."""
    terms = tuple(term for term in _ALL.terms if term.verifier not in verifiers)
    return _ALL.model_copy(update={"name": f"all-but-{'-'.join(verifiers)}", "terms": terms})


# The five that the field's ways are raced with.
RECIPE = all_but("analogy", "claims")
NAMES = RECIPE.verifiers
EVERYTHING = Reads.TASK | Reads.ANSWER | Reads.COMPLETION
CALLS_AT_ONCE = 32

Scorer = Callable[[Sequence[Item]], list[Outcome]]


class UsualRouge:
    """rouge-score, once per gene, against the names of its terms."""

    def __init__(self, go_rouge: Any) -> None:
        self._go_rouge = go_rouge
        self._scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)

    def __call__(self, items: Sequence[Item]) -> list[Outcome]:
        return [self._score(item) for item in items]

    def _score(self, item: Item) -> Outcome:
        symbols: list[str] | Outcome = self._go_rouge._symbols_of(item)  # noqa: SLF001 - the same genes and texts as ours
        if not isinstance(symbols, list):
            return symbols
        thoughts = TaggedText(item.completion).thoughts
        values = []
        for symbol in symbols:
            reference = " ".join(term.text for term in self._go_rouge._terms_of(symbol).terms)  # noqa: SLF001
            scores = self._scorer.score(reference, thoughts)
            values.append(sum(score.fmeasure for score in scores.values()) / 3)
        return Scored(sum(values) / len(values))


def scorer(name: str, store: ArtifactStore, kind: str) -> Scorer:
    verifier = open_verifier(name, store)
    if kind == "usual" and name == "go_rouge":
        return UsualRouge(verifier)
    if kind == "usual":
        return lambda items: [verifier.score([item], with_evidence=False)[0] for item in items]
    return lambda items: verifier.score(items, with_evidence=False)


def read(items: Sequence[ScoreItem]) -> list[Item]:
    return [read_item(item_to_wire(item), ParseMode.WHOLE_WORDS, EVERYTHING) for item in items]


def rewards_of(items: Sequence[ScoreItem], read_items: Sequence[Item], outcomes: dict[str, list[Outcome]]) -> list[Any]:
    rows = [
        Row(item.group_id, "", one.task.kind if one.task else None, {name: outcomes[name][i] for name in outcomes})
        for i, (item, one) in enumerate(zip(items, read_items, strict=True))
    ]
    return [reward.reward for reward in compose(RECIPE, rows)]


def in_process(items: Sequence[ScoreItem], verifiers: dict[str, Verifier], call_size: int) -> list[float | None]:
    """What the services do, without services: read each item once, ask each verifier, compose."""
    rewards = []
    for start in range(0, len(items), call_size):
        some = items[start : start + call_size]
        read_items = read(some)
        outcomes = {name: verifier.score(read_items, with_evidence=False) for name, verifier in verifiers.items()}
        rewards += rewards_of(some, read_items, outcomes)
    return rewards


def one_by_one(items: Sequence[ScoreItem], scorers: dict[str, Scorer]) -> list[dict[str, Outcome]]:
    """rbio's way: each completion by itself, each scorer by itself."""
    told = []
    for item in items:
        own = read([item])
        told.append({name: score(own)[0] for name, score in scorers.items()})
    return told


def check_usual(items: Sequence[ScoreItem], usual: dict[str, Scorer], verifiers: dict[str, Verifier]) -> None:
    """The usual scorers give our values; a race between different results would say nothing."""
    read_items = read(items)
    for name, verifier in verifiers.items():
        for own, theirs in zip(verifier.score(read_items, with_evidence=False), usual[name](read_items), strict=True):
            same = type(own) is type(theirs)
            if isinstance(own, Scored) and isinstance(theirs, Scored):
                same = abs(own.value - theirs.value) < 1e-9
            if not same:
                raise SystemExit(f"{name}: {theirs} is not {own}")


def _as_json(item: Item) -> dict[str, Any]:
    task = item.task
    assert isinstance(task, DifferentialExpression)
    answer = item.answer if isinstance(item.answer, bool) else None
    return {"task": [task.perturbation, task.measured_gene, task.cell_line], "answer": answer, "text": item.completion}


@contextmanager
def servers(port: int, kind: str) -> Iterator[dict[str, str]]:
    """A server per verifier; name → address."""
    addresses = {name: f"http://127.0.0.1:{port + at}" for at, name in enumerate(NAMES)}
    command = [sys.executable, "-m", "benchmarks.rivals"]
    running = [subprocess.Popen([*command, name, str(port + at), kind]) for at, name in enumerate(NAMES)]
    try:
        for address in addresses.values():
            for _ in range(600):
                try:
                    httpx.get(f"{address}/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
        yield addresses
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def over_http(items: Sequence[ScoreItem], addresses: dict[str, str], call_size: int) -> list[dict[str, Any]]:
    """Values by verifier. ``call_size`` 1: a POST per item and verifier; else batches."""
    payloads = [_as_json(item) for item in read(items)]

    async def ask() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = [{} for _ in payloads]
        at_once = asyncio.Semaphore(CALLS_AT_ONCE)
        async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=CALLS_AT_ONCE)) as client:

            async def one(name: str, start: int) -> None:
                async with at_once:
                    if call_size == 1:
                        reply = await client.post(f"{addresses[name]}/score", json=payloads[start])
                        told[start][name] = reply.json()["value"]
                        return
                    batch = payloads[start : start + call_size]
                    reply = await client.post(f"{addresses[name]}/score_batch", json={"items": batch})
                    for offset, value in enumerate(reply.json()["values"]):
                        told[start + offset][name] = value

            starts = range(0, len(payloads), call_size)
            await asyncio.gather(*(one(name, start) for start in starts for name in addresses))
        return told

    return asyncio.run(ask())


class OneItem(BaseModel):
    task: tuple[str, str, str]
    answer: bool | None
    text: str

    def item(self) -> Item:
        return Item(DifferentialExpression(*self.task), self.answer, self.text)


class Batch(BaseModel):
    items: list[OneItem]


def serve(name: str, port: int, kind: str) -> None:
    import uvicorn
    from fastapi import FastAPI

    score = scorer(name, ArtifactStore.default(), kind)
    app = FastAPI()

    def value(outcome: Outcome) -> float | None:
        return outcome.value if isinstance(outcome, Scored) else None

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/score")
    async def score_one(item: OneItem) -> dict[str, float | None]:
        return {"value": value(score([item.item()])[0])}

    @app.post("/score_batch")
    async def score_batch(batch: Batch) -> dict[str, list[float | None]]:
        return {"values": [value(outcome) for outcome in score([item.item() for item in batch.items])]}

    # Idle connections stay: a slow sibling must not cost a fast server its own.
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", timeout_keep_alive=600)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
