"""What `benchmarks.quality` measures: each part scores the test rows of one line, kind of question and seed,
or what stands for them.

A part is trained on training rows only and returns, by name, a score per test row and, where one is calibrated, a
belief. Calibration and consensus are fitted to out-of-fold answers about training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bioverify.artifacts.consensus import fit_stack
from bioverify.artifacts.vectors import Vectors
from bioverify.core.knockdowns import smoothed_rates
from bioverify.core.metrics import fit_logistic, pooled_measures, sigmoid
from bioverify.core.tasks import TaskKind
from bioverify.verifiers.analogy import neighbours as analogy
from bioverify.verifiers.analogy.fit import FOLDS, KEPT_BYTES
from bioverify.verifiers.analogy.fit import fit as fit_analogy
from bioverify.verifiers.analogy.kept import Kept
from bioverify.verifiers.analogy.kept import Rows as Pairs
from bioverify.verifiers.analogy.neighbours import leading_components, unit_vectors
from bioverify.verifiers.esm_mlp.build import Floats, Table, fit
from bioverify.verifiers.esm_mlp.settings import Form, Settings
from bioverify.verifiers.esm_mlp.train import Rows

BASE_RATE_FOLDS = 5
THRESHOLDS = tuple(round(0.05 + 0.025 * step, 3) for step in range(37))


@dataclass(frozen=True)
class Scores:
    """``score``: a number per test row, of which only the order counts. ``belief``: a probability, where there is one.

    ``threshold``: a belief of at least this is a "yes", chosen by training rows. ``known``: of a verifier, whose score
    is the logit of its belief, the same about training rows, out of fold.
    """

    score: Floats
    belief: Floats | None = None
    threshold: float = 0.5
    known: Floats | None = None


@dataclass(frozen=True)
class Inputs:
    """``table``: rows whose genes have vectors. ``written``: all rows, which baselines read. ``seed``: of the fits.

    ``vectors``: what nets are fed with. ``joint``: what genes are compared by. ``settings``: how the nets are built.
    """

    table: Table
    written: Table
    vectors: Vectors
    joint: Vectors
    line: str
    kind: TaskKind
    seed: int
    settings: Settings

    @property
    def training(self) -> Rows:
        return self.table.of(self.line, self.kind, "train")

    @property
    def asked(self) -> Rows:
        return self.table.of(self.line, self.kind, "test")


def mlp(inputs: Inputs) -> dict[str, Scores]:
    """The verifier as it is built, on the line's own training rows."""
    training, vectors = inputs.training, inputs.vectors
    net = fit(training, training, vectors, inputs.settings.model_copy(update={"seed": inputs.seed}))
    return {"MLP": calibrated(training, net.logits(training, vectors), net.logits(inputs.asked, vectors))}


def neighbours_and_trees(inputs: Inputs) -> dict[str, Scores]:
    """The verifier analogy as it is built, and each of its three parts alone."""
    training, asked, unit = inputs.training, pairs(inputs.asked), unit_vectors(inputs.joint)
    others = [pairs(rows) for rows in inputs.table.of_other_lines(inputs.line, inputs.kind)]
    model, _, known = fit_analogy(pairs(training), others, unit, leading_components(unit), FOLDS, inputs.seed)
    features, scored = model.neighbours.features(asked.perturbation, asked.gene)
    new = model.logits(model.design(asked.perturbation, asked.gene, features, scored))
    return {
        "neighbours": Scores(scored[:, 0]),
        "kriging": Scores(scored[:, 1]),
        "boosted trees": Scores(model.tree_logits(asked.perturbation, features)),
        "analogy": calibrated(training, known, new),
    }


