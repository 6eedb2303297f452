"""The entrance: serve one verifier until SIGTERM.

Nothing heavy is imported here, because several workers are forked before gRPC and the metrics come into being.
"""

from __future__ import annotations

from collections.abc import Callable

from bioverify.core.verifier import Verifier
from bioverify.runtime import logs, workers
from bioverify.runtime.config import ServerConfig


def serve(open_verifier: Callable[[], Verifier], config: ServerConfig) -> None:
    """Host the verifier as a VerifierService; returns after SIGTERM, when accepted calls are finished.

    Raises SystemExit(1), with the reason as one line on stderr, if the verifier cannot be opened (its artifact is
    missing or damaged) or the port cannot be had.
    """
    logs.configure("verifier", config.log_level)

    def serve_process(process_config: ServerConfig) -> int:
        from bioverify.runtime import verifier_service

        return verifier_service.serve_process(open_verifier, process_config)

    code = serve_process(config) if config.workers == 1 else workers.run(config, serve_process)
    if code:
        raise SystemExit(code)
