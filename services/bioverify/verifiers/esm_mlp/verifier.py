"""Classifier over gene vectors: what does a net expect that never saw this perturbation?

A few small nets per cell line and kind of question, fed with the vectors of the perturbed and the measured gene; their
calibrated sigmoid is the belief. Which net, what it was trained on and where the vectors come from are parameters of
the artifact and said in every sentence of evidence: rbio's vectors are ESM2's, those built by default come from Gene
Ontology annotations.

Source: the published rbio demo for its net and for leaving out the line; its public history for training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from safetensors.numpy import load_file

from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore, OpenArtifact
from bioverify.artifacts.tables import read_served
from bioverify.artifacts.vectors import NAME, SYMBOLS_FILE, VECTORS_FILE
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.genes import GeneResolver
from bioverify.core.knockdowns import COMPONENTS, KINDS, KnockdownModels, Question
from bioverify.core.outcomes import Outcome
from bioverify.core.tasks import Task, TaskKind
from bioverify.core.verifier import ArtifactIdentity, Description, Item, Reads
from bioverify.verifiers.esm_mlp.artifact import NETS_FILE
from bioverify.verifiers.esm_mlp.served import LineNets, ServedNet, ServedRbioNet, ServedTwoTowerNet

_NET_NAMES = {"rbio": "MLP", "two_tower": "two-tower MLP"}


class EsmMlp:
    """Soft belief for differential expression, and for its direction."""

    reads: ClassVar[Reads] = Reads.TASK | Reads.ANSWER

    def __init__(
        self,
        resolver: GeneResolver,
        symbols: Sequence[str],
        nets: Mapping[tuple[str, TaskKind], LineNets],
        *,
        net: str,
        form: str,
        vector_name: str,
        scores_base_rate: bool,
        canary_belief: float,
        artifacts: tuple[ArtifactIdentity, ...] = (),
        simulated: bool = False,
    ) -> None:
        """``symbols``: of the rows of the nets' vectors. ``nets``: by cell line and kind of question.

        ``net``, ``form``, ``vector_name``, ``scores_base_rate``: as the artifact's parameters say them.
        ``canary_belief``: of "yes" for `canary_pair` in the first line, from the build.
        """
        self._models = KnockdownModels(
            resolver,
            symbols,
            nets,
            vector_name=vector_name,
            own_lines=form == "own",
            scores_base_rate=scores_base_rate,
            simulated=simulated,
        )
        how = " without this perturbation" if form == "own" else f"; {form} transfer"
        self._provenance = {
            line: f" ({_NET_NAMES[net]} trained on {self._models.trained_on(line)}{how}; vectors: {vector_name})"
            for line, _ in nets
        }
        self._canary_belief = canary_belief
        self.description = Description(
            name=NAME,
            version="4",
            summary=f"Expectation of a {_NET_NAMES[net]} over gene vectors ({vector_name}), form of training: {form}.",
            task_kinds=KINDS,
            reads=self.reads,
            holds_belief=True,
            components=COMPONENTS,
            artifacts=artifacts,
        )

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        """One outcome per item, in order. Value: belief in "yes" (or "increase"), its complement for the other answer.

        Not applicable: `KnockdownModels.score`.
        """
        return self._models.score(items, self._explain, with_evidence=with_evidence)

    def fold(self, task: Task) -> int:
        """The fold of training perturbations that the answer is made without; −1 for none, or for no answer."""
        return self._models.fold(task)

    def canary(self) -> tuple[Item, Outcome]:
        """A pair in the first line, with the belief that the build computed."""
        return self._models.canary(self._canary_belief, self._explain)

    def canary_items(self) -> list[Item]:
        return self._models.canary_items()

    def _explain(self, question: Question, _belief: float, _usual: float) -> str:
        return self._provenance[question.line]


def open_verifier(store: ArtifactStore) -> EsmMlp:
    """Open the artifacts ``genes`` and ``esm_mlp``. Raises ArtifactError with the command that mends it."""
    resolver, genes = open_genes(store)
    artifact = store.open(NAME)
    parameters = artifact.manifest.parameters
    return EsmMlp(
        resolver,
        read_served(artifact, SYMBOLS_FILE).strings("symbol"),
        _load_nets(artifact),
        net=str(parameters["net"]),
        form=str(parameters["form"]),
        vector_name=str(parameters["vectors"]),
        scores_base_rate=artifact.parameter("base_rate") == "score",
        canary_belief=float(str(parameters["canary_belief"])),
        artifacts=(artifact.identity, genes.identity),
        simulated=artifact.manifest.simulated,
    )


def _load_nets(artifact: OpenArtifact) -> dict[tuple[str, TaskKind], LineNets]:
    artifact.parameter("rate_prior_rows")  # first: without it the file has no rates
    weights = load_file(artifact.path / NETS_FILE)
    vectors = load_file(artifact.path / VECTORS_FILE)["vectors"]
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
            of_line[line, kind] = LineNets(
                nets,
                vectors,
                weights[f"{key}.fold"],
                weights[f"{key}.has_rows"],
                weights[f"{key}.rates"],
                scale,
                offset,
            )
    return of_line
