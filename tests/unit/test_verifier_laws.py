"""Laws that all seven verifiers obey, on artifacts made from the bundled set."""

from __future__ import annotations

import importlib
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bioverify.artifacts import prompts
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.answers import AnswerProblem
from bioverify.core.outcomes import Scored
from bioverify.core.tasks import CoExpression, DifferentialExpression, DirectionOfChange, GeneAnnotation, Task
from bioverify.core.verifier import Item, Verifier

WITH_ARTIFACT = ["experimental", "go_rouge", "transcriptformer_pmi", "esm_mlp", "analogy", "claims"]
ALL = [*WITH_ARTIFACT, "format"]


def open_named(name: str, store: ArtifactStore) -> Verifier:
    module = importlib.import_module(f"bioverify.verifiers.{name}.verifier")
    verifier: Verifier = module.open_verifier() if name == "format" else module.open_verifier(store)
    return verifier


@pytest.fixture(scope="module")
def items(bundled_store: ArtifactStore) -> list[Item]:
    """Questions of all kinds about genes of the screen, with answers and texts of all qualities."""
    choose = random.Random(11)
    table = prompts.open_prompts(bundled_store)[0]
    rows = table.take(choose.sample(range(table.num_rows), 150)).to_pylist()
    made: list[Item] = []
    for number, row in enumerate(rows):
        genes = (row["perturbation"], row["measured_gene"])
        is_de = row["task_kind"] == "differential_expression"
        tasks: list[Task | None] = [
            (DifferentialExpression if is_de else DirectionOfChange)(*genes, row["line"]),
            CoExpression(*genes),
            GeneAnnotation(genes),
            DifferentialExpression(genes[0], "NOSUCHGENE", row["line"]),
            None,
        ]
        texts = [
            f"<think>{genes[0]} binds ATP in the cytosol; {genes[1]} signals.</think><answer>yes</answer>",
            f"<gene_info>{genes[1]}: plasma membrane</gene_info><think>so</think>",
            "",
        ]
        made.append(
            Item(
                tasks[number % 7 if number % 7 < 5 else 0],
                answer=[True, False, AnswerProblem.NO_ANSWER_BLOCK][number % 3],
                completion=texts[number % len(texts)],
            )
        )
    return made


@pytest.mark.parametrize("name", ALL)
def test_scores_do_not_depend_on_order_or_company(
    name: str, bundled_store: ArtifactStore, items: Sequence[Item]
) -> None:
    verifier = open_named(name, bundled_store)
    together = verifier.score(items)
    assert len(together) == len(items)
    assert any(isinstance(outcome, Scored) for outcome in together)
    assert [verifier.score([item])[0] for item in items] == together
    order = random.Random(1).sample(range(len(items)), len(items))
    assert verifier.score([items[position] for position in order]) == [together[position] for position in order]
    assert verifier.score([]) == []


@pytest.mark.parametrize("name", ALL)
def test_evidence_changes_nothing_but_itself(name: str, bundled_store: ArtifactStore, items: Sequence[Item]) -> None:
    verifier = open_named(name, bundled_store)
    for with_it, without in zip(verifier.score(items), verifier.score(items, with_evidence=False), strict=True):
        assert type(with_it) is type(without)
        if isinstance(with_it, Scored) and isinstance(without, Scored):
            assert with_it.evidence
            assert not without.evidence
            assert (with_it.value, with_it.belief) == (without.value, without.belief)
            assert with_it.components == without.components


@pytest.mark.parametrize("name", ALL)
def test_the_canary_sings(name: str, bundled_store: ArtifactStore) -> None:
    verifier = open_named(name, bundled_store)
    item, expected = verifier.canary()
    assert isinstance(expected, Scored)
    assert verifier.score([item]) == [expected]
    assert verifier.description.name == name


@pytest.mark.parametrize("name", ALL)
def test_the_description_names_what_was_opened_and_a_version_that_can_be_raised(
    name: str, bundled_store: ArtifactStore
) -> None:
    description = open_named(name, bundled_store).description
    opened = {artifact.name: artifact.digest for artifact in description.artifacts}
    assert opened == {one: bundled_store.open(one).identity.digest for one in opened}
    assert (name in opened) is (name in WITH_ARTIFACT)
    assert int(description.version) > 0
    assert description.problem() == ""


@pytest.mark.parametrize("name", ALL)
def test_components_are_all_described(name: str, bundled_store: ArtifactStore, items: Sequence[Item]) -> None:
    verifier = open_named(name, bundled_store)
    described = set(verifier.description.components)
    for outcome in verifier.score(items):
        if isinstance(outcome, Scored):
            shown = {"no_answer.*" if key.startswith("no_answer.") else key for key in outcome.components}
            assert shown <= described


@pytest.mark.parametrize("name", ["experimental", "esm_mlp", "analogy"])
def test_what_rests_on_the_simulated_screen_always_says_so(
    name: str, bundled_store: ArtifactStore, items: Sequence[Item]
) -> None:
    verifier = open_named(name, bundled_store)
    assert verifier.description.artifacts[0].simulated
    evidence = [one for outcome in verifier.score(items) if isinstance(outcome, Scored) for one in outcome.evidence]
    assert evidence
    assert all(one.simulated and "(simulated screen, not an experiment)" in one.text for one in evidence)


@pytest.mark.parametrize("name", WITH_ARTIFACT)
def test_a_missing_or_damaged_artifact_keeps_the_verifier_shut_and_names_the_command(
    name: str, bundled_store: ArtifactStore, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(ArtifactError, match="Run: bioverify data build genes"):
        open_named(name, store)
    shutil.copytree(bundled_store.root / "genes", tmp_path / "genes")
    with pytest.raises(ArtifactError, match=f"artifact {name}: not built yet .* Run: bioverify data build {name}"):
        open_named(name, store)
    shutil.copytree(bundled_store.root / name, tmp_path / name)
    open_named(name, store)
    largest = max((tmp_path / name).rglob("*.*"), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    assert largest.stat().st_mode & 0o222 == 0  # copied with its mode: read-only since it was built
    largest.chmod(0o644)
    largest.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=rf"sha256 of {largest.name} is .* data verify --repair {name}"):
        open_named(name, store)
    largest.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="changed or cut short"):
        open_named(name, store)


@pytest.mark.parametrize("name", ALL)
def test_a_service_needs_no_builders_packages_and_only_the_classifier_needs_torch(
    name: str, bundled_store: ArtifactStore
) -> None:
    absent = ["pronto", "anndata", "pandas", "sklearn"]
    absent += ["torch", "safetensors"] if name != "esm_mlp" else []
    absent += ["scipy"] if name != "analogy" else []  # LightGBM brings it
    script = (
        "import importlib, pathlib, sys\n"
        "from bioverify.artifacts.store import ArtifactStore\n"
        "absent, name, root = sys.argv[1].split(','), sys.argv[2], pathlib.Path(sys.argv[3])\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "module = importlib.import_module(f'bioverify.verifiers.{name}.verifier')\n"
        "verifier = module.open_verifier() if name == 'format' else module.open_verifier(ArtifactStore(root))\n"
        "item, expected = verifier.canary()\n"
        "assert verifier.score([item]) == [expected]\n"
    )
    command = [sys.executable, "-c", script, ",".join(absent), name, str(bundled_store.root)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