def consensus(inputs: Inputs, members: Mapping[str, Scores]) -> dict[str, Scores]:
    """The stack of the members' beliefs, fitted out of fold as the artifact is."""
    training, label = inputs.training, inputs.training.label
    number = np.unique(training.perturbation, return_inverse=True)[1]
    folds = {"MLP": inputs.settings.folds, "analogy": FOLDS}
    groups = {name: training.measured_gene.astype(np.int64) * 128 + number % folds[name] for name in members}
    known = {name: one.known for name, one in members.items() if one.known is not None}
    stack, _ = fit_stack(inputs.line, inputs.kind, known, label, groups)
    on_known, on_new = (
        np.sum([weight * logits[name] for name, weight in stack.weights.items()], axis=0) + stack.offset
        for logits in (known, {name: one.score for name, one in members.items()})
    )
    return {"consensus": Scores(on_new, sigmoid(on_new), best_threshold(label, sigmoid(on_known)))}


def calibrated(training: Rows, known: Floats, new: Floats) -> Scores:
    """Logits of beliefs: temperature and offset are fitted to out-of-fold answers about training rows."""
    scale, offset = fit_logistic(known[:, None], training.label)
    known, new = scale * known + offset, scale * new + offset
    return Scores(new, sigmoid(new), best_threshold(training.label, sigmoid(known)), known)


def rbio_net(inputs: Inputs) -> dict[str, Scores]:
    """rbio's net as published (30 epochs of class-balanced batches), on the line's own training rows."""
    rbio = Settings(net="rbio", form="loose", seed=inputs.seed)  # loose: one net over all rows
    net = fit(inputs.training, inputs.training, inputs.vectors, rbio)
    return {"rbio's net": Scores(net.logits(inputs.asked, inputs.vectors))}


def shuffled(inputs: Inputs) -> dict[str, Scores]:
    """The control: the net and the neighbours with every gene given the vector of another one."""
    order = np.random.default_rng(inputs.seed).permutation(len(inputs.vectors))
    other, unit = inputs.vectors[order], unit_vectors(inputs.joint[order])
    training, asked = inputs.training, inputs.asked
    net = fit(training, training, other, Settings(form="loose", seed=inputs.seed))
    remark = "shuffled vectors"
    return {f"MLP, {remark}": Scores(net.logits(asked, other)), **alike(training, asked, unit, remark)}


def transfer(form: Form) -> Callable[[Inputs], dict[str, Scores]]:
    """Trained on the other lines' training rows alone."""

    def of(inputs: Inputs) -> dict[str, Scores]:
        rows = inputs.table.training_rows(inputs.line, inputs.kind, form)
        one = Settings(form="loose", seed=inputs.seed)  # one net over all of these rows
        net = fit(rows, rows, inputs.vectors, one).logits(inputs.asked, inputs.vectors)
        remark = f"{form} transfer"
        return {f"MLP, {remark}": Scores(net), **alike(rows, inputs.asked, unit_vectors(inputs.joint), remark)}

    return of


def trivial(inputs: Inputs) -> dict[str, Scores]:
    """The baselines that know nothing of the pair. They read all rows: none needs a vector."""
    table, line, kind = inputs.written, inputs.line, inputs.kind
    training, asked = table.of(line, kind, "train"), table.of(line, kind, "test")
    rate = base_rate(training, asked)
    threshold = best_threshold(training.label, base_rate_out_of_fold(training))
    return {
        "always yes": Scores(np.ones(len(asked)), np.ones(len(asked))),
        "gene base rate": Scores(rate, rate, threshold),
        "rate in other lines (loose)": Scores(rate_in_other_lines(table, line, kind, asked)),
    }


PARTS: dict[str, Callable[[Inputs], dict[str, Scores]]] = {
    "trivial": trivial,
    "rbio": rbio_net,
    "mlp": mlp,
    "analogy": neighbours_and_trees,
    "shuffled": shuffled,
    "strict": transfer("strict"),
    "loose": transfer("loose"),
}
ONCE = ("trivial", "rbio", "strict", "loose")
"""Parts that are measured with the first seed only: they are fixed, or take long."""
MEMBERS = {"mlp": "MLP", "analogy": "analogy"}
"""Parts with a verifier that the consensus is made of, and the verifier's name in them."""


