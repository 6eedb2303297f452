"""The two verifiers with a model over gene vectors, on one core: random pairs a second, plain and with evidence.

A pair is the perturbation of one training row and the gene of another, in a random line and kind of question. Twice:
``again`` asks the same 256 pairs, so that what is kept of genes and perturbations is there; ``new`` asks 256 other ones
in every call, most of which are not. CPU time of a process of its own, the best of the rounds.

``--against CHECKOUT`` times the verifiers of another checkout over the same artifacts, turn about, and prints the
ratios: the machine's other work then falls on both. Whatever they say differently of a pair is printed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

LINES = ("k562", "rpe1", "hepg2", "jurkat")
NAMES = ("analogy", "esm_mlp")
PAIRS, CALLS = 256, 4


def draw(count: int, seed: int) -> list[Any]:
    """Items of random pairs. From the artifact's files alone, which older checkouts have too."""
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.artifacts.tables import read_served
    from bioverify.core.tasks import DifferentialExpression, DirectionOfChange
    from bioverify.core.verifier import Item

    artifact = ArtifactStore.default().open("analogy")
    symbols = read_served(artifact, "symbols.arrows").strings("symbol")
    table = read_served(artifact, "rows.arrows")
    line, kind, perturbation, gene = (table.numbers(name) for name in ("line", "kind", "perturbation", "measured_gene"))
    random = np.random.default_rng(seed)
    rows = [np.flatnonzero((line == one) & (kind == other)) for one in range(len(LINES)) for other in (0, 1)]
    items = []
    for chosen in random.integers(len(rows), size=count).tolist():
        first, second = random.choice(rows[chosen], 2)
        task = (DifferentialExpression, DirectionOfChange)[chosen % 2]
        items.append(Item(task(symbols[perturbation[first]], symbols[gene[second]], LINES[chosen // 2]), answer=True))
    return items


def timed() -> dict[str, Any]:
    """Case → items a second of this process's CPU, and what was believed of the first pairs."""
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.cli.services import open_verifier

    figures: dict[str, float] = {}
    beliefs: dict[str, list[float]] = {}
    same = draw(PAIRS, seed=0)
    others = [draw(PAIRS, seed) for seed in range(1, 2 * CALLS + 1)]
    for name in NAMES:
        verifier = open_verifier(name, ArtifactStore.default())
        beliefs[name] = [getattr(one, "belief", -1.0) for one in verifier.score(same)]
        for number, with_evidence in enumerate((False, True)):
            told = "with evidence" if with_evidence else "plain"
            cases = {"new": others[number * CALLS : (number + 1) * CALLS], "again": [same] * (CALLS + 1)}
            for case, batches in cases.items():
                seconds = []
                for batch in batches:
                    started = time.process_time()
                    verifier.score(batch, with_evidence=with_evidence)
                    seconds.append(time.process_time() - started)
                # The first of "again" brings back what the new ones may have displaced.
                spent = statistics.median(seconds) if case == "new" else min(seconds[1:])
                figures[f"{name}, {told}, {case}"] = PAIRS / spent
    return {"figures": figures, "beliefs": beliefs}


def run(checkout: Path) -> dict[str, Any]:
    """`timed` in a process of its own, with the packages of a checkout."""
    environment = {**os.environ, "PYTHONPATH": f"{checkout}/services", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--timed"]
    finished = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(finished.stdout)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout, timed turn about with this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.timed:
        print(json.dumps(timed()))
        return
    here = Path(__file__).resolve().parents[1]
    checkouts = [here, options.against.resolve()] if options.against else [here]
    rounds = [[run(checkout) for checkout in checkouts] for _ in range(options.rounds)]
    for case in rounds[0][0]["figures"]:
        best = [max(one[at]["figures"][case] for one in rounds) for at in range(len(checkouts))]
        told = f"{case}: {best[0]:,.0f}/s"
        if options.against:
            ratios = [one[0]["figures"][case] / one[1]["figures"][case] for one in rounds]
            told += (
                f"; there {best[1]:,.0f}/s; ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            )
        print(told)
    if options.against:
        for name in NAMES:
            one, other = (np.array(told["beliefs"][name]) for told in rounds[0])
            print(f"{name}: beliefs differ by at most {np.abs(one - other).max():.1e} ({len(one)} pairs)")


if __name__ == "__main__":
    main()
