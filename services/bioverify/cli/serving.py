"""`bioverify serve`, `aggregate` and `healthcheck`: one process each, for supervisors, containers and clusters."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioverify import ports
from bioverify.cli.completion import verifier_names
from bioverify.cli.services import VERIFIERS, open_verifier
from bioverify.cli.terminal import fail, plain_errors
from bioverify.cli.tls import TlsCa, TlsCertificate, TlsKey, identity
from bioverify.errors import how_to_install

if TYPE_CHECKING:
    from bioverify.client import TlsIdentity
    from bioverify.core.consensus import Consensus
    from bioverify.core.verifier import Verifier
    from bioverify.runtime.config import ServerConfig

Listen = Annotated[str, typer.Option(help="host:port or unix:/path.")]
MetricsPort = Annotated[int | None, typer.Option(help="Port for Prometheus metrics over HTTP; omit it to serve none.")]
HealthPort = Annotated[
    int | None, typer.Option(help="Port for health alone, without TLS, for probes of a cluster; omit it to have none.")
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        envvar="BIOVERIFY_REDIS_URL",
        help="redis://host:port/0, redis+cluster://host:port, redis+sentinel://host:port,host:port/service/0, "
        "each with rediss for TLS, or unix:///path; omit it to disable the cache.",
    ),
]
RedisPasswordFile = Annotated[
    Path | None,
    typer.Option(
        envvar="BIOVERIFY_REDIS_PASSWORD_FILE",
        help="Holds the password of --redis-url; read at each connection, so that a rotated one is taken up.",
    ),
]
CacheSecretFile = Annotated[
    Path | None,
    typer.Option(
        envvar="BIOVERIFY_CACHE_SECRET_FILE",
        help="Holds a secret that remembered outcomes are signed with: what others write to Redis is not believed.",
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes that share the port.")]


def serve(
    verifier: Annotated[str, typer.Argument(help=f"One of: {', '.join(VERIFIERS)}.", autocompletion=verifier_names)],
    listen: Listen = ports.VERIFIER,
    metrics_port: MetricsPort = None,
    workers: Workers = 1,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    health_port: HealthPort = None,
) -> None:
    """Serve one verifier until SIGTERM.

    Example: bioverify serve format --listen 127.0.0.1:15055
    """
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.runtime import server

    if verifier not in VERIFIERS:
        raise fail(f"no verifier is called {verifier}; there are: {', '.join(VERIFIERS)}")

    def opener() -> Verifier:
        return open_verifier(verifier, ArtifactStore.default())

    config = server_config(listen, metrics_port, workers, identity(tls_certificate, tls_key, tls_ca), health_port)
    # Traces then tell the verifiers apart; whoever sets the variable has other plans.
    os.environ.setdefault("OTEL_SERVICE_NAME", f"bioverify-{verifier}")
    server.serve(opener, config)


def server_config(
    listen: str, metrics_port: int | None, workers: int, tls: TlsIdentity | None, health_port: int | None
) -> ServerConfig:
    """The options of a served verifier. Ends the command if they contradict each other."""
    from bioverify.runtime.config import ServerConfig
    from bioverify.settings import SettingsError, checked

    given = {"listen": listen, "metrics_port": metrics_port, "workers": workers, "tls": tls, "health_port": health_port}
    with plain_errors(SettingsError):
        return checked(ServerConfig, given, "")


def aggregate(
    verifier: Annotated[
        list[str],
        typer.Option(help="NAME=TARGET, or NAME=TARGET,TARGET for replicas: format=127.0.0.1:15055. Repeat it."),
    ],
    listen: Listen = ports.AGGREGATOR,
    redis_url: RedisUrl = None,
    redis_password_file: RedisPasswordFile = None,
    cache_secret_file: CacheSecretFile = None,
    metrics_port: MetricsPort = None,
    workers: Workers = 1,
    consensus: Annotated[
        bool, typer.Option("--consensus", help="Compose the verifiers' beliefs by the artifact consensus.")
    ] = False,
    verifier_deadline: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SECONDS of a call that this verifier may take at most; without: all. Repeat it."),
    ] = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    health_port: HealthPort = None,
) -> None:
    """Serve rewards until SIGTERM.

    Asks the verifiers in parallel, remembers in Redis, composes by recipe.

    Example: bioverify aggregate --verifier format=127.0.0.1:15055
    """
    from bioverify.aggregator import server
    from bioverify.aggregator.config import AggregatorConfig
    from bioverify.artifacts.errors import ArtifactError
    from bioverify.settings import SettingsError, checked

    targets = {}
    for assignment in verifier:
        name, equals, target = assignment.partition("=")
        if not (name and equals and target):
            raise fail(f"--verifier {assignment}: write NAME=TARGET, for instance format=127.0.0.1:15055")
        if name in targets:
            raise fail(f"--verifier {name} is given twice")
        targets[name] = target
    deadlines_s = {}
    for assignment in verifier_deadline or []:
        name, _, seconds = assignment.partition("=")
        try:
            deadlines_s[name] = float(seconds)
        except ValueError as error:
            raise fail(f"--verifier-deadline {assignment}: write NAME=SECONDS, for instance go_rouge=5") from error
        if name not in targets:
            raise fail(f"--verifier-deadline {assignment}: no --verifier is called {name}")
    with plain_errors(ArtifactError, SettingsError):
        given = {
            "listen": listen,
            "verifiers": targets,
            "redis_url": redis_url,
            "redis_password_file": redis_password_file,
            "cache_secret_file": cache_secret_file,
            "metrics_port": metrics_port,
            "workers": workers,
            "verifier_deadlines_s": deadlines_s,
            "consensus": _consensus() if consensus else None,
            "tls": identity(tls_certificate, tls_key, tls_ca),
            "health_port": health_port,
        }
        config = checked(AggregatorConfig, given, "")
    server.serve(config)


def _consensus() -> Consensus:
    from bioverify.artifacts.store import ArtifactStore
    from bioverify.artifacts.weights import open_consensus

    return open_consensus(ArtifactStore.default())[0]


def gateway(
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Settings as YAML; the options below win over it.")
    ] = None,
    listen: Annotated[str | None, typer.Option(help=f"host:port; without settings {ports.GATEWAY}.")] = None,
    target: Annotated[str | None, typer.Option(help=f"The aggregator; without settings {ports.AGGREGATOR}.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where jobs are kept; without it there are no jobs.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Training runs to show; without it there are none.")] = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Serve HTTP and the web pages until SIGTERM.

    Needs the extra [gateway]. The TLS options are what it shows the aggregator; HTTPS for its own callers is set in the
    settings.

    Example: bioverify gateway --target 127.0.0.1:15050 --listen 127.0.0.1:15059
    """
    if importlib.util.find_spec("fastapi") is None:
        raise fail(f"the gateway is not installed here. {how_to_install('gateway')}")
    from bioverify.client import TlsError
    from bioverify.gateway import server
    from bioverify.gateway.config import make_config
    from bioverify.settings import SettingsError

    shown = identity(tls_certificate, tls_key, tls_ca)
    given = {"listen": listen, "aggregator": target, "folder": folder, "runs_folder": runs, "identity": shown}
    with plain_errors(SettingsError, TlsError):
        server.serve(make_config(config, {name: value for name, value in given.items() if value is not None}))


def healthcheck(
    target: Annotated[str, typer.Argument(help="host:port or unix:/path.")],
    service: Annotated[
        str, typer.Option(help="Health service: empty is alive; bioverify.v1.VerifierService is ready.")
    ] = "",
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Exit with 0 if a service answers SERVING, else with 1.

    Example: bioverify healthcheck 127.0.0.1:15050 --service bioverify.v1.RewardService
    """
    from bioverify.health import serves
    from bioverify.transport.addresses import why_no_target

    if problem := why_no_target(target):
        raise fail(problem)
    tls = identity(tls_certificate, tls_key, tls_ca)
    if not serves(target, service, tls=tls):
        raise fail(f"{target} is not serving {service or '(alive)'}")
