"""Makes the ``esm_mlp`` artifact: one vector per gene, and per cell line and kind of question a few trained nets.

Forms of training, for a line's nets:

* ``own``: the line's own training rows.
* ``strict``: training rows of the *other* lines, as rbio leaves the line out, without the perturbations that the line
  itself tests, which other lines' rows would otherwise give away.
* ``loose``: training rows of the other lines, those perturbations included.

Perturbations are dealt into folds (sorted, index mod folds), and one net per fold is trained without it. What they
say of the line's own training rows, each asked of a net that has not seen the perturbation, gives the calibration (a
temperature and an offset) and the quality figures. In the loose form other lines' rows of a perturbation are the
point, so one net sees all. Nets on shuffled vectors must stay near one half, one of them within its shuffle's chance
(±.07 in direction, docs/quality.md). No test row is read, beyond the tested perturbations' names.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors

from bioverify.artifacts.arrow import write_served
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.go import read_annotations
from bioverify.artifacts.perturbqa import Screens, read_tables
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore, Manifest, SourceRecord
from bioverify.artifacts.vectors import JOINT_FILE, NAME, SYMBOLS_FILE, VECTORS_FILE, Vectors
from bioverify.core.cell_lines import CELL_LINE_NAMES, CELL_LINES
from bioverify.core.genes import GeneResolver
from bioverify.core.knockdowns import KINDS, RATE_PRIOR_ROWS, canary_pair, rates_outside_folds, rows_outside_folds
from bioverify.core.metrics import auc_per_gene, calibration_figures, fit_logistic
from bioverify.core.metrics import sigmoid as probability
from bioverify.core.tasks import TaskKind
from bioverify.core.verifier import canaries_of
from bioverify.verifiers.esm_mlp.artifact import NETS_FILE
from bioverify.verifiers.esm_mlp.embeddings import GeneVectors, beside, reduced
from bioverify.verifiers.esm_mlp.knowledge import read_public, read_sources
from bioverify.verifiers.esm_mlp.net import RbioNet, TwoTowerNet
from bioverify.verifiers.esm_mlp.served import BELIEF_DIGITS
from bioverify.verifiers.esm_mlp.settings import KNOWLEDGE_WEIGHTS, Form, Settings
from bioverify.verifiers.esm_mlp.train import Rows, logits, train_rbio, train_two_tower
from bioverify.verifiers.esm_mlp.vectors import go_svd
from bioverify.verifiers.esm_mlp.verifier import open_verifier

Texts = npt.NDArray[np.str_]
Floats = npt.NDArray[np.float64]

MOST_AT_ONCE = 2
"""Of lines and kinds that are fitted: more hold more memory."""
WORTH_PROCESSES = 200_000
"""With fewer rows the start of two processes takes as long as it saves."""


@dataclass(frozen=True)
class Table:
    """All rows whose genes have vectors."""

    rows: Rows
    line: Texts
    kind: Texts
    split: Texts

    def of(self, line: str, kind: TaskKind, split: str) -> Rows:
        return self.rows.where((self.line == line) & (self.kind == kind.value) & (self.split == split))

    def training_rows(self, line: str, kind: TaskKind, form: Form) -> Rows:
        """What the line's nets may learn from."""
        if form == "own":
            return self.of(line, kind, "train")
        allowed = (self.line != line) & (self.kind == kind.value) & (self.split == "train")
        if form == "strict":
            allowed &= ~self._is_tested_in(line)
        return self.rows.where(allowed)

    def of_other_lines(self, line: str, kind: TaskKind) -> list[Rows]:
        """The strict form's rows, each line apart."""
        allowed = (self.kind == kind.value) & (self.split == "train") & ~self._is_tested_in(line)
        chosen = (allowed & (self.line == other) for other in CELL_LINES if other != line)
        return [self.rows.where(one) for one in chosen if one.any()]

    def _is_tested_in(self, line: str) -> npt.NDArray[np.bool_]:
        tested = np.unique(self.rows.perturbation[(self.line == line) & (self.split == "test")])
        return np.isin(self.rows.perturbation, tested)


