"""What every service of ours shares: a gRPC server with health, reflection, limits, metrics and an orderly end.

The server listens before anything is loaded, so that it can be seen to live while it is not ready. Health of "" says
alive, of the service's name says ready. At SIGTERM the service says NOT_SERVING, takes no new call, finishes those that
it accepted within the grace period and ends with exit code 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Awaitable, Callable

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bioverify.runtime import metrics
from bioverify.runtime.config import ServerConfig
from bioverify.runtime.interceptor import CallInterceptor
from bioverify.transport.channels import SERVER_OPTIONS
from bioverify.transport.tls import LiveIdentity, TlsError

log = structlog.stdlib.get_logger("bioverify.runtime")

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def host(
    config: ServerConfig,
    service_name: str,
    add_to: Callable[[grpc.aio.Server], None],
    prepare: Callable[[], Awaitable[bool]],
    watch: Callable[[Callable[[bool], Awaitable[None]]], Awaitable[None]] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. ``prepare`` loads what the service needs, and says if it is ready;
    ``watch`` runs from then on, and tells what it is given if that changes.

    An exception of ``prepare`` ends the service with exit code 1 and its message on stderr.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    calls = CallInterceptor()
    server = grpc.aio.server(interceptors=[calls], options=_options(config))
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    await status.set(service_name, _NOT_SERVING)
    metrics.READY.set(0)
    add_to(server)
    reflection.enable_server_reflection((service_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        if config.tls is None:
            port = server.add_insecure_port(config.listen)
        else:
            port = server.add_secure_port(config.listen, LiveIdentity(config.tls).server_credentials())
        probes = await _serve_health(config, status)
        if config.metrics_port is not None and config.workers == 1:
            metrics.expose(config.host, config.metrics_port)
    except TlsError as error:
        return refuse_to_start(str(error))
    except (RuntimeError, OSError) as error:
        return refuse_to_start(f"cannot listen on {config.listen}: {error}. Is the port taken?")
    loop = asyncio.get_running_loop()
    metrics.TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
    await server.start()
    target = config.listen if config.listen.startswith("unix:") else f"{config.listen.rpartition(':')[0]}:{port}"
    log.info(
        "listening",
        target=target,
        metrics_port=config.metrics_port,
        health_port=config.health_port,
        tls=config.tls is not None,
    )

    async def show(is_ready: bool) -> None:
        await status.set(service_name, _SERVING if is_ready else _NOT_SERVING)
        metrics.READY.set(int(is_ready))
        log.info("ready" if is_ready else "not ready", target=target)

    preparing = asyncio.ensure_future(prepare())
    watching: asyncio.Future[None] | None = None
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if preparing.done():
        failure = preparing.exception()
        if failure is not None:
            await server.stop(None)
            return refuse_to_start(str(failure) or repr(failure), failure)
        # What was loaded stays: without this, every full collection goes through all of it while calls wait.
        gc.collect()
        gc.freeze()
        if preparing.result():
            await show(True)
        if watch is not None:
            watching = asyncio.ensure_future(watch(show))
    await stopping
    if watching is not None:
        watching.cancel()

    log.info("draining", active_calls=calls.active, grace_s=config.grace_s)
    preparing.cancel()
    await status.set(service_name, _NOT_SERVING)
    metrics.READY.set(0)
    stopped = asyncio.ensure_future(server.stop(config.grace_s))
    # gRPC waits for every open stream, and a health watch never ends by itself: what counts is our own calls.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(calls.wait_until_idle(), config.grace_s)
    if calls.active:
        log.warning("grace period over", abandoned_calls=calls.active)
    # The last answers are with the transport by now, which writes them out and then stops, unless a watch is open.
    await asyncio.wait({stopped}, timeout=0.5)
    await server.stop(None)
    await stopped
    if probes is not None:
        await probes.stop(None)
    log.info("stopped")
    return 0


async def _serve_health(config: ServerConfig, status: health.aio.HealthServicer) -> grpc.aio.Server | None:
    """The same health once more, on the port that asks for no certificate."""
    if config.health_port is None:
        return None
    server = grpc.aio.server(options=_options(config))
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    host = f"[{config.host}]" if ":" in config.host else config.host
    server.add_insecure_port(f"{host}:{config.health_port}")
    await server.start()
    return server


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_bytes),
        *SERVER_OPTIONS,
        # Give or take a tenth, so that not all connections go at once; calls under way go on.
        ("grpc.max_connection_age_ms", int(config.connection_age_s * 1000)),
        # gRPC shares ports by default, so that a second server on the same port would silently take half of the calls.
        ("grpc.so_reuseport", int(config.workers > 1)),
    ]


def refuse_to_start(message: str, error: BaseException | None = None) -> int:
    """Tell the log and the person; the exit code."""
    log.error("refused to start", message=message, exception_type=type(error).__name__ if error else None)
    print(f"bioverify: {message}", file=sys.stderr, flush=True)
    return 1
