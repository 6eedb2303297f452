"""How the gateway runs: one block of settings, as a YAML file or as options of `bioverify gateway`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bioverify import ports
from bioverify.client import TlsIdentity
from bioverify.runtime.config import LogLevel
from bioverify.settings import checked, read_mapping
from bioverify.transport.addresses import is_loopback, why_no_target

MIB = 2**20


class GatewayConfig(BaseModel):
    """Settings of one gateway process."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")] = ports.GATEWAY
    """host:port of HTTP and the web pages."""
    aggregator: str = ports.AGGREGATOR
    """gRPC target that scores."""
    folder: Path | None = None
    """Where jobs are kept. Without it there are no jobs."""
    runs_folder: Path | None = None
    """Training runs to show. Without it there are none."""
    trainer: str | None = None
    """gRPC target of the training service, which starts and stops runs. Without it they are only shown."""
    trainer_token_file: Path | None = None
    """Holds the token that the training service asks of its callers."""
    keys_file: Path | None = None
    """API keys by hash (`bioverify keys new`). Without it no key is asked for, and only loopback is listened on, unless
    `open_to_anyone`."""
    tls_certificate: Path | None = None
    """PEM file for HTTPS, read again when it changes; together with `tls_key`."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    client_ca: Path | None = None
    """PEM file of an authority; callers must then show a certificate that it signed."""
    identity: TlsIdentity | None = None
    """certificate, key and ca: PEM files that the gateway shows the aggregator and the training service."""
    open_to_anyone: bool = False
    """Listens beyond loopback without keys, because something in front of it decides who may call."""
    cors_origins: tuple[str, ...] = ()
    """Origins of pages elsewhere that may call."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which a gateway without keys may be called, beside its own address and localhost."""
    max_items: Annotated[int, Field(ge=1)] = 4096
    """Items of one scoring request."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 * MIB
    """Bytes of a scoring request, after decompression."""
    max_job_bytes: Annotated[int, Field(ge=1024)] = 4096 * MIB
    """Bytes of a job's file, after decompression."""
    body_timeout_s: Annotated[float, Field(gt=0)] = 15
    """Seconds that a request's head may take, and that its body may pause between two pieces."""
    max_deadline_s: Annotated[float, Field(gt=0)] = 300
    """Seconds that a scoring request may ask for at most."""
    max_calls_in_flight: Annotated[int, Field(ge=1)] = 64
    """Calls at once; those beyond it are refused at once."""
    keep_jobs_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600
    """Seconds that an ended job is kept."""
    max_jobs_per_key: Annotated[int, Field(ge=1)] = 64
    """Jobs of one key that have not ended."""
    log_level: LogLevel = "info"
    """debug, info, warning or error."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given together or not at all")
        if self.client_ca and not self.tls_certificate:
            raise ValueError("client_ca needs tls_certificate and tls_key")
        for name, target in (("aggregator", self.aggregator), ("trainer", self.trainer)):
            if problem := why_no_target(target or ""):
                raise ValueError(f"{name}: {problem}")
        return self

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


def make_config(path: Path | None, overrides: Mapping[str, Any]) -> GatewayConfig:
    """The settings in a YAML file, if there is one, under those of ``overrides``. Raises SettingsError."""
    written = read_mapping(path) if path else {}
    return checked(GatewayConfig, {**written, **overrides}, path or "")
