"""The options that say who a process is to the services: they mean the same in every command that speaks gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify.cli.terminal import plain_errors

if TYPE_CHECKING:
    from bioverify.client import TlsIdentity

_PANEL = "TLS between services"
TlsCertificate = Annotated[
    Path | None,
    typer.Option(
        envvar="BIOVERIFY_TLS_CERTIFICATE",
        help="PEM: what this process shows to those it calls and who call it. All three or none.",
        rich_help_panel=_PANEL,
    ),
]
TlsKey = Annotated[
    Path | None, typer.Option(envvar="BIOVERIFY_TLS_KEY", help="PEM: its private key.", rich_help_panel=_PANEL)
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        envvar="BIOVERIFY_TLS_CA", help="PEM: who has to have signed the other end's.", rich_help_panel=_PANEL
    ),
]


def identity(certificate: Path | None, key: Path | None, ca: Path | None) -> TlsIdentity | None:
    """The identity that the options give; None: plaintext. Ends the command if its files are unusable."""
    if certificate is None and key is None and ca is None:
        return None
    from bioverify.client import TlsError, TlsIdentity

    with plain_errors(TlsError):
        given = TlsIdentity.of(certificate, key, ca)
        if given is not None:
            given.read()
    return given
