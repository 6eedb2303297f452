"""The settings file: what it changes is part of what an artifact was built from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.build_settings import BuildSettings, read_build_settings
from bioverify.cli.services import build_artifact, open_verifier
from bioverify.settings import SettingsError
from bioverify.verifiers.analogy import build as analogy
from bioverify.verifiers.analogy.settings import Settings as AnalogySettings
from bioverify.verifiers.esm_mlp import build as esm_mlp
from bioverify.verifiers.esm_mlp.knowledge import KNOWLEDGE
from bioverify.verifiers.esm_mlp.settings import KNOWLEDGE_WEIGHTS
from bioverify.verifiers.esm_mlp.settings import Settings as EsmMlpSettings
from tests.fixtures.artifacts import bundled_sources, silent

RBIO = "esm_mlp: {net: rbio, form: strict, epochs: 0.02, folds: 2, go_dimensions: 8, reduce_to: null}\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_rbios_classifier_that_leaves_the_line_out_is_built_by_a_settings_file(tmp_path: Path) -> None:
    settings = read_build_settings(written(tmp_path / "rbio.yaml", RBIO))
    assert settings.of("esm_mlp") != BuildSettings().of("esm_mlp")
    store, sources = ArtifactStore(tmp_path / "artifacts"), bundled_sources(tmp_path)
    for name in ("genes", "esm_mlp"):
        build_artifact(name, store, sources, silent, settings)
    parameters = store.manifest("esm_mlp").parameters
    assert (parameters["net"], parameters["form"], parameters["folds"]) == ("rbio", "strict", 2)
    verifier = open_verifier("esm_mlp", store)
    item, expected = verifier.canary()
    assert verifier.score([item]) == [expected]
    assert "MLP trained on RPE1, HepG2, Jurkat; strict transfer" in str(expected)


def test_a_mistake_in_the_classifiers_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"esm_mlp\.net"):
        read_build_settings(written(tmp_path / "wrong.yaml", "esm_mlp: {net: resnet}\n"))


def test_a_classifier_without_any_vectors_is_refused(tmp_path: Path) -> None:
    settings = read_build_settings(written(tmp_path / "none.yaml", "esm_mlp: {go_dimensions: 0, knowledge: []}\n"))
    store, sources = ArtifactStore(tmp_path / "artifacts"), bundled_sources(tmp_path)
    build_artifact("genes", store, sources, silent, settings)
    with pytest.raises(ArtifactError, match="no gene vectors"):
        build_artifact("esm_mlp", store, sources, silent, settings)


def test_the_settings_of_the_examples_are_read_and_name_all_knowledge_that_has_a_reader() -> None:
    settings = read_build_settings(Path(__file__).parents[2] / "examples" / "knowledge.yaml")
    assert set(settings.esm_mlp.knowledge) == KNOWLEDGE.keys() == KNOWLEDGE_WEIGHTS.keys()
    assert settings.analogy.reduce_to is None


def test_analogy_compares_genes_by_more_dimensions_than_nets_are_fed_with(
    bundled_store: ArtifactStore, tmp_path: Path
) -> None:
    store, sources = ArtifactStore(tmp_path / "artifacts"), bundled_sources(tmp_path)
    shutil.copytree(bundled_store.root / "genes", store.root / "genes")
    nets = EsmMlpSettings(go_dimensions=16, reduce_to=6, steps=2, folds=2)
    esm_mlp.build(store, sources, progress=silent, settings=nets)
    for most, shown, width in ((None, "GO-SVD 16-d, not ESM2", 16), (9, "GO-SVD 16-d, not ESM2, PCA 9-d", 9)):
        made = analogy.build(store, sources, progress=silent, settings=AnalogySettings(reduce_to=most))
        assert np.load(store.open("analogy").path / "vectors.npy").shape[1] == width
        assert made.parameters["vectors"] == shown
        assert open_verifier("analogy", store).description.summary.endswith(f"(likeness by {shown}).")
    assert store.open("esm_mlp").manifest.parameters["vectors"] == "GO-SVD 16-d, not ESM2, PCA 6-d"