def alike(training: Rows, asked: Rows, unit: Floats, remark: str) -> dict[str, Scores]:
    """Neighbours and kriging, without trees."""
    rows, no_fold, kept = pairs(training), np.full(len(unit), -1, np.int8), Kept(KEPT_BYTES)
    solved = analogy.krige(rows, unit)[None, :]
    line = analogy.Neighbours(rows, no_fold, unit, leading_components(unit), solved, kept)
    _, scored = line.features(asked.perturbation, asked.measured_gene)
    return {f"{name}, {remark}": Scores(scored[:, column]) for column, name in enumerate(analogy.SCORES)}


def base_rate(training: Rows, asked: Rows) -> Floats:
    """(positives + 2 · prior)/(rows + 2) of the measured gene, in the line's training rows."""
    n_genes = int(max(training.measured_gene.max(), asked.measured_gene.max())) + 1
    rate = smoothed_rates(training.measured_gene, training.label, n_genes)
    return rate[asked.measured_gene]


def base_rate_out_of_fold(training: Rows) -> Floats:
    """The same of training rows, each without its perturbation's fold (sorted, index mod 5)."""
    perturbations, of_row = np.unique(training.perturbation, return_inverse=True)
    fold = (np.arange(len(perturbations)) % BASE_RATE_FOLDS)[of_row]
    rate = np.empty(len(training))
    for one in range(BASE_RATE_FOLDS):
        rate[fold == one] = base_rate(training.where(fold != one), training.where(fold == one))
    return rate


def best_threshold(label: npt.NDArray[np.int8], belief: Floats) -> float:
    """The one of .05, .075 … .95 with the best pooled F1."""
    return max(THRESHOLDS, key=lambda threshold: pooled_measures(label, belief >= threshold)["f1"])


def rate_in_other_lines(table: Table, line: str, kind: TaskKind, asked: Rows) -> Floats:
    """The pair's mean label elsewhere, else the perturbation's smoothed rate elsewhere. Reads all rows: loose."""
    elsewhere = table.rows.where((table.line != line) & (table.kind == kind.value))
    prior = float(table.of(line, kind, "train").label.mean())
    size = int(max(table.rows.perturbation.max(), table.rows.measured_gene.max())) + 1
    rows = np.bincount(elsewhere.perturbation, minlength=size)
    positives = np.bincount(elsewhere.perturbation, elsewhere.label, size)
    scores = ((positives + 2 * prior) / (rows + 2))[asked.perturbation]
    pair = elsewhere.perturbation * size + elsewhere.measured_gene
    codes, of_row = np.unique(pair, return_inverse=True)
    mean = np.bincount(of_row, elsewhere.label) / np.bincount(of_row)
    wanted = asked.perturbation * size + asked.measured_gene
    position = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    is_measured = codes[position] == wanted
    scores[is_measured] = mean[position[is_measured]]
    return scores


def as_written(rows: pa.Table) -> Table:
    """All rows, genes by the names that the files use: baselines need no vectors, so no row is left out."""
    index = {name: code for code, name in enumerate(names_of(rows))}

    def codes(name: str) -> npt.NDArray[np.int64]:
        encoded = rows[name].combine_chunks()
        # A dictionary may hold names of rows that are left out.
        own = [index.get(written, -1) for written in encoded.dictionary.to_pylist()]
        chosen: npt.NDArray[np.int64] = np.array(own, np.int64)[encoded.indices.to_numpy()]
        return chosen

    def texts(name: str) -> npt.NDArray[np.str_]:
        encoded = rows[name].combine_chunks()
        chosen: npt.NDArray[np.str_] = np.array(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
        return chosen

    every = Rows(codes("perturbation"), codes("measured_gene"), rows["label"].to_numpy())
    return Table(every, texts("line"), texts("task_kind"), texts("split"))


def names_of(rows: pa.Table) -> list[str]:
    """All genes of the rows as the files write them, sorted: the codes of `as_written`."""
    return sorted({*rows["perturbation"].unique().to_pylist(), *rows["measured_gene"].unique().to_pylist()})


def pairs(rows: Rows) -> Pairs:
    return Pairs(rows.perturbation, rows.measured_gene, rows.label)
