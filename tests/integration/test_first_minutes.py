"""A stranger's first minutes: an empty home, no data, no network; what README shows is what is printed."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import bioverify
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.services import FIRST_VERIFIERS, PREBUILT
from bioverify.client import ScoreItem
from bioverify.ports import PORT_BASE
from bioverify.stack import Plan
from tests.fixtures.stack import LocalStack, make_stack
from tests.stranger.documents import comparable

ROOT = Path(__file__).parents[2]
QUESTION = "Is a knockdown of AARS in k562 cells likely to result in differential expression of TRIB3?"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    home = tmp_path_factory.mktemp("stranger")
    stack = make_stack(home / "home", home / "state")
    yield stack
    stack.run_alone("down")


@pytest.fixture(scope="module")
def tried(stranger: LocalStack) -> str:
    return stranger.run_alone("try", "--port-base", str(stranger.port_base)).stdout


def test_the_first_command_prints_what_readme_shows(stranger: LocalStack, tried: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^\$ bioverify try\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert shown, "README has no block that begins with: $ bioverify try"

    assert comparable(tried, stranger.port_base) == comparable(textwrap.dedent(shown[1]), PORT_BASE)


def test_what_ships_is_installed_and_nothing_of_it_was_built_or_downloaded(stranger: LocalStack, tried: str) -> None:
    store = ArtifactStore(stranger.home / "artifacts")
    assert store.names() == sorted(PREBUILT)
    assert not (stranger.home / "sources").exists()


def test_the_verifiers_that_are_left_out_leave_their_ports_to_nobody_else(stranger: LocalStack, tried: str) -> None:
    processes = stranger.processes()
    assert {name for name in processes if name in FIRST_VERIFIERS} == set(FIRST_VERIFIERS)
    assert "esm_mlp" not in processes
    assert processes["format"].address == f"127.0.0.1:{stranger.port_base + 5}"


def test_again_it_asks_the_stack_that_runs(stranger: LocalStack, tried: str) -> None:
    before = {name: process.pid for name, process in stranger.processes().items()}

    again = stranger.run_alone("try").stdout

    assert "Installed" not in again
    assert [line for line in again.splitlines() if " of 6 " in line] == [
        line for line in tried.splitlines() if " of 6 " in line
    ]
    assert {name: process.pid for name, process in stranger.processes().items()} == before


def test_a_file_of_ones_own_is_scored_by_the_same_recipe(stranger: LocalStack, tried: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps({"id": "mine", "prompt": QUESTION, "completion": "<answer>no</answer>"}) + "\n")

    stranger.run("score", mine, "--recipe", "first-score")

    (scored,) = map(json.loads, mine.with_name("mine.scored.jsonl").read_text().splitlines())
    assert scored["reward"] > 2


def test_from_python_the_stack_that_runs_is_used_and_left_running(
    stranger: LocalStack, tried: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stranger.environment.items():
        monkeypatch.setenv(name, value)
    with bioverify.local() as client:
        assert client.target == stranger.target
        batch = client.score([ScoreItem("1", "<answer>no</answer>", QUESTION)], "first-score")
    assert batch.rewards[0].reward is not None
    assert all(process.is_ready for process in stranger.processes().values())


def test_from_python_with_nothing_up_a_stack_is_started_and_ended(
    stranger: LocalStack, tried: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOVERIFY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOVERIFY_STATE", str(tmp_path / "state"))
    with bioverify.local() as client:
        target = client.target
        batch = client.score([ScoreItem("1", "<answer>no</answer>", QUESTION)], "first-score")
    assert batch.rewards[0].reward is not None
    assert target != stranger.target
    assert Plan.load(tmp_path / "state") is None
    with pytest.raises(bioverify.client.ClientError), bioverify.client.Client(target) as gone:
        gone.list_recipes(deadline_s=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "esm_mlp"), "not built yet in .*: esm_mlp. Run: bioverify data build esm_mlp"),
        (("--recipe", "all"), "not built yet in .*: claims, esm_mlp, analogy, consensus"),
        (("--only", "go-rouge"), "no verifier is called go-rouge; there are: experimental, go_rouge"),
        (("--recipe", "al"), "recipe 'al' is not known"),
        (("--only", "format", "--recipe", "all"), "give one of them"),
        (("--recipe", "consensus"), "not built yet in .*: esm_mlp, analogy, consensus"),
    ],
)
def test_a_subset_that_cannot_be_started_is_a_sentence(
    stranger: LocalStack, tried: str, options: tuple[str, ...], said: str
) -> None:
    refused = stranger.run("up", *options, status=1)
    assert re.search(said, " ".join(refused.output.split()))


def test_beside_artifacts_of_another_build_nothing_is_installed(tmp_path: Path, stranger: LocalStack) -> None:
    partly = make_stack(tmp_path / "home", tmp_path / "state")
    (tmp_path / "home" / "artifacts" / "genes").mkdir(parents=True)
    (tmp_path / "home" / "artifacts" / "genes" / "current").write_text("0123456789abcdef\n")

    refused = partly.run("try", status=1)

    assert "Run: bioverify data build experimental go_rouge transcriptformer_pmi" in " ".join(refused.output.split())
    assert not (tmp_path / "home" / "artifacts" / "experimental").exists()
