"""`bioverify data`, as a person types it: fetch, build, resume, verify, and settings of one's own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bioverify import stack
from bioverify.artifacts.arrow import read_parquet
from bioverify.artifacts.sources import BLOOD_CELLS
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli import app
from bioverify.core.outcomes import Scored
from bioverify.core.tasks import DirectionOfChange
from bioverify.core.verifier import Item
from bioverify.verifiers.experimental.verifier import open_verifier
from tests.fixtures.artifacts import bundled_sources

WITHOUT_NETWORK = ("--offline", "--mirror")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and an empty mirror, so that everything comes from the bundled set."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("BIOVERIFY_DATA_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def data(*arguments: str | Path, status: int = 0) -> Result:
    done = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert done.exit_code == status, f"exit status {done.exit_code}\n{done.output}{done.exc_info}"
    return done


def test_an_artifact_is_built_once_and_again_when_a_source_changes(home: Path, tmp_path: Path) -> None:
    first = data("build", "genes", "experimental", *WITHOUT_NETWORK, tmp_path / "mirror").stdout
    assert "unchanged" not in first
    second = data("build", "genes", "experimental", *WITHOUT_NETWORK, tmp_path / "mirror").stdout
    assert "genes: unchanged" in second
    assert "experimental: unchanged" in second
    (tmp_path / "mirror" / "go").mkdir()
    (tmp_path / "mirror" / "go" / "genes.tsv.gz").symlink_to(gene_table(tmp_path))
    third = data("build", "genes", "experimental", *WITHOUT_NETWORK, tmp_path / "mirror").stdout
    assert "unchanged" not in third


def gene_table(folder: Path) -> Path:
    import gzip

    header = "symbol\ttype\taliases\tensembl_gene_ids\tuniprot_ids"
    # Those of the simulated screen, of which a pair has to be left.
    cells = read_parquet(bundled_sources(folder).bundled / BLOOD_CELLS.bundled)["symbol"].to_pylist()
    rows = [f"{name}\tprotein-coding\t\t\t" for name in dict.fromkeys(("AARS1", "ASNS", "GAPDH", *cells))]
    path = folder / "genes.tsv.gz"
    path.write_bytes(gzip.compress("\n".join([header, *rows, ""]).encode()))
    return path


def test_a_run_of_builds_that_is_killed_goes_on_where_it_was(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bioverify.cli", "data", "build", "genes", "experimental", "go_rouge"]
    command += [*WITHOUT_NETWORK, str(tmp_path / "mirror")]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
    deadline = time.monotonic() + 120
    while not (home / "artifacts" / "genes" / "built_from.json").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    store = ArtifactStore(home / "artifacts")
    assert "go_rouge" not in store.names()
    resumed = data("build", "genes", "experimental", "go_rouge", *WITHOUT_NETWORK, tmp_path / "mirror").stdout
    assert "genes: unchanged" in resumed
    assert store.names() == ["experimental", "genes", "go_rouge"]
    assert "all as built" in data("verify").stdout
    assert not list(store.root.glob(".building-*"))


def test_verify_ends_with_status_1_and_names_file_sums_and_command(home: Path, tmp_path: Path) -> None:
    data("build", "genes", *WITHOUT_NETWORK, tmp_path / "mirror")
    assert "genes: 3 files" in data("verify").stdout
    damaged = ArtifactStore(home / "artifacts").open("genes").path / "current.arrows"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    told = data("verify", status=1).stderr
    assert "artifact genes: sha256 of current.arrows is" in told
    assert "manifest says" in told
    assert "Run: bioverify data verify --repair genes" in told
    assert "unchanged" not in data("build", "genes", *WITHOUT_NETWORK, tmp_path / "mirror").stdout
    assert "all as built" in data("verify").stdout


def test_fetch_takes_from_the_mirror_and_says_what_is_missing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    (tmp_path / "mirror" / "go").mkdir()
    gene_table(tmp_path).rename(tmp_path / "mirror" / "go" / "genes.tsv.gz")
    fetched = data("fetch", "genes", "--mirror", tmp_path / "mirror").stdout
    assert "public domain (NCBI)" in fetched
    assert (home / "sources" / "go" / "genes.tsv.gz").is_file()
    refused = data("fetch", "perturbqa", "--mirror", tmp_path / "mirror", status=1)
    assert "Genentech Non-Commercial Software License 1.0" in refused.stdout
    assert "--accept-license" in refused.stdout
    assert "not fetched: perturbqa/" in refused.stderr
    unreachable = data("fetch", "perturbqa", "--accept-license", status=1)
    assert "cannot be reached" in unreachable.stdout
    assert "there are: perturbqa" in data("fetch", "nonsense", status=1).stderr


def test_settings_add_a_screen_and_mistakes_in_them_are_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / "de.csv").write_text("target,gene,lfc,padj\nAARS,ASNS,1.5,0.001\nAARS,GAPDH,0.1,0.9\n")
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "experimental:\n  perturbqa: false\n  screens:\n    - name: mine\n      file: de.csv\n      cell_line: THP-1\n"
        "      columns: {perturbation: target, measured_gene: gene, log_fold_change: lfc, adjusted_p: padj}\n"
        "      license: ours\n"
    )
    build = ("build", "genes", "experimental", "--settings", settings, *WITHOUT_NETWORK, tmp_path / "mirror")
    data(*build)
    lookup = open_verifier(ArtifactStore(home / "artifacts"))
    outcome = lookup.score([Item(DirectionOfChange("AARS1", "ASNS", "thp1"), answer=True)])[0]
    assert isinstance(outcome, Scored)
    assert outcome.value == 1.0
    assert "experimental: unchanged" in data(*build).stdout
    (tmp_path / "de.csv").write_text("target,gene,lfc,padj\nAARS,ASNS,-1.5,0.001\n")
    assert "experimental: unchanged" not in data(*build).stdout
    settings.write_text("experimental: {splits: test}\n")
    told = data(*build, status=1).stderr
    assert "settings.yaml: experimental.splits: Input should be 'train' or 'all'" in told


def test_weights_and_more_knowledge_are_fetched_where_they_are_named_only(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in (
        "string/9606.protein.info.v12.0.txt.gz",
        "knowledge/complex_portal.9606.tsv",
        "transcriptformer/tf_sapiens.tar.gz",
    ):
        (tmp_path / "mirror" / name).parent.mkdir(parents=True)
        (tmp_path / "mirror" / name).write_bytes(b"not the published file")
    named = data("fetch", "complex_portal", "string", "--mirror", tmp_path / "mirror").stdout
    assert "CC BY 4.0 (STRING)" in named
    assert "CC0 1.0 (Complex Portal)" in named
    assert (home / "sources/string/9606.protein.info.v12.0.txt.gz").is_file()
    cut = data("fetch", "tf_sapiens", "--mirror", tmp_path / "mirror", status=1).stderr
    assert "has 22 bytes, expected 1,819,975,447" in cut
    everything = data("fetch", "--mirror", tmp_path / "mirror", "--accept-license", status=1)
    assert "tf_sapiens" not in everything.output
    assert "complex_portal" not in everything.output
    assert "string_links" in everything.stderr


DESEQ2 = """"","baseMean","log2FoldChange","lfcSE","stat","pvalue","padj"
"ASNS",811.2,1.53,0.1,15.3,1e-52,4.1e-48
"ENSG00000101255",93.1,-1.18,0.2,-5.9,3.6e-09,1.2e-07
"GAPDH",51234.9,0.02,0.03,0.6,0.54,0.77
"1-Mar",51234.9,0.02,0.03,0.6,0.54,0.77
"DDIT3",0.4,2.1,2.9,0.7,0.46,NA
"""


def test_check_tells_what_a_build_would_take_say_and_drop_and_how_to_write_it(home: Path, tmp_path: Path) -> None:
    data("build", "genes", *WITHOUT_NETWORK, tmp_path / "mirror")
    (tmp_path / "de.csv").write_text(DESEQ2)
    told = data("check", "de.csv", status=1).stderr
    assert "de.csv has no column that says which gene was knocked down: --perturbation GENE" in told
    told = data("check", "de.csv", "--perturbation", "AARS", "--cell-line", "K-562").stdout
    assert "measured gene: the column without a name" in told
    assert "adjusted p: column padj" in told
    assert "3 pairs in k562: 1 up, 1 down, 1 not" in told
    assert "K562: AARS1 knocked down, TRIB3 measured, decreased (my-screen)" in told
    assert "dates instead of genes 1 row, 1 name: 1-Mar (1: MARCHF1 or MTARC1?)" in told
    assert "without a number 1 row" in told
    assert len(told.splitlines()) <= 40, "a screenful"
    # What it prints as settings is what a build reads.
    settings = tmp_path / "settings.yaml"
    settings.write_text(told[told.index("experimental:") :].replace("screens:", "perturbqa: false\n  screens:"))
    dry = data("build", "--dry-run", "--settings", settings).stdout
    assert "K562: AARS1 knocked down, TRIB3 measured, decreased (my-screen)" in dry
    assert ArtifactStore(home / "artifacts").names() == ["genes"], "nothing was built"
    again = data("check", "de.csv", "--settings", settings).stdout
    assert "3 pairs in k562" in again
    built = data("build", "experimental", "--settings", settings, *WITHOUT_NETWORK, tmp_path / "mirror").stdout
    assert "5 rows read, 3 used" in built
    (tmp_path / "other.csv").write_text(DESEQ2)
    assert (
        "names no screen with the file other.csv" in data("check", "other.csv", "--settings", settings, status=1).stderr
    )


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.xlsx", b"PK\x03\x04", "is a workbook"),
        ("b.csv", b"", "is empty"),
        ("c.csv", b"x,y\n1,2\n", "no column that says which gene was knocked down"),
        ("d.csv", b"target,gene,value\nAARS,ASNS,2\n", "no names of columns that are known for log fold changes"),
        ("e.h5ad", b"\x89HDF\r\n\x1a\n", "cannot be read"),
    ],
)
def test_check_says_in_a_sentence_why_it_cannot(
    home: Path, tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert sentence in data("check", name, status=1).stderr


@pytest.mark.parametrize("command", ["build", "check"])
def test_settings_that_are_no_utf_8_are_one_sentence(home: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "settings.yaml").write_bytes("experimental: {perturbqa: false}\n".encode("utf-16"))
    (tmp_path / "de.csv").write_text(DESEQ2)
    what = ("--dry-run",) if command == "build" else ("de.csv",)
    told = data(command, *what, "--settings", tmp_path / "settings.yaml", status=1).stderr
    assert "not text in UTF-8" in told
    (tmp_path / "settings.yaml").write_text("experimental: {perturbqa: false}\n")
    told = data(command, *what, "--settings", tmp_path / "settings.yaml", status=1).stderr
    assert ("the settings name none" if command == "build" else "names no screen with the file de.csv") in told


def test_a_damaged_artifact_is_repaired_by_building_it_again_under_a_new_build_id(home: Path, tmp_path: Path) -> None:
    sources = (*WITHOUT_NETWORK, tmp_path / "mirror")
    data("build", "genes", "experimental", *sources)
    store = ArtifactStore(home / "artifacts")
    before = {name: store.manifest(name) for name in ("genes", "experimental")}
    victim = store.open("experimental").path / next(iter(before["experimental"].files))
    whole = victim.read_bytes()
    victim.chmod(0o644)
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "bioverify data verify --repair experimental" in data("verify", status=1).stderr

    repaired = data("verify", "--repair", *sources).stdout

    after = {name: store.manifest(name) for name in before}
    assert "experimental: repaired" in repaired
    assert after["genes"] == before["genes"], "what is whole is left alone"
    assert after["experimental"].digest == before["experimental"].digest
    assert (before["experimental"].build_id, len(after["experimental"].build_id)) == ("", 16)
    assert victim.read_bytes() == whole
    assert "all as built" in data("verify").stdout


def test_a_repair_that_would_build_something_else_says_so_and_builds_nothing(home: Path, tmp_path: Path) -> None:
    sources = (*WITHOUT_NETWORK, tmp_path / "mirror")
    data("build", "genes", *sources)
    store = ArtifactStore(home / "artifacts")
    victim = store.open("genes").path / next(iter(store.manifest("genes").files))
    victim.unlink()
    (home / "artifacts/genes/built_from.json").rename(tmp_path / "built_from.json")
    told = data("verify", "--repair", *sources, status=1).stderr
    assert "genes was not built here. Pull it: bioverify data verify --repair --from URL genes" in told
    (home / "artifacts/genes/built_from.json").write_text("{}")
    assert "Build it: bioverify data build genes" in data("verify", "--repair", *sources, status=1).stderr
    assert not victim.exists()


@pytest.mark.parametrize(
    ("place", "command"),
    [("taken/home", "data build genes"), ("taken/home", "down"), ("/sys/bioverify", "data build genes")],
)
def test_a_home_that_cannot_be_written_to_is_one_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    """A file in the folder's place, and a file system that lets not even root in."""
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / place))
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exc_info
    told = done.stderr.strip().splitlines()[-1]
    assert told.startswith(f"bioverify: {tmp_path / place}")
    assert "BIOVERIFY_HOME" in told


def test_a_fault_that_is_no_disks_stays_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises() -> None:
        raise ConnectionResetError(errno.ECONNRESET, "of our own")

    monkeypatch.setattr(stack, "state_folder", raises)
    assert isinstance(CliRunner().invoke(app, ["status"]).exception, ConnectionResetError)
