"""A Kubernetes API server over its own etcd, for the length of the tests: nothing schedules or runs what it takes.

The binaries are those of the folder that `KUBEBUILDER_ASSETS` names (as setup-envtest lays them out), else of PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fixtures.servers import free_port

BINARIES = ("etcd", "kube-apiserver")
_TOKEN = "of-the-tests"
_STARTS_WITHIN_S = 120.0


def binaries() -> dict[str, str] | None:
    """Where both are; None unless both are there."""
    path = os.pathsep.join(filter(None, (os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("PATH"))))
    found = {name: where for name in BINARIES if (where := shutil.which(name, path=path))}
    return found if len(found) == len(BINARIES) else None


@dataclass(frozen=True)
class Server:
    url: str
    kubeconfig: Path
    minor: int

    def ask(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> dict[str, Any]:
        """One request as JSON; raises HTTPError for what the server refuses."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {_TOKEN}", "Content-Type": "application/json"},
        )
        # The server signed its own certificate a moment ago.
        with urllib.request.urlopen(request, timeout=30, context=ssl._create_unverified_context()) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def running(folder: Path, found: dict[str, str]) -> Iterator[Server]:
    etcd, peer, secure = (free_port() for _ in range(3))
    key = folder / "accounts.key"
    key.write_bytes(
        rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    (folder / "tokens.csv").write_text(f'{_TOKEN},tests,1,"system:masters"\n')
    with ExitStack() as stack:
        log = stack.enter_context((folder / "server.log").open("wb"))
        stack.enter_context(
            _process(
                log,
                found["etcd"],
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls=http://127.0.0.1:{etcd}",
                f"--advertise-client-urls=http://127.0.0.1:{etcd}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
            )
        )
        server = stack.enter_context(
            _process(
                log,
                found["kube-apiserver"],
                f"--etcd-servers=http://127.0.0.1:{etcd}",
                f"--secure-port={secure}",
                "--bind-address=127.0.0.1",
                f"--cert-dir={folder / 'certificates'}",
                f"--token-auth-file={folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                # A claim would wait for a controller to let it go, and there is none.
                "--disable-admission-plugins=StorageObjectInUseProtection",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
            )
        )
        url = f"https://127.0.0.1:{secure}"
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_config(url)))
        minor = _ready(Server(url, kubeconfig, 0), server, folder / "server.log")
        yield Server(url, kubeconfig, minor)


def _ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> int:
    """Its minor version, once the server says that it is ready."""
    until = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            # What it made for itself at the start is there, too: without it Helm meets a server that knows no group.
            server.ask("/api/v1/namespaces/default")
            return int("".join(filter(str.isdigit, server.ask("/version")["minor"])))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"no API server:\n{log.read_text(errors='replace')[-4000:]}")


@contextmanager
def _process(log: IO[bytes], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _config(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "clusters": [{"name": "tests", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "tests", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
    }