@dataclass(frozen=True)
class Trained:
    """Nets of a line and kind; ``fold``: per gene the net that was trained without it, −1 for none."""

    nets: list[RbioNet | TwoTowerNet]
    fold: npt.NDArray[np.int8]

    def logits(self, rows: Rows, vectors: Vectors) -> Floats:
        """Each row by the net that has not seen its perturbation, or by the mean of all."""
        every = np.stack([logits(net, rows, vectors) for net in self.nets])
        fold = self.fold[rows.perturbation]
        own = every[np.maximum(fold, 0), np.arange(len(rows))]
        return np.where(fold >= 0, own, every.mean(axis=0))


def build(
    store: ArtifactStore,
    sources: Sources,
    *,
    progress: Callable[[str], None],
    settings: Settings | None = None,
) -> Manifest:
    """Make the artifact, after ``genes``. Raises ArtifactError if there is no vector at all."""
    settings = settings or Settings()
    resolver, genes = open_genes(store)
    joint, records = vectors_of(settings, sources, resolver, progress=progress)
    vectors = reduced(joint, settings.reduce_to)
    screens = read_tables(sources, progress=progress)
    table, covered = with_vectors(screens, resolver, vectors.symbols)

    weights: dict[str, torch.Tensor] = {}
    quality: dict[str, float] = {}
    calibration: dict[str, str] = {}
    counts = {"vectors": len(vectors.symbols), "rows_without_vector": screens.rows.num_rows - len(table.rows)}
    canary = ""
    parts = [(kind, line) for kind in KINDS for line in CELL_LINES]
    rows_of = [(table.training_rows(line, kind, settings.form), table.of(line, kind, "train")) for kind, line in parts]
    each = fitted(rows_of, vectors.vectors, settings)
    for (kind, line), (rows, own), one in zip(parts, rows_of, each, strict=True):
        key = f"{line}.{kind}"
        trained, figures = one.trained, one.figures
        counts[f"{key}.training_rows"] = len(rows)
        calibration[key] = f"{one.scale!r} {one.offset!r}"
        quality |= {f"{key}.{name}": round(value, 4) for name, value in figures.items() if not math.isnan(value)}
        for number, net in enumerate(trained.nets):
            weights |= {f"{key}.{number}.{name}": tensor for name, tensor in net.state_dict().items()}
        weights[f"{key}.fold"] = torch.from_numpy(trained.fold)
        has_rows = rows_outside_folds(rows.perturbation, rows.measured_gene, trained.fold, len(trained.nets))
        weights[f"{key}.has_rows"] = torch.from_numpy(has_rows)
        weights[f"{key}.rates"] = torch.from_numpy(rates_of(own, trained, settings.form).astype(np.float32))
        if not canary:
            asked = canary_pair(trained.fold, has_rows)
            canary = repr(_belief_of(asked, trained, one.scale, one.offset, vectors.vectors))
        progress(
            f"esm_mlp: {CELL_LINE_NAMES[line]}, {kind}: {len(rows):,} rows, per-gene AUC out of fold "
            f"{figures['auc_per_gene']:.3f} (shuffled vectors {figures['auc_per_gene_shuffled_vectors']:.3f}), "
            f"calibration error {figures['calibration_error']:.3f}"
        )
    with store.building(NAME) as folder:
        save_arrays({"vectors": vectors.vectors}, folder.path / VECTORS_FILE)
        if vectors is not joint:
            save_arrays({"vectors": joint.vectors}, folder.path / JOINT_FILE)
        save_tensors(weights, folder.path / NETS_FILE)
        write_served(pa.table({"symbol": vectors.symbols}), folder.path / SYMBOLS_FILE)
        return folder.commit(
            canaries=lambda built: canaries_of(open_verifier(built)),
            description=f"Classifiers over gene vectors ({vectors.name}), {_FORMS[settings.form]}"
            + (", trained on a simulated screen, not on experiments." if screens.simulated else "."),
            license="; ".join(dict.fromkeys([screens.license, *(one.license for one in records)])),
            sources=[*screens.records, *records],
            simulated=screens.simulated,
            inputs=[genes],
            parameters={
                "net": settings.net,
                "form": settings.form,
                "folds": settings.folds if settings.form != "loose" else 1,
                **({"epochs": settings.epochs} if settings.net == "rbio" else {"steps": settings.steps}),
                "seed": settings.seed,
                "vectors": vectors.name,
                "joint_vectors": joint.name,
                "base_rate": settings.base_rate,
                "rate_prior_rows": RATE_PRIOR_ROWS,
                "calibration": calibration,
                "canary_belief": canary,
            },
            counts=counts,
            coverage={"rows_with_vectors": covered},
            quality=quality,
        )


