"""From the labels that were answered to figures, each with an interval."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bioverify_trainer.evaluate.measures import Figure

NO_LABEL = -1

Codes = npt.NDArray[np.int64]


def measure_labels(label: Codes, answer: Codes, *, resamples: int, seed: int) -> dict[str, Figure]:
    """Accuracy, macro F1 and balanced accuracy over the labels that occur; no answer (`NO_LABEL`) is wrong.

    A resample of the observations is a multinomial draw of the cells of their confusion matrix.
    """
    _, code = np.unique(label, return_inverse=True)
    occurring = np.unique(label)
    size = len(occurring)
    place = np.searchsorted(occurring, answer)
    occurs = (place < size) & (occurring[np.minimum(place, size - 1)] == answer)
    # Beside the labels that occur: one that does not, and none.
    given = np.where(occurs, place, np.where(answer == NO_LABEL, size + 1, size))
    confusion = np.bincount(code * (size + 2) + given, minlength=size * (size + 2))
    whole = _figures(confusion[None].astype(float), size)
    rng = np.random.default_rng(seed)
    drawn = _figures(rng.multinomial(len(label), confusion / len(label), size=resamples).astype(float), size)
    ends = {name: np.percentile(values, (2.5, 97.5)) for name, values in drawn.items()}
    return {name: Figure(float(value[0]), float(ends[name][0]), float(ends[name][1])) for name, value in whole.items()}


def _figures(confusions: npt.NDArray[np.float64], size: int) -> dict[str, npt.NDArray[np.float64]]:
    """``confusions``: one per row, true label × given label, flattened."""
    matrix = confusions.reshape(len(confusions), size, size + 2)
    hits = np.diagonal(matrix[:, :, :size], axis1=1, axis2=2)
    true, given = matrix.sum(axis=2), matrix[:, :, :size].sum(axis=1)
    present = true > 0
    n_present = present.sum(axis=1)
    recall = np.divide(hits, true, out=np.zeros_like(hits), where=present)
    f1 = np.divide(2 * hits, true + given, out=np.zeros_like(hits), where=true + given > 0)
    return {
        "coverage": 1 - matrix[:, :, -1].sum(axis=1) / matrix.sum(axis=(1, 2)),
        "accuracy": hits.sum(axis=1) / matrix.sum(axis=(1, 2)),
        "macro_f1": (f1 * present).sum(axis=1) / n_present,
        "balanced_accuracy": recall.sum(axis=1) / n_present,
    }
