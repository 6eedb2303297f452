"""The process that keeps one run: ``python -m bioverify_trainer.service.keeper RUN``.

It stands between the service and the trainer, so that the service may be stopped, killed and replaced while the run
goes on: somebody who lives as long as the run has to hear how it ended. SIGTERM is passed on to the trainer, which
finishes its step, keeps a checkpoint and ends. A trainer that somebody else killed is started again from its last
checkpoint, as long as each attempt came further than the one before.

Nothing heavy is imported, so that a keeper costs 15 MB and not a copy of torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from bioverify.files import replace_file
from bioverify_trainer.stopping import STOPPED

FOLDER = "service"
"""Within the run's folder: what the service and the keeper write."""


def main(run: Path) -> None:
    folder = run / FOLDER
    command = json.loads((folder / "order.json").read_text())["command"]
    stopping = False
    trainer: subprocess.Popen[bytes] | None = None

    def stop(*_signal: Any) -> None:
        nonlocal stopping
        stopping = True
        if trainer is not None:
            trainer.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    write(folder / "keeper.json", identity(os.getpid()))
    reached = -1
    while True:
        with (folder / "log.txt").open("ab") as log:
            trainer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        write(folder / "trainer.json", identity(trainer.pid))
        if stopping:
            # It came before there was anybody to pass it on to.
            trainer.send_signal(signal.SIGTERM)
        status = trainer.wait()
        came_to = last_checkpoint(run)
        if stopping or status >= 0 or came_to <= reached:
            break
        reached = came_to
    write(folder / "ended.json", {"status": status, "was_stopped": stopping or status == STOPPED})


def last_checkpoint(run: Path) -> int:
    """Its step; 0 if there is none."""
    steps = [int(path.name.rsplit("-", 1)[1]) for path in (run / "checkpoints").glob("checkpoint-*")]
    return max(steps, default=0)


def identity(pid: int) -> dict[str, Any]:
    """Who a process is: ids are used again, but not with the same beginning."""
    return {"pid": pid, "created": psutil.Process(pid).create_time()}


def write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    replace_file(path, json.dumps(content) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
