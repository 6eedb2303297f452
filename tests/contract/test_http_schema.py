"""The gateway does what its OpenAPI description says, whatever schemathesis thinks of sending it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bioverify.gateway.api_keys import Scope, new_key, write_keys
from tests.fixtures import servers
from tests.fixtures.gateway import gateway
from tests.fixtures.servers import ROOT, scratch_folder

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


# Accepting all that fits the schema is more than a schema can say: ids have to be unique, recipes and verifiers known.
OPTIONS = ("--max-examples", "15", "--seed", "7", "--no-color", "--request-timeout", "60")
CHECKS = ("--checks", "all", "--exclude-checks", "positive_data_acceptance")


@pytest.mark.slow
def test_every_answer_is_as_described() -> None:
    text, key = new_key("tester", (Scope.ADMIN,))
    with (
        servers.verifier("Lookup", parameters={"name": "experimental"}) as lookup,
        servers.verifier("Text", parameters={"name": "format"}) as format_,
        servers.aggregator({"experimental": lookup.target, "format": format_.target}) as aggregator,
        scratch_folder() as folder,
    ):
        write_keys(folder / "keys.yaml", (key,))
        with gateway(folder, aggregator.target, keys_file=folder / "keys.yaml") as running:
            done = subprocess.run(
                [
                    SCHEMATHESIS,
                    "run",
                    f"{running.url}/openapi.json",
                    "-H",
                    f"Authorization: Bearer {text}",
                    *OPTIONS,
                    *CHECKS,
                ],
                cwd=folder,
                env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.contract.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
                timeout=280,
            )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
