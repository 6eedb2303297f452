"""Classifier over gene vectors: what does a net that never saw this cell line expect?

One small net per cell line and kind of question, fed with the vectors of the perturbed and the measured gene; its
sigmoid is the belief. Every line's net was trained on the other lines only. The vectors' origin is said in every
sentence of evidence: rbio's are ESM2's, those built here come from Gene Ontology annotations.

Source: the published rbio demo for the net and leaving out the line; its public history for training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file

from bioverify.artifacts.genes import open_genes
from bioverify.artifacts.perturbqa import CELL_LINE_NAMES, CELL_LINES, SIMULATED_REMARK
from bioverify.artifacts.store import ArtifactStore
from bioverify.artifacts.tables import read_table
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import Evidence, NotApplicable, Outcome
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, TaskKind, canonical_cell_line
from bioverify.core.verifier import ArtifactIdentity, Description, Item, Reads, score_by_belief, unsupported_task
from bioverify.verifiers.esm_mlp.build import KINDS, NAME, NETS_FILE, SYMBOLS_FILE, VECTORS_FILE
from bioverify.verifiers.esm_mlp.net import make_net

BELIEF_DIGITS = 9
"""Beliefs are computed in double precision and rounded, so that they do not depend on the company in a batch."""


class EsmMlp:
    """Soft belief for differential expression, and for its direction."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.ANSWER

    def __init__(
        self,
        resolver: GeneResolver,
        symbols: Sequence[str],
        vectors: torch.Tensor,
        nets: Mapping[tuple[str, TaskKind], torch.nn.Sequential],
        *,
        vector_name: str,
        artifacts: tuple[ArtifactIdentity, ...] = (),
        simulated: bool = False,
    ) -> None:
        """``vectors``: one row per symbol. ``nets``: (cell line, kind of question) → net in double precision."""
        self._resolver = resolver
        self._symbols = symbols
        self._row = {symbol: row for row, symbol in enumerate(symbols)}
        self._vectors = vectors
        self._nets = nets
        self._lines = tuple(dict.fromkeys(line for line, _ in nets))
        self._vector_name = vector_name
        self._simulated = simulated
        self.description = Description(
            name=NAME,
            version="1",
            summary=f"Expectation of a classifier over gene vectors ({vector_name}) trained on the other cell lines.",
            task_kinds=KINDS,
            reads=self.reads,
            holds_belief=True,
            components={"no_answer.*": "1 where the completion holds no answer, with the reason in the name."},
            artifacts=artifacts,
        )

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Value: belief in "yes" (or "increase"), its complement for the other answer.

        Not applicable: ``unknown_gene``, ``ambiguous_gene``, ``unknown_cell_line``, ``no_vector``.
        """
        outcomes: list[Outcome | None] = [None] * len(items)
        asked: dict[tuple[str, TaskKind], list[tuple[int, int, int]]] = defaultdict(list)
        for position, item in enumerate(items):
            found = self._find(item)
            if isinstance(found, NotApplicable):
                outcomes[position] = found
            else:
                net, perturbation, measured = found
                asked[net].append((position, perturbation, measured))
        for net, lookups in asked.items():
            beliefs = self._beliefs(net, [(perturbation, measured) for _, perturbation, measured in lookups])
            for (position, _, _), belief in zip(lookups, beliefs, strict=True):
                evidence = self._explain(net, belief) if with_evidence else ()
                outcomes[position] = score_by_belief(belief, items[position].answer, evidence, {})
        return [outcome for outcome in outcomes if outcome is not None]

    def canary(self) -> tuple[Item, Outcome]:
        """The first two genes of the table in the first line, by the net's weights written out."""
        line = self._lines[0]
        net = line, TaskKind.DIFFERENTIAL_EXPRESSION
        weights = self._nets[net].state_dict()
        pair = torch.cat([self._vectors[0], self._vectors[1]]).double()
        hidden = torch.clamp(weights["0.weight"] @ pair + weights["0.bias"], min=0.0)
        logit = weights["2.weight"] @ hidden + weights["2.bias"]
        belief = round(float(torch.sigmoid(logit)), BELIEF_DIGITS)
        item = Item(DifferentialExpression(self._symbols[0], self._symbols[1], line), answer=True)
        return item, score_by_belief(belief, True, self._explain(net, belief), {})

    def _find(self, item: Item) -> tuple[tuple[str, TaskKind], int, int] | NotApplicable:
        task = item.task
        if not isinstance(task, DifferentialExpression | DirectionOfChange):
            refusal = unsupported_task(task, KINDS)
            assert refusal is not None
            return refusal
        line = canonical_cell_line(task.cell_line)
        if (line, task.kind) not in self._nets:
            return NotApplicable("unknown_cell_line", f"{task.cell_line} is not one of {', '.join(self._lines)}.")
        rows: list[int] = []
        for asked in task.genes:
            symbol = self._resolver.resolve(asked)
            if isinstance(symbol, NotApplicable):
                return symbol
            row = self._row.get(symbol)
            if row is None:
                return NotApplicable("no_vector", f"{symbol} has no vector ({self._vector_name}).")
            rows.append(row)
        return (line, task.kind), rows[0], rows[1]

    @torch.inference_mode()
    def _beliefs(self, net: tuple[str, TaskKind], pairs: list[tuple[int, int]]) -> list[float]:
        rows = torch.tensor(pairs)
        inputs = torch.cat([self._vectors[rows[:, 0]], self._vectors[rows[:, 1]]], dim=1).double()
        beliefs: list[float] = torch.sigmoid(self._nets[net](inputs).squeeze(1)).tolist()
        return [round(belief, BELIEF_DIGITS) for belief in beliefs]

    def _explain(self, net: tuple[str, TaskKind], belief: float) -> tuple[Evidence, ...]:
        line, kind = net
        affirmed = "increase" if kind is TaskKind.DIRECTION_OF_CHANGE else "yes"
        others = ", ".join(CELL_LINE_NAMES[other] for other in self._lines if other != line)
        text = f"p({affirmed}) = {belief:.2f} (MLP trained on {others}; vectors: {self._vector_name})"
        if self._simulated:
            text = f"{text} ({SIMULATED_REMARK})"
        return (Evidence(text, source=self._vector_name, simulated=self._simulated),)


def open_verifier(store: ArtifactStore) -> EsmMlp:
    """Open the artifacts ``genes`` and ``esm_mlp``. Raises ArtifactError with the command that mends it."""
    # The nets are tiny: more threads only wait for one another.
    torch.set_num_threads(1)
    resolver, genes = open_genes(store)
    artifact = store.open(NAME)
    vectors = load_file(artifact.path / VECTORS_FILE)["vectors"]
    return EsmMlp(
        resolver,
        read_table(artifact.path / SYMBOLS_FILE)["symbol"].to_pylist(),
        vectors,
        _load_nets(artifact.path / NETS_FILE, vectors.shape[1]),
        vector_name=str(artifact.manifest.parameters["vectors"]),
        artifacts=(artifact.identity, genes.identity),
        simulated=artifact.manifest.simulated,
    )


def _load_nets(path: Path, dimensions: int) -> dict[tuple[str, TaskKind], torch.nn.Sequential]:
    weights = load_file(path)
    nets = {}
    for line in CELL_LINES:
        for kind in KINDS:
            net = make_net(dimensions)
            prefix = f"{line}.{kind}."
            own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
            net.load_state_dict(own)
            nets[line, kind] = net.double().eval().requires_grad_(requires_grad=False)
    return nets
