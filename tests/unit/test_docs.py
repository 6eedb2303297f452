"""What the docs say of the code's own shape is what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_layers_in_words_are_those_of_the_import_linter() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = [sorted(re.split(r" \| ", layer)) for layer in contracts[0]["layers"]]
    table = (ROOT / "docs/architecture.md").read_text().partition("| layer |")[2].partition("\n\n")[0]
    told = [sorted(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table.splitlines()[2:]]
    assert told == held


def test_the_tables_of_settings_are_those_of_the_models() -> None:
    done = subprocess.run(
        [sys.executable, "docs/settings.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
