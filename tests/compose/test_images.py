"""What is in the images, and what is not."""

from __future__ import annotations

import json
import re

import pytest

from tests.compose.stack import IMAGES, PYTHON_SERVICES, ROOT, Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(3600)]

LOOKUPS = ("experimental", "go-rouge", "transcriptformer-pmi", "format")
MOST_MEGABYTES = 250
SHELLS_AND_TOOLS = ("sh", "bash", "apt-get", "dpkg", "pip", "pip3", "uv", "gcc", "cc", "make", "curl", "wget")
SECRET = re.compile(
    r"(?i)(secret|passw|token|api[_-]?key|credential|private[_-]?key)[^/ ]*[=:]|AKIA[0-9A-Z]{16}|bv_[\w-]{20}"
)
# Whatever a build was told in words stands in the history; whatever it copied stands in the layers.
FORBIDDEN_FILES = re.compile(r"(^|/)(\.env|\.git|id_rsa|[^/]*\.key|keys\.yaml|\.netrc|pip\.conf|\.pypirc)$")


def test_images_of_lookups_are_small(stack: Stack) -> None:
    sizes = {name: stack.report["megabytes"][f"bioverify/{name}"] for name in LOOKUPS}
    assert max(sizes.values()) < MOST_MEGABYTES, sizes


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_says_what_it_is_and_runs_as_nobody(stack: Stack, image: str) -> None:
    config = stack.client.images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {f"org.opencontainers.image.{name}" for name in ("source", "revision", "version", "base.name")} <= set(
        labels
    )


@pytest.mark.parametrize("image", IMAGES)
def test_no_secret_is_in_the_history_or_the_files(stack: Stack, image: str) -> None:
    history = [line["CreatedBy"] for line in stack.client.images.get(image).history()]
    assert not [line for line in history if SECRET.search(line)]
    find = """
import os
print("\\n".join(os.path.join(at, name) for at, inner, files in os.walk("/") if not at.startswith(("/proc", "/sys"))
                 for name in (*inner, *files)))
"""
    paths = stack.client.containers.run(image, ["-c", find], entrypoint="python", remove=True).decode().splitlines()
    assert len(paths) > 1000
    assert not [path for path in paths if FORBIDDEN_FILES.search(path)]


@pytest.mark.parametrize("service", PYTHON_SERVICES)
def test_no_shell_and_no_build_tool_is_left_in_a_service(stack: Stack, service: str) -> None:
    look = f"import shutil; print([name for name in {SHELLS_AND_TOOLS} if shutil.which(name)])"
    found = stack.client.containers.run(f"bioverify/{service}", ["-c", look], entrypoint="python", remove=True)
    assert found.decode().strip() == "[]"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_carries_a_bill_of_materials_that_names_what_it_holds(stack: Stack, image: str) -> None:
    read = """
import importlib.metadata as m
print(open("/opt/bioverify/sbom.cdx.json").read(), "\\0")
print(*{one.name.lower().replace("_", "-") for one in m.distributions()})
"""
    given = stack.client.containers.run(image, ["-c", read], entrypoint="python", remove=True).decode()
    text, _, installed = given.partition("\0")
    bill = json.loads(text)
    assert bill["bomFormat"] == "CycloneDX"
    named = {part["name"].lower().replace("_", "-") for part in bill["components"]}
    assert set(installed.split()) <= named | {"bioverify"}
    assert not {"pip", "setuptools"} & named or "torch" in named
    place = ROOT / "reports" / "sbom" / f"{image.partition('/')[2]}.cdx.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
