"""Observations out of an ``.h5ad``, and the question about them: the published zero-shot form.

An observation (a cell, a sample) is told by its 100 most expressed genes, the highest first. The published question
ends "what do you predict the {label} of this observation to be?"; how the genes stand before it is not known, so that
part is ours. With ``choices`` the labels are offered in the question, which is not the published form: a model that was
never trained on the task can then at least name one.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bioverify.errors import how_to_install
from bioverify_trainer.evaluate.questions import EvaluationError
from bioverify_trainer.preset import PromptPreset
from bioverify_trainer.prompts import Turn, system_turn

N_GENES = 100
TASKS = {"cell-type": "cell type", "disease-state": "disease state"}
"""Names of the tasks on the command line, and what the question calls the label."""

# Textbook cases, with labels that would be offered beside the right one.
_EXAMPLES = {
    "cell-type": (
        "ALB APOA1 APOA2 FGB TF SERPINA1 TTR APOH FGA HP",
        ("erythrocyte", "hepatocyte", "neuron"),
        "ALB and APOA1 are made in the liver.",
        "hepatocyte",
    ),
    "disease-state": (
        "IGHG1 IGKC JCHAIN CCND1 MZB1 XBP1 SDC1 TNFRSF17 IGHG3 HERPUD1",
        ("melanoma", "multiple myeloma", "normal"),
        "IGHG1 is a gene of plasma cells. CCND1 drives their growth in cancer.",
        "multiple myeloma",
    ),
}


@dataclass(frozen=True)
class Observations:
    """``genes``: of each observation, the most expressed first. ``label``: codes into ``labels``."""

    names: tuple[str, ...]
    genes: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    label: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def sample(self, n: int, *, seed: int) -> Observations:
        """``n`` of them at random, in their order; the labels stay those of all. All if there are no more."""
        if n >= len(self):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), n, replace=False))
        return replace(
            self,
            names=tuple(self.names[place] for place in chosen),
            genes=tuple(self.genes[place] for place in chosen),
            label=self.label[chosen],
        )


def read_observations(path: Path, column: str) -> Observations:
    """The observations that have a label in ``column``. Raw counts win over scaled ones. Raises EvaluationError."""
    if importlib.util.find_spec("anndata") is None:
        raise EvaluationError(f"--cells: reading .h5ad needs anndata. {how_to_install('build')}")
    import anndata

    try:
        with warnings.catch_warnings():
            # Old files keep the neighbour graph where anndata no longer wants it; it is not read here.
            warnings.simplefilter("ignore")
            cells = anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        raise EvaluationError(f"--cells {path}: is no .h5ad file ({error})") from error
    if column not in cells.obs:
        raise EvaluationError(f"--label {column}: {path.name} has: {', '.join(map(str, cells.obs.columns))}")
    given = cells.obs[column]
    known = np.flatnonzero(given.notna().to_numpy())
    if not len(known):
        raise EvaluationError(f"--label {column}: no observation of {path.name} has one")
    matrix, names = (cells.X, cells.var_names) if cells.raw is None else (cells.raw.X, cells.raw.var_names)
    labels, label = np.unique(given.iloc[known].astype(str).to_numpy(), return_inverse=True)
    return Observations(
        names=tuple(str(cells.obs_names[place]) for place in known),
        genes=tuple(_highest(matrix[place], [str(name) for name in names]) for place in known),
        labels=tuple(str(one) for one in labels),
        label=label.astype(np.int64),
    )


def _highest(expression: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The most expressed genes, the highest first, those with as much in the file's order; never one that is absent."""
    row = np.ravel(expression.toarray() if hasattr(expression, "toarray") else expression)
    order = np.argsort(-row, kind="stable")[:N_GENES]
    return tuple(names[gene] for gene in order if row[gene] > 0)


def question(task: str, genes: Sequence[str], choices: Sequence[str]) -> str:
    """``choices``: the labels to offer; none: the published, open form."""
    listed = ", ".join(genes)
    asked = f"The {len(genes)} most expressed genes of an observation, the highest first, are: {listed}. "
    offered = f" It is one of: {'; '.join(choices)}." if choices else ""
    return f"{asked}What do you predict the {TASKS[task]} of this observation to be?{offered}"


def conversation(task: str, genes: Sequence[str], choices: Sequence[str], prompts: PromptPreset) -> list[Turn]:
    """The conversation up to the completion; an example turn comes first if the preset asks for any."""
    turns = [system_turn(chain_of_thought=prompts.chain_of_thought)]
    if prompts.example_turns:
        shown, offered, thought, answer = _EXAMPLES[task]
        asked = question(task, shown.split(), offered if choices else ())
        turns.append({"role": "user", "content": asked})
        turns.append({"role": "assistant", "content": f"<think> {thought} </think> <answer> {answer} </answer>"})
    return [*turns, {"role": "user", "content": question(task, genes, choices)}]
