"""The transport alone: verifiers that return a constant, behind the real runtime and the real aggregator, no cache.

Run as a program, it serves one of them: ``python -m benchmarks.constant NAME ADDRESS``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bioverify.core.outcomes import Outcome, Scored
from bioverify.core.tasks import TaskKind
from bioverify.core.verifier import Description, Item, Reads
from bioverify.health import serves
from bioverify.runtime import server
from bioverify.runtime.config import ServerConfig
from bioverify.stack.plan import AGGREGATOR_HEALTH, VERIFIER_HEALTH

READS = {
    "experimental": Reads.TASK | Reads.ANSWER,
    "go_rouge": Reads.TASK | Reads.COMPLETION,
    "transcriptformer_pmi": Reads.TASK | Reads.ANSWER,
    "esm_mlp": Reads.TASK | Reads.ANSWER,
    "format": Reads.TASK | Reads.COMPLETION,
}
_OUTCOME = Scored(0.5, {"mention": 0.5})


class Constant:
    """Reads what the real one reads, so that as much is sent to it."""

    def __init__(self, name: str) -> None:
        self.description = Description(
            name=name,
            version="1",
            summary="A constant.",
            task_kinds=tuple(TaskKind),
            reads=READS[name],
            holds_belief=False,
            components={},
        )

    def score(self, items: Sequence[Item], *, with_evidence: bool = True) -> list[Outcome]:
        return [_OUTCOME] * len(items)

    def canary(self) -> tuple[Item, Outcome]:
        return Item(None), _OUTCOME


@contextmanager
def running(port: int) -> Iterator[str]:
    """The aggregator's address."""
    targets = {name: f"127.0.0.1:{port + 1 + at}" for at, name in enumerate(READS)}
    commands = [["benchmarks.constant", name, target] for name, target in targets.items()]
    verifiers = [word for name, target in targets.items() for word in ("--verifier", f"{name}={target}")]
    commands.append(["bioverify.cli", "aggregate", "--listen", f"127.0.0.1:{port}", *verifiers])
    log = subprocess.DEVNULL
    processes = [subprocess.Popen([sys.executable, "-m", *words], stdout=log, stderr=log) for words in commands]
    try:
        waiting = dict.fromkeys(targets.values(), VERIFIER_HEALTH) | {f"127.0.0.1:{port}": AGGREGATOR_HEALTH}
        while waiting := {target: name for target, name in waiting.items() if not serves(target, name)}:
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


if __name__ == "__main__":
    server.serve(lambda: Constant(sys.argv[1]), ServerConfig(listen=sys.argv[2], log_level="error"))
