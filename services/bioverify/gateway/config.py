"""How the gateway runs: one block of settings, as a YAML file or as options of `bioverify gateway`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bioverify.client import TlsIdentity
from bioverify.runtime.config import LogLevel

MIB = 2**20


class ConfigError(ValueError):
    """The settings file cannot be used; the message names the key."""


class GatewayConfig(BaseModel):
    """Settings of one gateway process.

    ``listen``: host:port. ``aggregator``: gRPC target. ``folder``: where jobs are kept; None: there are no jobs.
    ``runs_folder``: training runs to show; None: there are none. ``trainer``: the training service that starts and
    stops runs; None: they are only shown. ``trainer_token_file``: holds what that service asks of its callers.
    ``keys_file``: API keys by hash; None: no key is asked for, and it listens on loopback only, unless
    ``open_to_anyone``. ``tls_certificate`` and ``tls_key``: PEM files, read again when they change; ``client_ca``:
    callers must show a certificate of this authority. ``cors_origins``: pages elsewhere that may call. ``identity``:
    certificate, key and ca, PEM files that it shows the aggregator and the training service.

    ``max_body_bytes`` of a scoring request and ``max_job_bytes`` of a job's file count after decompression.
    ``body_timeout_s``: seconds that a body may pause between two pieces. ``max_calls_in_flight``: calls beyond it are
    refused at once. ``keep_jobs_s``: seconds that an ended job is kept. ``max_jobs_per_key``: that have not ended.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")] = "127.0.0.1:50059"
    aggregator: str = "127.0.0.1:50050"
    folder: Path | None = None
    runs_folder: Path | None = None
    trainer: str | None = None
    trainer_token_file: Path | None = None
    keys_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    identity: TlsIdentity | None = None
    open_to_anyone: bool = False
    cors_origins: tuple[str, ...] = ()
    max_items: Annotated[int, Field(ge=1)] = 4096
    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 * MIB
    max_job_bytes: Annotated[int, Field(ge=1024)] = 4096 * MIB
    body_timeout_s: Annotated[float, Field(gt=0)] = 15
    max_deadline_s: Annotated[float, Field(gt=0)] = 300
    max_calls_in_flight: Annotated[int, Field(ge=1)] = 64
    keep_jobs_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600
    max_jobs_per_key: Annotated[int, Field(ge=1)] = 64
    log_level: LogLevel = "info"

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given together or not at all")
        if self.client_ca and not self.tls_certificate:
            raise ValueError("client_ca needs tls_certificate and tls_key")
        return self

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        return self.host in {"127.0.0.1", "::1", "localhost"}


def make_config(path: Path | None, overrides: Mapping[str, Any]) -> GatewayConfig:
    """The settings in a YAML file, where there is one, under those of ``overrides``.

    Raises ConfigError with the file, the key and what is wrong with it.
    """
    where = f"{path}: " if path else ""
    try:
        settings = yaml.safe_load(path.read_text()) or {} if path else {}
    except OSError as error:
        raise ConfigError(f"{where}{error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}settings are `key: value` lines, not a {type(settings).__name__}")
    try:
        return GatewayConfig.model_validate({**settings, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{where}{key + ': ' if key else ''}{first['msg']}") from error
