"""The entrance: serve rewards until SIGTERM.

Nothing heavy is imported here, because several workers are forked before gRPC and the metrics come into being.
"""

from __future__ import annotations

from bioverify.aggregator.config import AggregatorConfig
from bioverify.runtime import logs, workers
from bioverify.runtime.config import ServerConfig


def serve(config: AggregatorConfig) -> None:
    """Host the RewardService; returns after SIGTERM, when accepted calls are finished.

    Raises SystemExit(1), with the reason as one line on stderr, if a recipe is broken or the port cannot be had.
    """
    logs.configure("aggregator", config.log_level)

    def serve_process(process_config: ServerConfig) -> int:
        from bioverify.aggregator import service as reward_service

        return reward_service.serve_process(config.model_copy(update={"listen": process_config.listen}))

    code = serve_process(config.server) if config.workers == 1 else workers.run(config.server, serve_process)
    if code:
        raise SystemExit(code)
