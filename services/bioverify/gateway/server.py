"""The entrance: serve HTTP until SIGTERM."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

import structlog
import uvicorn

from bioverify import tracing
from bioverify.files import stamp_of
from bioverify.gateway.app import make_app
from bioverify.gateway.config import GatewayConfig
from bioverify.gateway.heads import patient_protocol
from bioverify.runtime import logs
from bioverify.settings import SettingsError
from bioverify.transport.addresses import listen_everywhere

GRACE_S = 15
_CERTIFICATE_CHECK_S = 5.0
_log = structlog.get_logger("bioverify.gateway")


def serve(config: GatewayConfig) -> None:
    """Host the gateway; returns after SIGTERM, when accepted requests are answered.

    Raises SettingsError if it would stand open to a network without asking for keys, and for unusable keys; TlsError
    for an unusable identity, SystemExit if the port cannot be had.
    """
    if not config.is_loopback and config.keys_file is None and not config.open_to_anyone:
        raise SettingsError(
            "",
            "listen",
            f"at {config.listen} others could call it without a key. Give keys_file (bioverify keys new), "
            "or set open_to_anyone if something in front of it decides who may call",
        )
    if config.identity is not None:
        config.identity.read()
    logs.configure("gateway", config.log_level)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(config),
            http=patient_protocol(config.body_timeout_s),
            host=config.host,
            port=config.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=config.tls_certificate,
            ssl_keyfile=config.tls_key,
            ssl_ca_certs=str(config.client_ca) if config.client_ca else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if config.client_ca else ssl.CERT_NONE,
        )
    )
    with tracing.exporting("bioverify-gateway"):
        asyncio.run(_serve(server, config))
    if not server.started:
        raise SystemExit(1)


async def _serve(server: uvicorn.Server, config: GatewayConfig) -> None:
    server.config.load()
    reloading = asyncio.create_task(_reload_certificate(server.config.ssl, config)) if server.config.ssl else None
    try:
        # Of 0.0.0.0 and :: asyncio would make one family each.
        everywhere = listen_everywhere(config.host, config.port)
    except OSError as error:
        raise SystemExit(
            f"bioverify: cannot listen on {config.listen}: {error.strerror}. Is the port taken?"
        ) from error
    await server.serve(sockets=[everywhere] if everywhere else None)
    if reloading:
        reloading.cancel()
        with suppress(asyncio.CancelledError):
            await reloading


async def _reload_certificate(context: ssl.SSLContext, config: GatewayConfig) -> None:
    """New connections get the certificate that lies there now; a broken one is logged and the old one kept."""
    assert config.tls_certificate is not None
    assert config.tls_key is not None
    files = (config.tls_certificate, config.tls_key)
    loaded = [stamp_of(file) for file in files]
    while True:
        await asyncio.sleep(_CERTIFICATE_CHECK_S)
        try:
            found = [stamp_of(file) for file in files]
            if found != loaded:
                loaded = found
                context.load_cert_chain(*files)
                _log.info("certificate reloaded")
        except OSError as error:
            _log.error("could not load the certificate; still using the previous one", error=str(error))
