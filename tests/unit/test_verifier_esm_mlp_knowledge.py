"""Vectors of networks, gene sets and descriptions, in the forms in which their providers write them."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.sources import Sources
from bioverify.artifacts.store import SourceRecord
from bioverify.core.genes import GeneResolver
from bioverify.verifiers.esm_mlp.build import vectors_of
from bioverify.verifiers.esm_mlp.embeddings import GeneVectors
from bioverify.verifiers.esm_mlp.knowledge import read_sources
from bioverify.verifiers.esm_mlp.settings import Settings
from bioverify.verifiers.esm_mlp.vectors import go_svd

TRIO, PAIR = ["AARS1", "ASNS", "EIF2B4"], ["TP53", "CDKN1A"]
ACCESSION = {
    "AARS1": "P49588",
    "ASNS": "P08243",
    "EIF2B4": "Q9UI10",
    "TP53": "P04637",
    "CDKN1A": "P38936",
    "MYC": "P01106",
}
COESSENTIAL_HEADER = "Cluster number\tHeatmap URL" + "\tterm" * 9 + "\tGenes"


def resolver_of_few() -> GeneResolver:
    """With UniProt accessions, which the set of genes that ships lacks."""
    genes = [*TRIO, *PAIR, "MYC"]
    other = {accession: (gene,) for gene, accession in ACCESSION.items()} | {"AARS": ("AARS1",)}
    return GeneResolver({gene: gene for gene in genes}, other)


def read(path: Path, **explicit: Path) -> GeneVectors:
    resolver = resolver_of_few()
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


LINKED = [("AARS1", "ASNS"), ("ASNS", "EIF2B4"), ("AARS1", "EIF2B4"), ("TP53", "CDKN1A")]
STRANGE = ("AARS1", "TP53")
"""Two that belong together in the lines only that do not count."""


def complexes() -> str:
    """As Complex Portal writes them: a nested complex in one column, its members in another; a chain, a compound."""
    head = ["#Complex ac", "Recommended name", "Taxonomy identifier"]
    head += ["Identifiers (and stoichiometry) of molecules in complex", "Expanded participant list"]
    trio, pair = ([ACCESSION[gene] for gene in genes] for genes in (TRIO, PAIR))
    lines = [
        ["CPX-1", "trio", "9606", f"{trio[0]}(2)|CPX-9(1)", f"{trio[0]}-2(2)|{trio[1]}-PRO_0000000001(0)|{trio[2]}(1)"],
        ["CPX-2", "pair", "9606", "|".join(pair), f"{pair[0]}(4)|{pair[1]}(4)|CHEBI:29105(1)"],
        ["CPX-4", "alone", "9606", "", f"{ACCESSION['MYC']}(2)"],
        ["CPX-3", "a mouse's", "10090", "", f"{ACCESSION['AARS1']}(1)|{ACCESSION['TP53']}(1)"],
    ]
    return "".join("\t".join(line) + "\n" for line in (head, *lines))


def biogrid() -> str:
    head = ["#BioGRID Interaction ID", "Official Symbol Interactor A", "Official Symbol Interactor B"]
    head += ["Experimental System Type", "Organism ID Interactor A", "Organism ID Interactor B"]
    lines = [["1", *pair, "physical", "9606", "9606"] for pair in LINKED]
    lines += [["2", *STRANGE, "genetic", "9606", "9606"], ["3", *STRANGE, "physical", "9606", "10090"]]
    return "".join("\t".join(line) + "\n" for line in (head, *lines))


def mitab() -> str:
    def line(pair: tuple[str, str], score: str, taxon: str = "taxid:9606(human)|taxid:9606(Homo sapiens)") -> list[str]:
        ids = [f"uniprotkb:{ACCESSION[gene]}" for gene in pair]
        return [ids[0], f"{ids[1]}-2", *["-"] * 7, "taxid:9606(human)", taxon, *["-"] * 3, score]

    head = ["#ID(s) interactor A", "ID(s) interactor B", *["column"] * 13]
    lines = [line(pair, "author score:A|intact-miscore:0.56") for pair in LINKED]
    lines += [line(STRANGE, "intact-miscore:0.44"), line(STRANGE, "-"), line(STRANGE, "intact-miscore:0.9", "taxid:1")]
    lines += [["chebi:29105", *lines[0][1:]]]
    return "".join("\t".join(one) + "\n" for one in (head, *lines))


def archive(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as written:
        for name, text in members.items():
            written.writestr(name.replace("__", "."), text)
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
        write(folder / "complex_portal.9606.tsv", complexes()),
        archive(folder / "BIOGRID-MV-Physical-LATEST.tab3.zip", BIOGRID__tab3__txt=biogrid()),
        archive(folder / "intact.human.zip", human__txt=mitab(), human_negative__txt="none\n"),
        archive(
            folder / "ReactomePathways.gmt.zip",
            ReactomePathways__gmt="a\tR-1\tAARS1\tASNS\tEIF2B4\nb\tR-2\tTP53\tCDKN1A\nc\tR-3\tMYC\n",
        ),
    ]


def test_genes_that_belong_together_are_alike_in_every_form(tmp_path: Path) -> None:
    for path in forms(tmp_path):
        table = read(path)
        assert set(TRIO + PAIR) <= set(table.symbols), path
        assert "AARS" not in table.symbols
        assert likeness(table, "AARS1", "EIF2B4") > 0.9, path
        assert likeness(table, "TP53", "CDKN1A") > 0.9, path
        assert abs(likeness(table, "AARS1", "TP53")) < 0.1, path


def test_proteins_of_string_are_translated_and_the_translation_enters_the_manifest(
    tmp_path: Path,
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
    resolver = resolver_of_few()
    sources = Sources(
        mirror=None, cache=tmp_path / "none", offline=True, explicit={"gene_vectors.STRING": links, "string": info}
    )
    (table,), records = read_sources(sources, resolver, progress=lambda _said: None)
    assert sorted(table.symbols) == sorted(TRIO + PAIR)
    assert likeness(table, "AARS1", "EIF2B4") > 0.9
    assert [one.name for one in records] == ["string", "gene_vectors.STRING"]
    assert {one.license for one in records} == {"CC BY 4.0 (STRING)"}
    with pytest.raises(ArtifactError, match="source string: not found"):
        read(links)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("edges.txt", "AARS1 ASNS 900\nAARS1 binds ASNS\n", "edge 2 is 'AARS1 binds ASNS'"),
        ("edges.txt", "AARS1 ASNS 900 extra\n", "expected two names"),
        ("edges.tsv", "NOSUCHGENE1\tNOSUCHGENE2\n", "0 human genes"),
        ("edges.tsv", "AARS1 ASNS 100\n", "0 human genes"),
        ("sets.gmt", "", "0 human genes"),
        ("sets.gmt.gz", None, "cannot be read"),
        ("none.zip", "README__md", "holds no file that ends in .gmt, .txt, .tsv"),
        ("broken.zip", "", "cannot be read"),
        ("info.txt", "preferred_name\tannotation\nASNS\n", "line 2 has 1 columns"),
    ],
)
def test_a_file_of_no_such_form_is_refused_in_a_sentence(
    name: str, content: str | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content == "README__md":
        archive(path, README__md="nothing")
    elif content is None:
        path.write_bytes(gzip.compress(b"one\tabout\tAARS1\tASNS\n" * 99)[:-20])
    else:
        write(path, content)
    with pytest.raises(ArtifactError, match=said) as refused:
        read(path)
    assert "\n" not in str(refused.value)


def test_a_weight_counts_by_the_name_of_its_table_and_one_of_no_table_is_refused(
    tmp_path: Path,
) -> None:
    resolver = resolver_of_few()
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


_WEIGHTS = ({"complex_portal": 0.7}, {"complex_portal": 7.0})


def test_public_knowledge_is_found_by_itself_weighed_named_and_in_the_manifests_records(
    tmp_path: Path,
) -> None:
    resolver = resolver_of_few()
    mirror = tmp_path / "mirror"
    (mirror / "knowledge").mkdir(parents=True)
    write(mirror / "knowledge" / "complex_portal.9606.tsv", complexes())
    own = write(tmp_path / "own.gmt", "x\t.\tAARS1\tTP53\ny\t.\tASNS\tCDKN1A\nz\t.\tEIF2B4\tMYC\n")
    said: list[str] = []

    def made(
        explicit: dict[str, Path], weights: dict[str, float] | None = None
    ) -> tuple[GeneVectors, list[SourceRecord]]:
        sources = Sources(mirror=mirror, cache=tmp_path / "none", offline=True, explicit=explicit)
        chosen = Settings(go_dimensions=0, knowledge=("complex_portal", "reactome"), weights=weights or {})
        return vectors_of(chosen, sources, resolver, progress=said.append)

    table, records = made({})
    assert (table.name, [(one.name, one.license) for one in records]) == (
        "Complex Portal",
        [("complex_portal", "CC0 1.0 (Complex Portal)")],
    )
    assert any("Reactome" in one and "bioverify data fetch reactome" in one for one in said)
    weighed = [made({"gene_vectors.own": own}, weights=one)[0] for one in (None, *_WEIGHTS)]
    assert {one.name for one in weighed} == {"own + Complex Portal"}
    assert (weighed[0].vectors == weighed[1].vectors).all()
    assert likeness(weighed[2], "AARS1", "ASNS") > likeness(weighed[0], "AARS1", "ASNS") + 0.5
    table, records = made({"gene_vectors.complex_portal": own})
    assert [one.name for one in records] == ["gene_vectors.complex_portal"]
    assert likeness(table, "AARS1", "TP53") > 0.9
    with pytest.raises(ArtifactError, match="weights name reactome, and there are: complex_portal"):
        made({}, weights={"reactome": 1.0})


def test_few_genes_have_the_same_vectors_however_often_they_are_made() -> None:
    genes = {"TP53": [0, 3], "ASNS": [0, 4], "MYC": [1, 3], "EIF2B4": [1, 4], "AARS1": [2, 5], "CDKN1A": [2, 5]}
    first, *others = [go_svd(genes, 6, 3) for _ in range(50)]
    assert all((first == other).all() for other in others)
