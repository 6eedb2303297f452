"""Who a process is to the other services: one certificate for both directions, read again when its files change.

A service with an identity shows its certificate to those who call it, asks each of them for one that the same authority
signed, and shows its own to the services that it calls. The three files are those of a Kubernetes secret as
cert-manager writes it: tls.crt, tls.key, ca.crt.

A change is noticed at the next handshake of a server and at the next call of a client, at most a second late. A server
serves new connections with what lies there now; a client opens a new connection and leaves the old one to the calls
that are under way. Files that do not fit together (a key that was written before its certificate) change nothing: what
was read last stays, and the log says so once.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import grpc

from bioverify.errors import BioverifyError
from bioverify.files import Stamp, stamp_of

LOOK_EVERY_S = 1.0
ENVIRONMENT = ("BIOVERIFY_TLS_CERTIFICATE", "BIOVERIFY_TLS_KEY", "BIOVERIFY_TLS_CA")

Options = Sequence[tuple[str, Any]]

_log = logging.getLogger("bioverify.tls")


class TlsError(BioverifyError, ValueError):
    """The files of an identity cannot be used; the message names the file."""


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """PEM files: ``certificate`` (with the chain), its ``key``, and ``ca``, the authority that others are asked for."""

    certificate: Path
    key: Path
    ca: Path

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None, ca: Path | None) -> Self | None:
        """The identity of three settings; None if none is given. Raises TlsError if only some are."""
        given = [file for file in (certificate, key, ca) if file is not None]
        if not given:
            return None
        if len(given) < len(fields(cls)):
            raise TlsError("TLS between services takes certificate, key and CA together, or none of them")
        certificate, key, ca = given
        return cls(certificate, key, ca)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """That of BIOVERIFY_TLS_CERTIFICATE, BIOVERIFY_TLS_KEY and BIOVERIFY_TLS_CA. Raises TlsError."""
        found = (environment.get(name) for name in ENVIRONMENT)
        return cls.of(*(Path(file) if file else None for file in found))

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.certificate, self.key, self.ca

    def read(self) -> Pems:
        """What the files hold, which makes a usable self. Raises TlsError."""
        try:
            pems = Pems(*(file.read_bytes() for file in self.files))
        except OSError as error:
            raise TlsError(f"TLS: {error.filename}: {error.strerror}") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            # Without a password a locked key would be asked for on the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, OSError) as error:
            raise TlsError(f"TLS: {self.certificate} and {self.key} are no pair: {error}") from error
        try:
            context.load_verify_locations(cadata=pems.ca.decode())
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"TLS: {self.ca} holds no certificate: {error}") from error
        return pems


@dataclass(frozen=True, slots=True, eq=False)
class Pems:
    """What lay in the files at one moment, and belongs together."""

    certificate: bytes
    key: bytes
    ca: bytes

    def for_calls(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    def for_serving(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.ca)


class LiveIdentity:
    """What an identity's files hold now. May be asked from any thread. Raises TlsError if they are unusable now."""

    def __init__(self, identity: TlsIdentity) -> None:
        self._identity = identity
        self._lock = threading.Lock()
        self._stamps = _stamps(identity)
        self._pems = identity.read()
        self._looked_at = time.monotonic()

    def current(self) -> Pems:
        """The same object for as long as the files are the same."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= LOOK_EVERY_S:
                self._looked_at = now
                self._look()
            return self._pems

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a port that shows this identity and asks callers for a certificate of its authority."""
        shown = self.current()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            current = self.current()
            if current is shown:
                return None
            shown = current
            return current.for_serving()

        return grpc.dynamic_ssl_server_credentials(
            shown.for_serving(),
            renewed,  # type: ignore[arg-type] # the published types forget None, which says: as before
            require_client_authentication=True,
        )

    def redis_settings(self) -> dict[str, str]:
        """For redis-py, which reads the files itself when it opens a connection."""
        identity = self._identity
        return {
            "ssl_certfile": str(identity.certificate),
            "ssl_keyfile": str(identity.key),
            "ssl_ca_certs": str(identity.ca),
        }

    def _look(self) -> None:
        try:
            stamps = _stamps(self._identity)
            if stamps == self._stamps:
                return
            pems = self._identity.read()
            # Files that changed while they were read are read again at the next look.
            is_whole = _stamps(self._identity) == stamps
        except TlsError as error:
            _log.error("could not read the certificates; still using the previous ones: %s", error)
            return
        if is_whole:
            self._stamps, self._pems = stamps, pems
            _log.info("certificates reloaded")


def open_channel(target: str, options: Options, shown: Pems | None) -> grpc.Channel:
    """A channel for plain code that shows these certificates; None: plaintext."""
    if shown is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, shown.for_calls(), options=(*options, *_authority(target)))


def open_aio_channel(target: str, options: Options, shown: Pems | None) -> grpc.aio.Channel:
    """The same for asyncio, to be opened inside the running loop."""
    if shown is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, shown.for_calls(), options=(*options, *_authority(target)))


def _authority(target: str) -> Options:
    """Whom the other end has to be, if its address does not say: a socket in a folder is this machine."""
    return (("grpc.default_authority", "localhost"),) if target.startswith("unix:") else ()


def _stamps(identity: TlsIdentity) -> list[Stamp]:
    try:
        return [stamp_of(file) for file in identity.files]
    except OSError as error:
        raise TlsError(f"TLS: {error.filename}: {error.strerror}") from error
