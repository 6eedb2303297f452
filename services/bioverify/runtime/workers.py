"""Several processes on one port: each runs the whole service, and the kernel deals out the connections (SO_REUSEPORT).

The parent forks before gRPC, an event loop or a thread exists in it, and never creates one itself: a fork at that point
is safe, and any callable can be handed to the children (spawning would ask for picklable ones). The parent only waits:
it passes SIGTERM on, restarts a worker that was killed, and ends with the workers if one of them refuses to start,
because the others would fare no better.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from bioverify.runtime.config import ServerConfig
from bioverify.transport.addresses import for_both_families

RESTART_PAUSE_S = 1.0

log = structlog.stdlib.get_logger("bioverify.runtime.workers")


def run(config: ServerConfig, serve_process: Callable[[ServerConfig], int]) -> int:
    """Serve with ``config.workers`` processes until SIGTERM; the exit code."""
    with tempfile.TemporaryDirectory(prefix="bioverify-metrics-") as folder, _reserved(config.listen) as listen:
        # Read by prometheus_client when it is first imported, which the children do.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        config = config.model_copy(update={"listen": listen})
        parent = _Parent()
        for _ in range(config.workers):
            parent.start(lambda: serve_process(config))
        if config.metrics_port is not None:
            parent.start(lambda: _serve_metrics(config))
        return parent.wait()


@contextlib.contextmanager
def _reserved(listen: str) -> Iterator[str]:
    """Hold the port, so that port 0 becomes one port for all workers and a port of someone else's is noticed."""
    host, _, port = listen.rpartition(":")
    address = for_both_families(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, int(port)))
            chosen = probe.getsockname()[1]
    except OSError as error:
        raise SystemExit(f"bioverify: cannot listen on {listen}: {error.strerror}. Is the port taken?") from error
    with socket.socket(family) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((address, chosen))
        yield f"{host}:{chosen}"


class _Parent:
    def __init__(self) -> None:
        self._children: dict[int, Callable[[], int]] = {}
        self._stopping = False
        self._exit_code = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop())

    def start(self, serve: Callable[[], int]) -> None:
        # Signals wait until the child is in the books, or has handlers of its own.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        pid = os.fork()
        if pid:
            self._children[pid] = serve
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            return
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            _end_with_parent()
            code = serve()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit: the parent's exit handlers and temporary folders are not the child's to clean up.
            os._exit(code)

    def wait(self) -> int:
        while self._children:
            pid, status = os.wait()
            serve = self._children.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            _forget_gauges(pid)
            if self._stopping:
                self._exit_code = self._exit_code or max(code, 0)
            elif code < 0:
                log.error("a worker was killed; starting another", pid=pid, signal=signal.Signals(-code).name)
                time.sleep(RESTART_PAUSE_S)
                if not self._stopping:
                    self.start(serve)
            else:
                self._exit_code = code or 1
                self._stop()
        return self._exit_code

    def _stop(self) -> None:
        self._stopping = True
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent is gone, so that a killed parent leaves no workers behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _forget_gauges(pid: int) -> None:
    for path in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"gauge_live*_{pid}.db"):
        path.unlink()


def _serve_metrics(config: ServerConfig) -> int:
    from bioverify.runtime import metrics  # after the fork: see `run`

    assert config.metrics_port is not None
    try:
        metrics.expose(config.host, config.metrics_port)
    except OSError as error:
        print(f"bioverify: cannot listen on metrics port {config.metrics_port}: {error.strerror}", file=sys.stderr)
        return 1
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0