_FORMS: dict[Form, str] = {
    "own": "each cell line's on its own training rows",
    "strict": "one cell line left out (strict: without its tested perturbations)",
    "loose": "one cell line left out (loose: other lines' rows of its tested perturbations are used)",
}


def vectors_of(
    settings: Settings, sources: Sources, resolver: GeneResolver, *, progress: Callable[[str], None]
) -> tuple[GeneVectors, list[SourceRecord]]:
    """One vector per gene, from GO and the person's sources, as the settings weigh them, with all their dimensions.

    What is built and what docs/quality.md measures. Raises ArtifactError if there is no vector at all.
    """
    own, records = read_sources(sources, resolver, progress=progress)
    tables = {table.name: table for table in own}
    # A person's own file of one of these names stands for it.
    wanted = [name for name in settings.knowledge if name not in tables]
    public, found = read_public(wanted, sources, resolver, progress=progress)
    tables |= public
    records += found
    if dimensions := settings.go_dimensions:
        annotations = read_annotations(sources, resolver, progress=progress)
        progress(f"esm_mlp: {dimensions} dimensions from {len(annotations.genes):,} annotated genes")
        vectors_of_go = go_svd(annotations.genes, len(annotations.terms), dimensions)
        name = f"GO-SVD {dimensions}-d" if own else f"GO-SVD {dimensions}-d, not ESM2"
        tables["GO"] = GeneVectors(name, list(annotations.genes), vectors_of_go)
        records += annotations.records
    if not tables:
        raise ArtifactError(
            "esm_mlp: no gene vectors: name a table (--source gene_vectors.NAME=FILE), or let go_dimensions be above 0"
        )
    if unknown := sorted(settings.weights.keys() - tables.keys()):
        raise ArtifactError(f"esm_mlp: weights name {', '.join(unknown)}, and there are: {', '.join(tables)}")
    weights = {**KNOWLEDGE_WEIGHTS, **settings.weights}
    return beside(list(tables.values()), [weights.get(name, 1.0) for name in tables]), list(dict.fromkeys(records))


@dataclass(frozen=True)
class Fitted:
    """``scale``, ``offset``: of the nets' logit in that of the belief. ``figures``: on rows that a net has not seen."""

    trained: Trained
    scale: float
    offset: float
    figures: dict[str, float]


def fitted(rows_of: Sequence[tuple[Rows, Rows]], vectors: Vectors, settings: Settings) -> Iterator[Fitted]:
    """`fit_calibrated` of each, in order."""
    # Training draws from torch's one generator, so two threads would disturb each other.
    processes = min(MOST_AT_ONCE, os.cpu_count() or 1)
    if processes == 1 or sum(len(rows) for rows, _ in rows_of) < WORTH_PROCESSES:
        yield from (fit_calibrated(one, vectors, settings) for one in rows_of)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from pool.map(fit_calibrated, rows_of, repeat(vectors), repeat(settings))


def fit_calibrated(rows_of: tuple[Rows, Rows], vectors: Vectors, settings: Settings) -> Fitted:
    """The nets of a line and kind: of what they may learn from, and of the line's own training rows."""
    rows, own = rows_of
    trained = fit(rows, own, vectors, settings)
    scores = trained.logits(own, vectors)
    scale, offset = fit_logistic(scores[:, None], own.label).tolist()
    figures = _figures(own, trained.fold, scores, probability(scale * scores + offset))
    figures["auc_per_gene_shuffled_vectors"] = _shuffled_auc(rows, own, vectors, settings)
    return Fitted(trained, scale, offset, figures)


