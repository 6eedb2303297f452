"""Classifier over gene vectors: what does a net expect that never saw this perturbation?

A few small nets per cell line and kind of question, fed with the vectors of the perturbed and the measured gene; their
calibrated sigmoid is the belief. Which net, what it was trained on and where the vectors come from are parameters of
the artifact and said in every sentence of evidence: rbio's vectors are ESM2's, those built by default come from Gene
Ontology annotations.

Source: the published rbio demo for its net and for leaving out the line; its public history for training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from bioverify.artifacts.cell_lines import CELL_LINE_NAMES, CELL_LINES
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore, OpenArtifact
from bioverify.artifacts.tables import read_served
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import SIMULATED_REMARK, Evidence, NotApplicable, Outcome
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, Task, TaskKind, canonical_cell_line
from bioverify.core.verifier import ArtifactIdentity, Description, Item, Reads, score_by_belief, unsupported_task
from bioverify.verifiers.esm_mlp.artifact import KINDS, NAME, NETS_FILE, SYMBOLS_FILE, VECTORS_FILE
from bioverify.verifiers.esm_mlp.served import LineNets, ServedNet, ServedRbioNet, ServedTwoTowerNet

_NET_NAMES = {"rbio": "MLP", "two_tower": "two-tower MLP"}


class EsmMlp:
    """Soft belief for differential expression, and for its direction."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.ANSWER

    def __init__(
        self,
        resolver: GeneResolver,
        symbols: Sequence[str],
        vectors: npt.NDArray[np.float32],
        nets: Mapping[tuple[str, TaskKind], LineNets],
        *,
        net: str,
        form: str,
        vector_name: str,
        canary_belief: float,
        artifacts: tuple[ArtifactIdentity, ...] = (),
        simulated: bool = False,
    ) -> None:
        """``vectors``: one row per symbol. ``nets``: by cell line and kind of question.

        ``net``, ``form``, ``vector_name``: as the artifact's parameters say them.
        ``canary_belief``: of "yes" for the first two genes in the first line, from the build.
        """
        self._resolver = resolver
        self._symbols = symbols
        self._row = {symbol: row for row, symbol in enumerate(symbols)}
        self._vectors = vectors
        self._nets = nets
        self._lines = tuple(dict.fromkeys(line for line, _ in nets))
        self._net_name, self._form = _NET_NAMES[net], form
        self._vector_name = vector_name
        self._canary_belief = canary_belief
        self._simulated = simulated
        self.description = Description(
            name=NAME,
            version="2",
            summary=f"Expectation of a {self._net_name} over gene vectors ({vector_name}), form of training: {form}.",
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
            pairs = np.array([(perturbation, measured) for _, perturbation, measured in lookups])
            beliefs = self._nets[net].beliefs(self._vectors, pairs[:, 0], pairs[:, 1])
            for (position, _, _), belief in zip(lookups, beliefs, strict=True):
                evidence = self._explain(net, belief) if with_evidence else ()
                outcomes[position] = score_by_belief(belief, items[position].answer, evidence, {})
        return [outcome for outcome in outcomes if outcome is not None]

    def fold(self, task: Task) -> int:
        """The fold of training perturbations that the answer is made without; −1 for none, or for no answer."""
        found = self._find(Item(task))
        return -1 if isinstance(found, NotApplicable) else int(self._nets[found[0]].fold[found[1]])

    def canary(self) -> tuple[Item, Outcome]:
        """The first two genes of the table in the first line, with the belief that the build computed."""
        net = self._lines[0], TaskKind.DIFFERENTIAL_EXPRESSION
        item = Item(DifferentialExpression(self._symbols[0], self._symbols[1], net[0]), answer=True)
        return item, score_by_belief(self._canary_belief, True, self._explain(net, self._canary_belief), {})

    def _find(self, item: Item) -> tuple[tuple[str, TaskKind], int, int] | NotApplicable:
        task = item.task
        if not isinstance(task, DifferentialExpression | DirectionOfChange):
            refusal = unsupported_task(task, KINDS)
            assert refusal is not None
            return refusal
        line = canonical_cell_line(task.cell_line)
        if (line, task.kind) not in self._nets:
            return NotApplicable("unknown_cell_line", f"{task.cell_line} is not one of {', '.join(self._lines)}.")
        rows = self._resolver.rows(
            task.genes,
            self._row,
            lambda symbol: NotApplicable("no_vector", f"{symbol} has no vector ({self._vector_name})."),
        )
        if isinstance(rows, NotApplicable):
            return rows
        return (line, task.kind), rows[0], rows[1]

    def _explain(self, net: tuple[str, TaskKind], belief: float) -> tuple[Evidence, ...]:
        line, kind = net
        affirmed = "increase" if kind is TaskKind.DIRECTION_OF_CHANGE else "yes"
        own = CELL_LINE_NAMES[line]
        others = ", ".join(CELL_LINE_NAMES[other] for other in self._lines if other != line)
        learned = f"trained on {own} without this perturbation" if self._form == "own" else f"trained on {others}"
        remark = f"; {self._form} transfer" if self._form != "own" else ""
        text = f"p({affirmed}) = {belief:.2f} ({self._net_name} {learned}{remark}; vectors: {self._vector_name})"
        if self._simulated:
            text = f"{text} ({SIMULATED_REMARK})"
        return (Evidence(text, source=self._vector_name, simulated=self._simulated),)


def open_verifier(store: ArtifactStore) -> EsmMlp:
    """Open the artifacts ``genes`` and ``esm_mlp``. Raises ArtifactError with the command that mends it."""
    resolver, genes = open_genes(store)
    artifact = store.open(NAME)
    parameters = artifact.manifest.parameters
    vectors = load_file(artifact.path / VECTORS_FILE)["vectors"]
    return EsmMlp(
        resolver,
        read_served(artifact, SYMBOLS_FILE).strings("symbol"),
        vectors,
        _load_nets(artifact),
        net=str(parameters["net"]),
        form=str(parameters["form"]),
        vector_name=str(parameters["vectors"]),
        canary_belief=float(str(parameters["canary_belief"])),
        artifacts=(artifact.identity, genes.identity),
        simulated=artifact.manifest.simulated,
    )


def _load_nets(artifact: OpenArtifact) -> dict[tuple[str, TaskKind], LineNets]:
    weights = load_file(artifact.path / NETS_FILE)
    parameters = artifact.manifest.parameters
    calibration, folds = parameters["calibration"], parameters["folds"]
    assert isinstance(calibration, dict)
    assert isinstance(folds, int)
    of_line = {}
    for line in CELL_LINES:
        for kind in KINDS:
            key = f"{line}.{kind}"
            nets: list[ServedNet] = []
            for number in range(folds):
                prefix = f"{key}.{number}."
                own = {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
                nets.append(ServedRbioNet(own) if parameters["net"] == "rbio" else ServedTwoTowerNet(own))
            scale, offset = (float(number) for number in calibration[key].split())
            of_line[line, kind] = LineNets(nets, weights[f"{key}.fold"], scale, offset)
    return of_line
