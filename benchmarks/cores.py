"""What one core does: each verifier alone, in CPU time, so that it hardly matters what else the machine does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.items import Questions
from benchmarks.measuring import cpu_us
from benchmarks.rivals import read
from bioverify.core.completions import TaggedText
from bioverify.core.verifier import Verifier
from bioverify.verifiers.esm_mlp.served import LineNets, ServedRbioNet
from bioverify.verifiers.go_rouge.rouge import rouge

N, BATCH = 512, 256
WORDS = (200, 201)
ESM_DIMENSIONS, ESM_GENES = 2560, 2000


def per_core(questions: Questions, verifiers: dict[str, Verifier]) -> dict[str, dict[str, Any]]:
    """Case → microseconds per item, items per second and core."""
    items = read(questions.draw(N, seed=1000, words=WORDS))
    cases: dict[str, float] = {}
    for name, verifier in verifiers.items():
        cases[f"{name}: outcomes of items"] = cpu_us(
            N,
            lambda verifier=verifier: [
                verifier.score(items[start : start + BATCH], with_evidence=False) for start in range(0, N, BATCH)
            ],
        )
    go: Any = verifiers["go_rouge"]
    one_gene = [
        (go._terms_of(symbols[0]).reference, TaggedText(item.completion).thoughts)  # noqa: SLF001
        for item in items
        if isinstance(symbols := go._symbols_of(item), list)  # noqa: SLF001
    ]
    cases["ROUGE-1, -2, -L: 200 words against one gene's terms (all, C, F, P)"] = cpu_us(
        len(one_gene),
        lambda: rouge([(reference, go._vocabulary.encode(text)) for reference, text in one_gene]),  # noqa: SLF001
    )
    rng = np.random.default_rng(0)
    experimental: Any = verifiers["experimental"]
    pmi: Any = verifiers["transcriptformer_pmi"]
    pairs = rng.integers(len(experimental._symbols), size=(2, 200_000))  # noqa: SLF001
    cases["experimental lookup: pairs as arrays"] = cpu_us(200_000, lambda: experimental.responses("k562", *pairs))
    pairs_of_matrix = rng.integers(len(pmi._symbols), size=(2, 200_000))  # noqa: SLF001
    cases["PMI lookup: pairs as arrays"] = cpu_us(200_000, lambda: pmi.beliefs(*pairs_of_matrix))
    cases |= _mlp(rng)
    return {case: {"us": us, "per_s": round(1e6 / us)} for case, us in cases.items()}


def _mlp(rng: np.random.Generator) -> dict[str, float]:
    """rbio's net at the width of ESM2-3B, random weights: genes seen before, and all of them new."""
    vectors = rng.standard_normal((ESM_GENES, ESM_DIMENSIONS)).astype(np.float32)
    weights: dict[str, npt.NDArray[np.float32]] = {
        "layers.0.weight": rng.standard_normal((64, 2 * ESM_DIMENSIONS)).astype(np.float32) / np.float32(50),
        "layers.0.bias": np.zeros(64, np.float32),
        "layers.2.weight": rng.standard_normal((1, 64)).astype(np.float32),
        "layers.2.bias": np.zeros(1, np.float32),
    }
    pairs = rng.integers(ESM_GENES, size=(2, BATCH))

    def fresh() -> LineNets:
        fold, has_rows = np.full(ESM_GENES, -1, np.int8), np.ones((2, ESM_GENES), np.bool_)
        rates = np.full((2, ESM_GENES), 0.5, np.float32)
        return LineNets([ServedRbioNet(weights)], vectors, fold, has_rows, rates, 1.0, 0.0)

    known = fresh()
    return {
        "MLP, batch 256, d = 2560: genes seen before": cpu_us(BATCH, lambda: known.beliefs(*pairs), 20),
        "MLP, batch 256, d = 2560: all genes new": cpu_us(BATCH, lambda: fresh().beliefs(*pairs), 20),
    }
