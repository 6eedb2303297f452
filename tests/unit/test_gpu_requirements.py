"""The GPU image's lock, which nothing here installs, against what we and its own packages declare of each other.

What only vLLM's and CUDA's metadata say is not read here: `make check-gpu` resolves the whole lock, with the network.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.h100_folder import pins
from tests.fixtures.servers import ROOT
from tests.gpu_paths import vllm_stand_in

# What `make lock` resolves it for.
PLACE = {
    "python_version": "3.12",
    "python_full_version": "3.12.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "os_name": "posix",
    "extra": "",
}
GPU = pins((ROOT / "requirements" / "gpu.txt").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def wanted(lines: list[str] | None, extra: str = "") -> Iterator[Requirement]:
    """Of requirements as packages write them, those that hold there."""
    for requirement in map(Requirement, lines or ()):
        if requirement.marker is None or requirement.marker.evaluate(PLACE | {"extra": extra}):
            yield requirement


def contradictions(who: str, requirements: Iterator[Requirement]) -> list[str]:
    """Of what is pinned: an extra of ours may ask for what another image has."""
    return [
        f"{who} wants {requirement}, pinned is {GPU[name]}"
        for requirement in requirements
        if (name := canonicalize_name(requirement.name)) in GPU
        and not requirement.specifier.contains(GPU[name], prereleases=True)
    ]


def test_the_gpu_lock_has_all_that_the_trainer_needs_within_its_bounds():
    extras = PROJECT["optional-dependencies"]
    ours = list(wanted([*PROJECT["dependencies"], *extras["train"], *extras["demo"], *extras["tracing"]]))
    assert not {canonicalize_name(one.name) for one in ours} - GPU.keys()
    assert not contradictions("bioverify", iter(ours))
    assert {"vllm", "deepspeed", "trl", "transformers", "torch"} <= GPU.keys()


@pytest.mark.parametrize("engine", ["vllm", "deepspeed"])
def test_trl_works_with_the_engines_that_the_gpu_lock_pins(engine):
    bounds = [one for one in wanted(requires("trl"), extra=engine) if one.name == engine]
    assert bounds
    assert not contradictions("trl", iter(bounds))


def test_what_is_tested_here_and_pinned_there_are_content_with_each_other():
    checked = [found for found in distributions() if GPU.get(canonicalize_name(found.name)) == found.version]
    # Most of the lock: what is missing is CUDA's, vLLM's own, or older there because vLLM wants it so.
    assert {"trl", "transformers", "accelerate", "peft", "datasets"} <= {found.name for found in checked}
    assert not [one for found in checked for one in contradictions(found.name, wanted(found.requires))]


def test_the_training_stack_is_the_tested_one_and_the_stand_ins_are_of_what_is_pinned():
    tested = pins((ROOT / "requirements" / "train.txt").read_text())
    for name in ("trl", "transformers", "accelerate", "peft", "datasets"):
        assert GPU[name] == tested[name], name
    assert GPU["deepspeed"] == pins((ROOT / "requirements" / "gpu-paths.txt").read_text())["deepspeed"]
    assert GPU["vllm"] == vllm_stand_in.VERSION
    assert f"torch=={GPU['torch']}+cpu" in (ROOT / "requirements" / "torch.txt").read_text()


def test_trl_is_bounded_on_both_sides():
    """Its trainer's own methods are overridden (`bioverify_trainer.draws`, `train`): each release may change them."""
    [trl] = [one for one in wanted(PROJECT["optional-dependencies"]["train"]) if one.name == "trl"]
    assert {one.operator for one in trl.specifier} == {">=", "<"}
    assert not trl.specifier.contains("1.10.0")
