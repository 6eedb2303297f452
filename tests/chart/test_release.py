"""One version everywhere, images for two architectures: what `make release` packages and would build."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import ROOT, helm, template

pytestmark = pytest.mark.chart

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def has_buildx() -> bool:
    try:
        return subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def targets_of_the_dockerfile() -> set[str]:
    """Those that are an image: they end with what is run."""
    found = set()
    for stage in re.split(r"^FROM ", (ROOT / "services/Dockerfile").read_text(), flags=re.MULTILINE)[1:]:
        name = stage.partition("\n")[0].rpartition(" AS ")[2]
        if re.search(r"^(CMD|ENTRYPOINT) ", stage, re.MULTILINE) and name != "base":
            found.add(name)
    return found


def test_the_bake_file_names_every_image_of_the_dockerfile() -> None:
    text = (ROOT / "docker-bake.hcl").read_text()
    listed = re.search(r"image_name = \[(.*?)\]", text, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r'"([a-z-]+)"', listed[1])) == targets_of_the_dockerfile()
    assert {"gateway", "puller", "artifacts", "go-rouge"} <= targets_of_the_dockerfile()


def release(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / ".ci/release")],
        env=os.environ | {"DIST": str(folder), "HELM": str(helm()), "REGISTRY": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_release_without_a_registry_packages_the_chart_and_pushes_nothing(tmp_path: Path) -> None:
    done = release(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing was built or pushed" in done.stdout
    with tarfile.open(tmp_path / f"bioverify-{VERSION}.tgz") as packed:
        about = packed.extractfile("bioverify/Chart.yaml")
        assert about is not None
        written = yaml.safe_load(about)
    assert (written["version"], written["appVersion"]) == (VERSION, VERSION)


@pytest.mark.skipif(not has_buildx(), reason="docker buildx is not installed: the bake file is not evaluated")
def test_every_image_is_for_both_architectures_and_says_what_it_is(tmp_path: Path) -> None:
    done = release(tmp_path, SOURCE="https://git.example.org/bioverify")
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads((tmp_path / "images.json").read_text())["target"]
    assert set(plan) == targets_of_the_dockerfile() | {"trainer"}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name, image in plan.items():
        assert image["platforms"] == ["linux/amd64", "linux/arm64"], name
        assert image["tags"] == [f"bioverify/{name}:{VERSION}"], name
        given = {key: image["args"][key] for key in ("VERSION", "REVISION", "SOURCE")}
        assert given == {
            "VERSION": VERSION,
            "REVISION": commit.strip(),
            "SOURCE": "https://git.example.org/bioverify",
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*", image["labels"]["org.opencontainers.image.created"]), name


@pytest.mark.skipif(not has_buildx(), reason="docker buildx is not installed: the bake file is not evaluated")
def test_images_are_pushed_where_the_chart_looks_for_them() -> None:
    """images.registry of the chart is REGISTRY of the release."""
    done = subprocess.run(
        ["docker", "buildx", "bake", "-f", "docker-bake.hcl", "--print", "gateway"],
        cwd=ROOT,
        env=os.environ | {"REGISTRY": "registry.example.org/biology", "VERSION": VERSION},
        capture_output=True,
        text=True,
        check=True,
    )
    (tag,) = json.loads(done.stdout)["target"]["gateway"]["tags"]
    assert f"image: {tag}\n" in template("--set", "images.registry=registry.example.org/biology").stdout


def test_a_release_to_a_registry_takes_only_what_is_committed(tmp_path: Path) -> None:
    stray = ROOT / "k8s" / "stray-file-of-a-test"
    stray.touch()
    try:
        done = release(tmp_path, REGISTRY="127.0.0.1:9/nowhere")
    finally:
        stray.unlink()
    assert done.returncode == 1
    assert "commit it first" in done.stderr
