"""SIGTERM lets a run finish its step, keep a checkpoint and end with `STOPPED`, so that it can be resumed.

transformers has the like (``enable_jit_checkpoint``), but saves in the middle of a step too, after which a resumed run
is no longer the undisturbed one, and lets every process of a distributed run decide for itself, which leaves one of two
waiting for the other. Here it is decided between two steps, and by all together.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from bioverify.errors import BioverifyError

STOPPED = 128 + signal.SIGTERM
"""Exit status of a run that was stopped; what shells and clusters expect after SIGTERM."""
_LOOK_EVERY_S = 0.5


class RunStopped(BioverifyError):  # noqa: N818 - what was asked for, not a fault
    """The run was told to stop while it waited; its last finished step is kept."""


class StopSignal:
    """``was_given``: SIGTERM has come to this process since `listen`."""

    was_given = False

    def listen(self) -> None:
        """To be called in the main thread. Before it, SIGTERM ends the process, as there is nothing to keep yet."""
        signal.signal(signal.SIGTERM, self._heard)

    def _heard(self, *_signal: Any) -> None:
        self.was_given = True

    def wait(self, seconds: float) -> None:
        """Sleep. Raises RunStopped as soon as the signal has come."""
        deadline = time.monotonic() + seconds
        while not self.was_given and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_EVERY_S))
        if self.was_given:
            raise RunStopped


stop_signal = StopSignal()
"""That of this process: there is one SIGTERM, whoever asks."""
