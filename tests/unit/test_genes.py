"""Which gene a name means: ids in the forms that people have, previous symbols, and names that several genes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.genes import build, make_resolver, read_genes, read_official_names
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import BUNDLED_FOLDER, GENES, HGNC, LocatedSource, Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import NotApplicable
from tests.fixtures.artifacts import bundled_sources, silent


@pytest.fixture(scope="module")
def resolver(bundled_store: ArtifactStore) -> GeneResolver:
    """Of what ships with the package."""
    return open_genes(bundled_store)[0]


PREVIOUS = {
    # of the issue
    "GARS": "GARS1",
    "QARS": "QARS1",
    "SARS": "SARS1",
    "MARS": "MARS1",
    "TAZ": "TAFAZZIN",
    "GBA": "GBA1",
    "HIST1H2BC": "H2BC4",
    "HIST1H2BE": "H2BC6",
    "HIST1H2BG": "H2BC8",
    "MPP6": "PALS2",
    "AC118549.1": "ZZZ3",
    # and others of the kind
    "NOV": "CCN3",
    "GIF": "CBLIF",
    "SEPT2": "SEPTIN2",
    "LOR": "LORICRIN",
}


@pytest.mark.parametrize(("name", "symbol"), PREVIOUS.items())
def test_a_previous_symbol_beats_another_genes_alias(resolver: GeneResolver, name: str, symbol: str) -> None:
    assert resolver.resolve(name) == symbol


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("Entrez:16", "AARS1"),
        ("entrez_16", "AARS1"),
        ("ENTREZID:16", "AARS1"),
        ("NCBIGene:16", "AARS1"),
        ("GeneID:7157", "TP53"),
        ("ncbi_gene:7157", "TP53"),
        ("ENSG00000090861.17", "AARS1"),
        ("ensembl:ENSG00000090861", "AARS1"),
        ("ENSG00000182378.14_PAR_Y", "PLCXD1"),
        ("ENSG00000182378_PAR_Y", "PLCXD1"),
        ("PLCXD1_PAR_Y", "PLCXD1"),
        ("ENSGR0000182378.10", "PLCXD1"),
        ("HLA.A", "HLA-A"),
        ("HLA.DRB1", "HLA-DRB1"),
        ("NKX2.1", "NKX2-1"),
        ("MT.CO1", "MT-CO1"),
        ("mt-nd4l", "MT-ND4L"),
        ("CYTB", "MT-CYB"),
        ("MT-CO2", "MT-CO2"),
        ("MT-RNR1", "MT-RNR1"),
        ("MT-TL1", "MT-TL1"),
        ("G4.5", "TAFAZZIN"),  # a dot that belongs to the name
    ],
)
def test_ids_and_symbols_are_read_as_people_write_them(resolver: GeneResolver, name: str, symbol: str) -> None:
    assert resolver.resolve(name) == symbol


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("COX1", "COX1 may be MT-CO1 or PTGS1."),
        ("COX2", "COX2 may be MT-CO2 or PTGS2."),
        ("cox3", "cox3 may be MT-CO3 or PTGS1."),
        ("ND1", "ND1 may be IVNS1ABP or MT-ND1."),
    ],
)
def test_a_name_that_is_nobodys_official_one_stays_ambiguous(resolver: GeneResolver, name: str, told: str) -> None:
    answer = resolver.resolve(name)
    assert isinstance(answer, NotApplicable)
    assert (answer.reason, answer.detail) == ("ambiguous_gene", told)


KNOWN = "Ids of genes that are known here: Ensembl (ENSG00000090861), NCBI Gene (NCBIGene:16)."


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("HGNC:20", f"HGNC:20 is no known human gene symbol, alias or id. {KNOWN}"),
        ("ENST00000261772.13", f"ENST00000261772.13 is no known human gene symbol, alias or id. {KNOWN}"),
        ("NM_001605", f"NM_001605 is no known human gene symbol, alias or id. {KNOWN}"),
        ("ENSMUSG00000028691", f"ENSMUSG00000028691 is no known human gene symbol, alias or id. {KNOWN}"),
        ("16", "16 is a number. If it is an id of NCBI Gene, write NCBIGene:16."),
        ("AARS1.1", "AARS1.1 is no known human gene symbol, alias or id."),
        ("NOSUCHGENE", "NOSUCHGENE is no known human gene symbol, alias or id."),
    ],
)
def test_an_unknown_id_says_which_are_known(resolver: GeneResolver, name: str, told: str) -> None:
    answer = resolver.resolve(name)
    assert isinstance(answer, NotApplicable)
    assert (answer.reason, answer.detail) == ("unknown_gene", told)


@pytest.mark.parametrize(
    ("column", "name", "symbol"),
    [
        (["COX2", "PTGS2"], "COX2", "MT-CO2"),
        (["COX1", "MT-CO1"], "COX1", "PTGS1"),
        (["ND1", "ENSG00000116679"], "ND1", "MT-ND1"),
        (["cox2", "NCBIGene:5743", "ACTB"], "cox2", "MT-CO2"),
        (["COX2", "ACTB"], "COX2", None),
        (["COX2", "PTGS2", "MT-CO2"], "COX2", None),  # a third name means neither
        # Old and new name of one gene, as a table joined from two has them: no other gene gets the old one.
        (["GARS", "GARS1"], "GARS", "GARS1"),
        (["TAZ", "TAFAZZIN"], "TAZ", "TAFAZZIN"),
    ],
)
def test_a_column_that_holds_the_other_gene_under_its_own_name_decides(
    resolver: GeneResolver, column: list[str], name: str, symbol: str | None
) -> None:
    answer = resolver.of_column(column).resolve(name)
    assert answer == symbol or (symbol is None and isinstance(answer, NotApplicable))
    # Elsewhere the name means what it meant.
    assert resolver.resolve("COX2") == NotApplicable("ambiguous_gene", "COX2 may be MT-CO2 or PTGS2.")


HGNC_COLUMNS = [
    "hgnc_id",
    "symbol",
    "name",
    "locus_group",
    "locus_type",
    "status",
    "location",
    "location_sortable",
    "alias_symbol",
    "alias_name",
    "prev_symbol",
    "prev_name",
    "gene_group",
    "gene_group_id",
    "date_approved_reserved",
    "date_symbol_changed",
    "date_name_changed",
    "date_modified",
    "entrez_id",
    "ensembl_gene_id",
    "vega_id",
    "ucsc_id",
    "ena",
    "refseq_accession",
    "ccds_id",
    "uniprot_ids",
    "pubmed_id",
    "mgd_id",
    "rgd_id",
    "lsdb",
    "cosmic",
    "omim_id",
    "mirbase",
    "homeodb",
    "snornabase",
    "bioparadigms_slc",
    "orphanet",
    "pseudogene.org",
    "horde_id",
    "merops",
    "imgt",
    "iuphar",
    "kznf_gene_catalog",
    "mamit-trnadb",
    "cd",
    "lncrnadb",
    "enzyme_id",
    "intermediate_filament_db",
    "rna_central_id",
    "lncipedia",
    "gtrnadb",
    "agr",
    "mane_select",
    "gencc",
]
FILLED = ("hgnc_id", "symbol", "name", "status", "alias_symbol", "prev_symbol", "entrez_id", "ensembl_gene_id")


def complete_set(folder: Path, *rows: tuple[str, ...]) -> Path:
    """A file in the form of HGNC's; ``rows`` fill some of its columns."""
    path = folder / "hgnc_complete_set.txt"
    filled = [dict(zip(FILLED, row, strict=True)) for row in rows]
    lines = [HGNC_COLUMNS, *([row.get(column, "") for column in HGNC_COLUMNS] for row in filled)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_the_committees_complete_set_gives_names_ids_and_previous_symbols(tmp_path: Path) -> None:
    path = complete_set(
        tmp_path,
        ("HGNC:20", "AARS1", "alanyl-tRNA synthetase 1", "Approved", "CMT2N|AlaRS", "AARS", "16", "ENSG00000090861"),
        # Renamed after the gene table was made, found by its id; two previous symbols, quoted as the file has them.
        ("HGNC:1773", "CDK4NEW", '"kinase, new"', "Approved", "", '"CDK4|PSK-J3"', "1019", ""),
        # COX-2 of the pharmacologists, if it had ever been official.
        ("HGNC:9605", "PTGS2", "prostaglandin", "Approved", "", "COX2", "", "ENSG00000073756"),
        ("HGNC:99999", "NOSUCH1", "of no table", "Approved", "", "NOSUCH", "999999999", ""),
    )
    sources = bundled_sources(tmp_path)
    sources.explicit = {"hgnc": path}
    store = ArtifactStore(tmp_path / "artifacts")
    manifest = build(store, sources, progress=silent)
    resolver, _ = open_genes(store)
    expected = {"HGNC:20": "AARS1", "hgnc_1773": "CDK4NEW", "CDK4": "CDK4NEW", "PSK-J3": "CDK4NEW", "COX2": "PTGS2"}
    assert {name: resolver.resolve(name) for name in expected} == expected
    assert isinstance(resolver.resolve("NOSUCH1"), NotApplicable)
    assert resolver.resolve("GARS") == "GARS1", "what ships still decides what this file does not tell"
    assert manifest.counts["genes_with_hgnc_id"] == 3
    assert "HGNC (HGNC:20)" in resolver.ids
    assert [(record.name, record.kind) for record in manifest.sources] == [
        ("genes", "bundled"),
        ("hgnc", "explicit"),
        ("hgnc", "bundled"),
    ]


def test_a_previous_symbol_of_two_genes_is_nobodys(tmp_path: Path) -> None:
    path = complete_set(
        tmp_path,
        ("HGNC:1", "AARS1", "", "Approved", "", "OLDNAME", "16", ""),
        ("HGNC:2", "TP53", "", "Approved", "", "OLDNAME", "7157", ""),
    )
    located = LocatedSource(GENES, BUNDLED_FOLDER / GENES.bundled, "bundled", "")
    resolver = make_resolver(read_genes(located, read_official_names(path)))
    answer = resolver.resolve("OLDNAME")
    assert isinstance(answer, NotApplicable)
    assert answer.detail == "OLDNAME may be AARS1 or TP53."


def test_another_file_in_place_of_the_complete_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hgnc.txt"
    path.write_text("id\tname\n1\tx\n")
    sources = Sources(mirror=None, cache=tmp_path, explicit={"hgnc": path}, offline=True)
    expected = r"source hgnc: .*hgnc\.txt has the columns id, name; expected those of HGNC's complete set"
    with pytest.raises(ArtifactError, match=expected):
        build(ArtifactStore(tmp_path / "artifacts"), sources, progress=silent)


def test_what_ships_of_the_complete_set_is_found_last_of_all(tmp_path: Path) -> None:
    sources = bundled_sources(tmp_path)
    assert sources.locate(HGNC).kind == "bundled"
    (tmp_path / "sources" / "hgnc").mkdir(parents=True)
    complete_set(tmp_path / "sources" / "hgnc")
    assert sources.locate(HGNC).kind == "cache"
