"""The ``consensus`` artifact: how much each verifier's belief counts, fitted to what they say of training rows.

The members are asked as any client asks them. They answer a training question without having been trained on its
perturbation (their READMEs), so the weights are fitted out of fold; a member's own calibration and its correlation
with the others are both in the weights. Lines and kinds of question have weights of their own, and so has every set of
two or more members, fitted to the rows of which all of the set hold a belief.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.perturbqa import CELL_LINE_NAMES, CELL_LINES, read_tables
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest, OpenArtifact
from bioverify.core.consensus import CONSENSUS, Consensus, Stack, logit
from bioverify.core.metrics import calibration_figures, fit_logistic, sigmoid
from bioverify.core.outcomes import Scored
from bioverify.core.tasks import DifferentialExpression, DirectionOfChange, TaskKind
from bioverify.core.verifier import Item, Verifier

NAME = CONSENSUS
FILE = "consensus.json"
MEMBERS = ("esm_mlp", "analogy")
MOST_ROWS = 30_000
"""Of a line and kind of question: a handful of weights needs no more, and the members take a while to answer."""

_TASKS: dict[TaskKind, type[DifferentialExpression | DirectionOfChange]] = {
    TaskKind.DIFFERENTIAL_EXPRESSION: DifferentialExpression,
    TaskKind.DIRECTION_OF_CHANGE: DirectionOfChange,
}

Floats = npt.NDArray[np.float64]


def build(
    store: ArtifactStore, sources: Sources, members: Mapping[str, Verifier], *, progress: Callable[[str], None]
) -> Manifest:
    """Make the artifact. ``members``: verifiers with belief, opened over the artifacts of their names in ``store``."""
    inputs = [store.open(name) for name in members]
    screens = read_tables(sources, progress=progress)
    training = screens.rows.filter(pc.equal(screens.rows["split"], "train"))
    stacks: list[Stack] = []
    quality: dict[str, float] = {}
    counts: dict[str, int] = {}
    for kind in _TASKS:
        for line in CELL_LINES:
            rows = training.filter(pc.and_(pc.equal(training["line"], line), pc.equal(training["task_kind"], kind)))
            rows = rows.take(np.arange(0, rows.num_rows, -(-rows.num_rows // MOST_ROWS)))
            label = rows["label"].to_numpy()
            logits = {name: _logits(verifier, rows, line, kind) for name, verifier in members.items()}
            for size in range(2, len(members) + 1):
                for chosen in combinations(members, size):
                    stack, is_known = fit_stack(line, kind, {name: logits[name] for name in chosen}, label)
                    stacks.append(stack)
                    key = f"{line}.{kind}.{'+'.join(chosen)}"
                    counts[f"{key}.rows"] = int(is_known.sum())
            fitted = sum(weight * logits[name][is_known] for name, weight in stack.weights.items()) + stack.offset
            beliefs = sigmoid(np.asarray(fitted))
            figures = calibration_figures(label[is_known], beliefs)
            quality |= {f"{line}.{kind}.{name}": round(one, 4) for name, one in figures.items()}
            weights = ", ".join(f"{name} {weight:.2f}" for name, weight in stack.weights.items())
            progress(f"consensus: {CELL_LINE_NAMES[line]}, {kind}: {weights}, Brier score {figures['brier']:.3f}")
    consensus = Consensus(
        members={name: verifier.description.fingerprint for name, verifier in members.items()}, stacks=tuple(stacks)
    )
    with store.building(NAME) as folder:
        (folder.path / FILE).write_text(consensus.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return folder.commit(
            description=f"How much the beliefs of {', '.join(members)} count"
            + (", fitted to a simulated screen, not to experiments." if screens.simulated else "."),
            license="; ".join(dict.fromkeys([screens.license, *(one.manifest.license for one in inputs)])),
            sources=screens.records,
            simulated=screens.simulated,
            inputs=inputs,
            parameters={"members": dict(consensus.members), "most_rows": MOST_ROWS},
            counts=counts,
            quality=quality,
        )


def fit_stack(
    line: str, kind: TaskKind, logits: Mapping[str, Floats], label: npt.NDArray[np.int8]
) -> tuple[Stack, npt.NDArray[np.bool_]]:
    """Weights of exactly these members, and the rows that they were fitted to. NaN: the member holds no belief."""
    columns = np.column_stack(list(logits.values()))
    is_known: npt.NDArray[np.bool_] = np.isfinite(columns.sum(axis=1))
    if len(np.unique(label[is_known])) < 2:
        raise ArtifactError(
            f"consensus of {', '.join(logits)} in {line}, {kind}: no training rows of both labels that all of them know"
        )
    *weights, offset = fit_logistic(columns[is_known], label[is_known]).tolist()
    stack = Stack(cell_line=line, task_kind=kind, weights=dict(zip(logits, weights, strict=True)), offset=offset)
    return stack, is_known


def open_consensus(store: ArtifactStore) -> tuple[Consensus, OpenArtifact]:
    """Raises ArtifactError where the artifact is missing or damaged."""
    artifact = store.open(NAME)
    return Consensus.model_validate_json((artifact.path / FILE).read_bytes()), artifact


def _logits(verifier: Verifier, rows: pa.Table, line: str, kind: TaskKind) -> Floats:
    pairs = zip(rows["perturbation"].to_pylist(), rows["measured_gene"].to_pylist(), strict=True)
    items = [Item(_TASKS[kind](perturbation, gene, line), answer=True) for perturbation, gene in pairs]
    outcomes = verifier.score(items, with_evidence=False)
    return np.array(
        [
            logit(outcome.belief) if isinstance(outcome, Scored) and outcome.belief is not None else np.nan
            for outcome in outcomes
        ]
    )
