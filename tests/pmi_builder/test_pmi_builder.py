"""The builder of TranscriptFormer's matrix, end to end: the real class, a tiny checkpoint, real processes.

The builder runs in its own environment (``make test-pmi-builder``), the rest of the line in this one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bioverify.artifacts import genes
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli import app
from bioverify.core.outcomes import Scored
from bioverify.core.tasks import CoExpression
from bioverify.core.verifier import Item
from bioverify.verifiers.transcriptformer_pmi.verifier import open_verifier
from tests.fixtures.artifacts import bundled_sources, silent

pytestmark = pytest.mark.pmi_builder

ROOT = Path(__file__).parents[2]
ASSAY, COUNT = "10x 3' v3", 2
N_GENES = 150
BUILDER = "bioverify.verifiers.transcriptformer_pmi.log_ratios"


@pytest.fixture(scope="module")
def python() -> str:
    """Of the builder's environment; skips the tests without it."""
    named = Path(os.environ.get("BIOVERIFY_PMI_PYTHON", ROOT / ".venv-pmi/bin/python"))
    if not named.is_file():
        pytest.skip(f"needs the builder's own environment, and {named} is none: make test-pmi-builder")
    return str(named)


def started(python: str, *arguments: str | Path) -> subprocess.Popen[str]:
    places = {"PYTHONPATH": f"{ROOT / 'services'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [python, "-W", "ignore", "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **places},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(python: str, *arguments: str | Path, status: int = 0) -> str:
    """What the process printed on the stream that belongs to its exit status."""
    process = started(python, *arguments)
    out, error = process.communicate(timeout=240)
    assert process.returncode == status, error
    return error if status else out


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pmi")
    genes.build(ArtifactStore(folder / "artifacts"), bundled_sources(folder), progress=silent)
    return folder


@pytest.fixture(scope="module")
def ensembl(home: Path) -> list[str]:
    """Ids of genes with a current symbol, and first an id of none."""
    resolver, _ = open_genes(ArtifactStore(home / "artifacts"))
    ids = [name for name, symbols in resolver.other_names.items() if name.startswith("ENSG") and len(symbols) == 1]
    return ["ENSG99999999999", *sorted(ids)[: N_GENES - 1]]


@pytest.fixture(scope="module")
def checkpoint(python: str, home: Path, ensembl: list[str]) -> Path:
    done(python, "tests.pmi_builder.make_checkpoint", home / "tf_tiny", ",".join(ensembl))
    return home / "tf_tiny"


@pytest.fixture(scope="module")
def reference(python: str, home: Path, checkpoint: Path) -> np.ndarray:
    done(python, "tests.pmi_builder.reference", checkpoint, ASSAY, str(COUNT), home / "reference.npy")
    return np.asarray(np.load(home / "reference.npy"))


@pytest.fixture(scope="module")
def run(python: str, home: Path, checkpoint: Path) -> Path:
    out = home / "run"
    done(python, BUILDER, checkpoint, out, "--count", str(COUNT), "--rows-per-shard", "64", "--batch", "50")
    return out


def build(home: Path, run: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, str]:
    monkeypatch.setenv("BIOVERIFY_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "200")
    command = ["data", "build", "transcriptformer_pmi", "--offline", "--mirror", str(home), *options]
    result = CliRunner().invoke(app, [*command, "--source", f"log_ratios={run / 'run.json'}"])
    return result.exit_code, result.output


def test_the_batched_ratios_are_those_of_the_slow_reference(run: Path, reference: np.ndarray) -> None:
    ratios = np.load(run / "log_ratios.npy").astype(np.float64)
    assert ratios.shape == (N_GENES, N_GENES)
    assert np.abs(reference).max() > 5.0, "random weights whose genes do not differ would prove nothing"
    # Half precision keeps 11 bits.
    assert np.allclose(ratios, reference, rtol=2**-10, atol=1e-3)


def test_a_run_that_is_killed_between_shards_goes_on_and_ends_the_same(
    python: str, home: Path, checkpoint: Path, run: Path
) -> None:
    out = home / "killed"
    command = (BUILDER, checkpoint, out, "--count", str(COUNT), "--rows-per-shard", "8", "--batch", "1")
    process = started(python, *command)
    deadline = time.monotonic() + 200
    while not (out / "run.json").is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    n_done = json.loads((out / "run.json").read_text())["rows_done"]
    assert 0 < n_done < N_GENES
    other = done(python, BUILDER, checkpoint, out, "--count", "7", status=1)
    assert "begun with another count" in other
    assert f"{N_GENES:,} genes, {n_done} done" in done(python, *command)
    assert np.allclose(
        np.load(out / "log_ratios.npy").astype(float), np.load(run / "log_ratios.npy"), rtol=2**-10, atol=1e-3
    )


def test_the_artifact_is_symmetric_under_current_symbols_and_says_what_it_comes_from(
    home: Path, run: Path, reference: np.ndarray, ensembl: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, told = build(home, run, monkeypatch)
    assert status == 0, told
    store = ArtifactStore(home / "artifacts")
    verifier = open_verifier(store)
    outcome = verifier.score([Item(CoExpression(ensembl[5], ensembl[9]), answer=True)])[0]
    assert isinstance(outcome, Scored)
    assert outcome.components["pmi"] == pytest.approx((reference[5, 9] + reference[9, 5]) / 2, rel=2**-9, abs=2e-3)
    assert "(TranscriptFormer checkpoint tf_tiny, assay 10x 3' v3)" in outcome.evidence[0].text
    manifest = store.manifest("transcriptformer_pmi")
    counts = dict(manifest.counts)
    assert counts.pop("known_pairs") > 0
    assert counts == {"genes_of_vocabulary": N_GENES, "genes": N_GENES - 1}
    assert manifest.parameters["package"] == "transcriptformer 0.6.1"
    assert manifest.parameters["softcap"] == 10
    assert "transcriptformer_pmi: unchanged" in build(home, run, monkeypatch)[1]


def test_a_run_that_is_unfinished_or_damaged_is_not_built_from(
    home: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    written = json.loads((copy / "run.json").read_text())
    with (copy / "log_ratios.npy").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x01")
    status, told = build(home, copy, monkeypatch, "--again")
    assert status == 1
    assert "sha256 of" in told
    (copy / "run.json").write_text(json.dumps({**{k: v for k, v in written.items() if k != "sha256"}, "rows_done": 64}))
    status, told = build(home, copy, monkeypatch, "--again")
    assert status == 1
    assert "64 of 150 rows are done" in told


def test_an_assay_that_the_checkpoint_does_not_know_is_named_with_those_like_it(
    python: str, checkpoint: Path, tmp_path: Path
) -> None:
    told = done(python, BUILDER, checkpoint, tmp_path / "out", "--assay", "10x v3", status=1)
    assert "knows no assay '10x v3'; there are \"10x 3' v3\"" in told
