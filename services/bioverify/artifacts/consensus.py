"""The ``consensus`` artifact: how much each verifier's belief counts, fitted to what they say of training rows.

The members are asked as any client asks them. They answer a training question without having been trained on its
perturbation (their READMEs), so the weights are fitted out of fold, to how the members rank a gene's rows within a
fold; their correlation is in the weights, and the sum is calibrated. Lines and kinds of question have weights of their
own, and so has every set of two or more members, fitted to the rows of which all of the set hold a belief.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest
from bioverify.artifacts.weights import FILE
from bioverify.core.cell_lines import CELL_LINE_NAMES, CELL_LINES
from bioverify.core.consensus import CONSENSUS, Consensus, Stack, logit
from bioverify.core.metrics import calibration_figures, fit_logistic, fit_within, sigmoid
from bioverify.core.outcomes import Scored
from bioverify.core.tasks import TASKS, Knockdown, Task, TaskKind
from bioverify.core.verifier import Item, Verifier

NAME = CONSENSUS
MEMBERS = ("esm_mlp", "analogy")
MOST_ROWS = 30_000
"""Of a line and kind of question: a handful of weights needs no more, and the members take a while to answer."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Member(Verifier, Protocol):
    """A verifier that answers about a training perturbation without having been trained on it."""

    def fold(self, task: Task) -> int:
        """Which fold of perturbations the answer is made without; −1 for none."""
        ...


def build(
    store: ArtifactStore, sources: Sources, members: Mapping[str, Member], *, progress: Callable[[str], None]
) -> Manifest:
    """Make the artifact. ``members``: verifiers with belief, opened over the artifacts of their names in ``store``."""
    inputs = [store.open(name) for name in members]
    screens = read_tables(sources, progress=progress)
    training = screens.rows.filter(pc.equal(screens.rows["split"], "train"))
    stacks: list[Stack] = []
    quality: dict[str, float] = {}
    counts: dict[str, int] = {}
    for kind in [kind for kind, make in TASKS.items() if issubclass(make, Knockdown)]:
        for line in CELL_LINES:
            rows = training.filter(pc.and_(pc.equal(training["line"], line), pc.equal(training["task_kind"], kind)))
            rows = rows.take(np.arange(0, rows.num_rows, -(-rows.num_rows // MOST_ROWS)))
            label = rows["label"].to_numpy()
            items = _items(rows, line, kind)
            logits = {name: _logits(verifier, items) for name, verifier in members.items()}
            groups = {name: _groups(verifier, items) for name, verifier in members.items()}
            for size in range(2, len(members) + 1):
                for chosen in combinations(members, size):
                    told = {name: logits[name] for name in chosen}
                    stack, is_known = fit_stack(line, kind, told, label, groups)
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
    line: str, kind: TaskKind, logits: Mapping[str, Floats], label: npt.NDArray[np.int8], groups: Mapping[str, Ints]
) -> tuple[Stack, npt.NDArray[np.bool_]]:
    """Weights of exactly these members, and the rows that they were fitted to. NaN: the member holds no belief.

    ``groups``: per member each row's gene and fold, as for `fit_within`, which says how the members count against each
    other; their sum is then calibrated.
    """
    columns = np.column_stack(list(logits.values()))
    is_known: npt.NDArray[np.bool_] = np.isfinite(columns.sum(axis=1))
    if len(np.unique(label[is_known])) < 2:
        raise ArtifactError(
            f"consensus of {', '.join(logits)} in {line}, {kind}: no training rows of both labels that all of them know"
        )
    columns, label = columns[is_known], label[is_known]
    ranking = fit_within(columns, label, np.column_stack([groups[name] for name in logits])[is_known])
    scale, offset = fit_logistic((columns @ ranking)[:, None], label).tolist()
    weights = dict(zip(logits, (scale * ranking).tolist(), strict=True))
    return Stack(cell_line=line, task_kind=kind, weights=weights, offset=offset), is_known


def _items(rows: pa.Table, line: str, kind: TaskKind) -> list[Item]:
    pairs = zip(rows["perturbation"].to_pylist(), rows["measured_gene"].to_pylist(), strict=True)
    return [Item(TASKS[kind].about(perturbation, gene, line), answer=True) for perturbation, gene in pairs]


def _logits(verifier: Verifier, items: Sequence[Item]) -> Floats:
    outcomes = verifier.score(items, with_evidence=False)
    return np.array(
        [
            logit(outcome.belief) if isinstance(outcome, Scored) and outcome.belief is not None else np.nan
            for outcome in outcomes
        ]
    )


def _groups(verifier: Member, items: Sequence[Item]) -> Ints:
    tasks = [item.task for item in items if item.task is not None]
    genes = {gene: number for number, gene in enumerate(sorted({task.genes[1] for task in tasks}))}
    return np.array([genes[task.genes[1]] * 128 + verifier.fold(task) for task in tasks])
