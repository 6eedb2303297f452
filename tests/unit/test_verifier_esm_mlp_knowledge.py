"""Vectors of networks, gene sets and descriptions, in the forms in which their providers write them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.verifiers.esm_mlp.build import vectors_of
from bioverify.verifiers.esm_mlp.embeddings import GeneVectors
from bioverify.verifiers.esm_mlp.knowledge import read_sources
from bioverify.verifiers.esm_mlp.settings import Settings
from bioverify.verifiers.esm_mlp.vectors import go_svd

TRIO, PAIR = ["AARS1", "ASNS", "EIF2B4"], ["TP53", "CDKN1A"]
COESSENTIAL_HEADER = "Cluster number\tHeatmap URL" + "\tterm" * 9 + "\tGenes"


def read(store: ArtifactStore, path: Path, **explicit: Path) -> GeneVectors:
    resolver, _ = open_genes(store)
    named = {"gene_vectors.known": path} | explicit
    sources = Sources(mirror=None, cache=path.parent / "no cache", offline=True, explicit=named)
    (table,), _ = read_sources(sources, resolver, progress=lambda _said: None)
    return table


def likeness(table: GeneVectors, one: str, other: str) -> float:
    first, second = (table.vectors[table.symbols.index(gene)].astype(float) for gene in (one, other))
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def forms(folder: Path) -> list[Path]:
    """The trio belongs together, and the pair, in each form; AARS is what AARS1 was called."""
    edges = "AARS ASNS 900\nASNS EIF2B4 700\nAARS1 EIF2B4 800\nTP53 CDKN1A 999\nAARS1 TP53 400\n"
    modules = ["\t".join([*["."] * 11, *genes, "", ""]) for genes in (["AARS", *TRIO[1:]], PAIR, ["MYC"])]
    words = ["AARS1\tTransfer synthetase.", "ASNS\tA synthetase; transfer.", "EIF2B4\tsynthetase transfer"]
    words += ["TP53\tTumour suppressor", "CDKN1A\tsuppressor of a tumour", "MYC\tannotation not available"]
    return [
        write(folder / "edges.txt", "protein1 protein2 combined_score\n" + edges),
        write(folder / "edges.tsv.gz", edges.replace(" ", "\t")),
        write(folder / "sets.gmt.gz", "one\tabout\tAARS\tASNS\tEIF2B4\ntwo\tabout\tTP53\tCDKN1A\nthree\tabout\tMYC\n"),
        write(folder / "modules.tsv", "\n".join([COESSENTIAL_HEADER, *modules]) + "\n"),
        write(folder / "info.txt.gz", "\n".join(["preferred_name\tannotation", *words]) + "\n"),
    ]


def test_genes_that_belong_together_are_alike_in_every_form(bundled_store: ArtifactStore, tmp_path: Path) -> None:
    for path in forms(tmp_path):
        table = read(bundled_store, path)
        assert set(TRIO + PAIR) <= set(table.symbols), path
        assert "AARS" not in table.symbols
        assert likeness(table, "AARS1", "EIF2B4") > 0.9, path
        assert likeness(table, "TP53", "CDKN1A") > 0.9, path
        assert abs(likeness(table, "AARS1", "TP53")) < 0.1, path


def test_proteins_of_string_are_translated_and_the_translation_enters_the_manifest(
    bundled_store: ArtifactStore, tmp_path: Path
) -> None:
    ids = {gene: f"9606.ENSP{number:011}" for number, gene in enumerate(TRIO + PAIR)}
    info = write(
        tmp_path / "info.txt",
        "#string_protein_id\tpreferred_name\tprotein_size\tannotation\n"
        + "".join(f"{ids[gene]}\t{gene}\t1\tx\n" for gene in ids),
    )
    edges = [(TRIO[0], TRIO[1]), (TRIO[1], TRIO[2]), (TRIO[0], TRIO[2]), (PAIR[0], PAIR[1])]
    text = "".join(f"{ids[one]} {ids[other]} 900\n" for one, other in edges)
    links = write(tmp_path / "9606.protein.links.v12.0.txt.gz", "protein1 protein2 combined_score\n" + text)
    resolver, _ = open_genes(bundled_store)
    sources = Sources(
        mirror=None, cache=tmp_path / "none", offline=True, explicit={"gene_vectors.STRING": links, "string": info}
    )
    (table,), records = read_sources(sources, resolver, progress=lambda _said: None)
    assert sorted(table.symbols) == sorted(TRIO + PAIR)
    assert likeness(table, "AARS1", "EIF2B4") > 0.9
    assert [one.name for one in records] == ["string", "gene_vectors.STRING"]
    assert {one.license for one in records} == {"CC BY 4.0 (STRING)"}
    with pytest.raises(ArtifactError, match="source string: not found"):
        read(bundled_store, links)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("edges.txt", "AARS1 ASNS 900\nAARS1 binds ASNS\n", "edge 2 is 'AARS1 binds ASNS'"),
        ("edges.txt", "AARS1 ASNS 900 extra\n", "expected two names"),
        ("edges.tsv", "NOSUCHGENE1\tNOSUCHGENE2\n", "0 human genes"),
        ("edges.tsv", "AARS1 ASNS 100\n", "0 human genes"),
        ("sets.gmt", "", "0 human genes"),
        ("sets.gmt.gz", None, "cannot be read"),
        ("info.txt", "preferred_name\tannotation\nASNS\n", "line 2 has 1 columns"),
    ],
)
def test_a_file_of_no_such_form_is_refused_in_a_sentence(
    name: str, content: str | None, said: str, bundled_store: ArtifactStore, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is None:
        path.write_bytes(gzip.compress(b"one\tabout\tAARS1\tASNS\n" * 99)[:-20])
    else:
        write(path, content)
    with pytest.raises(ArtifactError, match=said) as refused:
        read(bundled_store, path)
    assert "\n" not in str(refused.value)


def test_a_weight_counts_by_the_name_of_its_table_and_one_of_no_table_is_refused(
    bundled_store: ArtifactStore, tmp_path: Path
) -> None:
    resolver, _ = open_genes(bundled_store)
    one, other = write(tmp_path / "a.gmt", "x\t.\tTP53\tASNS\ny\t.\tMYC\tEIF2B4\nz\t.\tAARS1\tCDKN1A\n"), tmp_path / "b"
    other = write(other.with_suffix(".gmt"), "x\t.\tTP53\tMYC\ny\t.\tASNS\tEIF2B4\nz\t.\tAARS1\tCDKN1A\n")
    sources = Sources(
        mirror=None, cache=tmp_path, offline=True, explicit={"gene_vectors.a": one, "gene_vectors.b": other}
    )

    def made(**weights: float) -> GeneVectors:
        settings = Settings(go_dimensions=0, reduce_to=None, weights=weights)
        return vectors_of(settings, sources, resolver, progress=lambda _said: None)[0]

    equal, first = made(), made(a=4.0)
    assert likeness(equal, "TP53", "ASNS") == pytest.approx(likeness(equal, "TP53", "MYC"), abs=0.01)
    assert likeness(first, "TP53", "ASNS") > likeness(first, "TP53", "MYC") + 0.5
    with pytest.raises(ArtifactError, match="weights name c, and there are: a, b"):
        made(c=1.0)


def test_few_genes_have_the_same_vectors_however_often_they_are_made() -> None:
    genes = {"TP53": [0, 3], "ASNS": [0, 4], "MYC": [1, 3], "EIF2B4": [1, 4], "AARS1": [2, 5], "CDKN1A": [2, 5]}
    first, *others = [go_svd(genes, 6, 3) for _ in range(50)]
    assert all((first == other).all() for other in others)