def fit(rows: Rows, own: Rows, vectors: Vectors, settings: Settings) -> Trained:
    """One net per fold of perturbations, each without its fold; one net for all rows in the loose form."""
    fold = np.full(len(vectors), -1, np.int8)
    if settings.form == "loose":
        return Trained([train(rows, vectors, settings)], fold)
    perturbations = np.unique(np.concatenate([rows.perturbation, own.perturbation]))
    fold[perturbations] = np.arange(len(perturbations)) % settings.folds
    of_row = fold[rows.perturbation]
    return Trained([train(rows.where(of_row != one), vectors, settings) for one in range(settings.folds)], fold)


def train(rows: Rows, vectors: Vectors, settings: Settings) -> RbioNet | TwoTowerNet:
    if settings.net == "rbio":
        return train_rbio(rows, vectors, epochs=settings.epochs, seed=settings.seed)
    return train_two_tower(rows, vectors, steps=settings.steps, seed=settings.seed)


def rates_of(own: Rows, trained: Trained, form: Form) -> Floats:
    """Of each gene in the line: by the rows that the net has seen, or by all if it has seen none of them."""
    n_nets = len(trained.nets)
    fold = trained.fold if form == "own" else np.full_like(trained.fold, -1)
    rates = rates_outside_folds(own.perturbation, own.measured_gene, own.label, fold, n_nets)
    return rates if form == "own" else np.tile(rates[-1], (n_nets + 1, 1))


def with_vectors(screens: Screens, resolver: GeneResolver, symbols: list[str]) -> tuple[Table, float]:
    """The rows whose two genes are among ``symbols``, by index, and their share of all."""
    rows = screens.rows
    row_of = {symbol: row for row, symbol in enumerate(symbols)}

    def indices(name: str) -> npt.NDArray[np.int64]:
        encoded = rows[name].combine_chunks()
        resolved = [resolver.resolve(written) for written in encoded.dictionary.to_pylist()]
        of_name = np.array([row_of.get(gene, -1) if isinstance(gene, str) else -1 for gene in resolved], np.int64)
        chosen: npt.NDArray[np.int64] = of_name[encoded.indices.to_numpy()]
        return chosen

    def texts(name: str) -> Texts:
        encoded = rows[name].combine_chunks()
        chosen: Texts = np.array(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
        return chosen

    every = Rows(indices("perturbation"), indices("measured_gene"), rows["label"].to_numpy())
    known = (every.perturbation >= 0) & (every.measured_gene >= 0)
    line, kind, split = texts("line")[known], texts("task_kind")[known], texts("split")[known]
    return Table(every.where(known), line, kind, split), float(known.mean())


def _figures(own: Rows, fold: npt.NDArray[np.int8], scores: Floats, beliefs: Floats) -> dict[str, float]:
    """Out of fold, on the line's own training rows.

    A gene's rows are ranked within each fold: a net's bias for the gene is low exactly where the rows that it did not
    see are often positive, so answers of different nets must not be compared.
    """
    within_fold = own.measured_gene * 128 + fold[own.perturbation]
    return {
        "auc_per_gene": auc_per_gene(within_fold, own.label, scores)[0],
        **calibration_figures(own.label, beliefs),
    }


def _shuffled_auc(rows: Rows, own: Rows, vectors: Vectors, settings: Settings) -> float:
    """Of a net that was fed with the vectors of other genes, on a fold of perturbations that it did not see."""
    shuffled = np.random.default_rng(settings.seed).permutation(vectors)
    held_out = np.unique(own.perturbation)[:: max(settings.folds, 2)]
    net = train(rows.where(~np.isin(rows.perturbation, held_out)), shuffled, settings)
    asked = own.where(np.isin(own.perturbation, held_out))
    return auc_per_gene(asked.measured_gene, asked.label, logits(net, asked, shuffled))[0]


def _belief_of(asked: tuple[int, int], trained: Trained, scale: float, offset: float, vectors: Vectors) -> float:
    """What the service must answer about this pair: it is asked at every start."""
    perturbation, gene = asked
    pair = Rows(np.array([perturbation]), np.array([gene]), np.array([0], np.int8))
    in_double = Trained([net.double() for net in trained.nets], trained.fold)
    logit = float(in_double.logits(pair, vectors.astype(np.float64))[0])
    return round(float(probability(np.array(scale * logit + offset))), BELIEF_DIGITS)
