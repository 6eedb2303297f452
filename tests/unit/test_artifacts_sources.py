"""Where source files are found, and how public files are read."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest

from bioverify.artifacts import prompts, simulated
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.genes import build as build_genes
from bioverify.artifacts.genes import make_resolver, read_genes
from bioverify.artifacts.go import GoSettings, read_annotations
from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.resolver import open_genes
from bioverify.artifacts.sources import GENES, PERTURBQA, LocatedSource, Source, Sources
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import NotApplicable, Scored
from bioverify.core.tasks import CoExpression
from bioverify.core.verifier import Item
from bioverify.verifiers.transcriptformer_pmi.verifier import open_verifier as open_pmi
from tests.fixtures.artifacts import bundled_sources, data_folder, silent

BODY = b"symbol\nAARS1\n"


def make_source(url: str = "", sha256: str = "", notice: str = "") -> Source:
    return Source(
        "set/file.txt",
        ("set/file.txt", "set/file.txt.gz"),
        url,
        "CC0",
        sha256=sha256,
        bundled="file.txt",
        notice=notice,
    )


def put(folder: Path, name: str = "set/file.txt", body: bytes = BODY) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def web() -> Iterator[str]:
    """A real HTTP server that serves BODY at /file.txt and nothing else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/file.txt"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(BODY) if found else 0))
            self.end_headers()
            self.wfile.write(BODY if found else b"")

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_order_is_explicit_cache_mirror_address_bundled(tmp_path: Path, web: str) -> None:
    source = make_source(f"{web}/file.txt")
    explicit = put(tmp_path / "own")
    cached = put(tmp_path / "cache")
    put(tmp_path / "mirror")
    put(tmp_path / "bundled", "file.txt")

    def find(**named: Path) -> LocatedSource | None:
        return Sources(tmp_path / "mirror", tmp_path / "cache", named, bundled=tmp_path / "bundled").find(source)

    found = find(set=explicit.parent)
    assert found is not None
    assert (found.kind, found.path) == ("explicit", explicit)
    found = find()
    assert found is not None
    assert (found.kind, found.sha256) == ("cache", hashlib.sha256(BODY).hexdigest())
    cached.unlink()
    found = find()
    assert found is not None
    assert found.kind == "mirror"
    (tmp_path / "mirror" / "set" / "file.txt").rename(tmp_path / "mirror" / "set" / "file.txt.gz")
    found = find()
    assert found is not None
    assert found.path.name == "file.txt.gz"
    found.path.unlink()
    found = find()
    assert found is not None
    assert (found.kind, found.path.read_bytes()) == ("url", BODY)
    assert found.path == cached
    assert not list(cached.parent.glob("*.part"))
    cached.unlink()
    source = make_source(f"{web}/gone.txt")
    found = find()
    assert found is not None
    assert found.kind == "bundled"
    assert found.record.location == "bundled/file.txt"


def test_without_a_network_the_bundled_file_is_found_at_once_and_the_network_asked_only_once(tmp_path: Path) -> None:
    put(tmp_path / "bundled", "file.txt")
    told: list[str] = []
    sources = Sources(None, tmp_path / "cache", tell=told.append, bundled=tmp_path / "bundled")
    source = make_source(f"http://127.0.0.1:{closed_port()}/file.txt")
    started = time.monotonic()
    kinds = [located.kind for located in (sources.find(source), sources.find(source)) if located]
    assert kinds == ["bundled", "bundled"]
    assert time.monotonic() - started < 4.0
    assert len(told) == 1
    assert "cannot be reached" in told[0]


def test_a_download_with_a_wrong_checksum_is_not_kept(tmp_path: Path, web: str) -> None:
    sources = Sources(None, tmp_path / "cache")
    with pytest.raises(ArtifactError, match="expected 000000000000…"):
        sources.find(make_source(f"{web}/file.txt", sha256="0" * 64))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_licence_is_shown_and_the_file_downloaded_only_when_it_is_accepted(tmp_path: Path, web: str) -> None:
    source = make_source(f"{web}/file.txt", notice="Mind the licence.")
    told: list[str] = []
    refusing = Sources(None, tmp_path / "cache", tell=told.append, bundled=tmp_path)
    assert refusing.find(source) is None
    assert refusing.find(source) is None
    assert told == ["Mind the licence.", "Not downloaded: accept the licence with --accept-license"]
    told.clear()
    accepting = Sources(None, tmp_path / "cache", accept_license=True, tell=told.append)
    assert accepting.find(source) is not None
    assert told == ["Mind the licence."]


def test_a_file_in_the_mirror_is_fetched_into_the_cache_and_needs_no_acceptance(tmp_path: Path) -> None:
    put(tmp_path / "mirror")
    sources = Sources(tmp_path / "mirror", tmp_path / "cache")
    fetched = sources.fetch(make_source(notice="Mind the licence."))
    assert fetched is not None
    assert (fetched.kind, fetched.path) == ("mirror", tmp_path / "cache" / "set" / "file.txt")
    assert fetched.path.read_bytes() == BODY
    again = sources.fetch(make_source())
    assert again is not None
    assert again.kind == "cache"


def test_perturbqa_is_shown_with_its_licence_and_never_bundled() -> None:
    for source in PERTURBQA.values():
        assert "Non-Commercial" in source.notice
        assert not source.bundled


def test_a_changed_file_in_the_mirror_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "mirror")
    with pytest.raises(ArtifactError, match=r"source set/file\.txt: sha256 of .* expected 0000…"):
        Sources(tmp_path / "mirror", tmp_path / "cache", offline=True).find(make_source(sha256="0" * 64))


def test_a_source_that_is_nowhere_says_where_it_was_sought(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"source set/file\.txt: not found in cache .*, mirror \(none\)"):
        Sources(None, tmp_path / "cache", offline=True, bundled=tmp_path).locate(make_source())


def test_a_screen_of_which_a_table_is_missing_is_an_error_and_not_simulated(tmp_path: Path) -> None:
    put(tmp_path / "own", "k562-de.csv", b"pert,gene,label,split\nAARS1,ASNS,1,train\n")
    sources = Sources(
        None, tmp_path / "cache", {"perturbqa/k562-de.csv": tmp_path / "own" / "k562-de.csv"}, offline=True
    )
    with pytest.raises(ArtifactError, match=r"not found, but perturbqa/k562-de\.csv is"):
        read_tables(sources, progress=silent)


def write_screen(folder: Path, rows: list[str]) -> Sources:
    for name in PERTURBQA:
        kind = "dir" if name.endswith("-dir.csv") else "de"
        text = "\n".join(["pert,gene,label,split", *(rows if kind == "de" else [])])
        put(folder, name, f"{text}\n".encode())
    return Sources(None, folder / "cache", {"perturbqa": folder}, offline=True)


def test_a_gene_may_be_called_na_and_none_is_read_as_missing(tmp_path: Path) -> None:
    screens = read_tables(write_screen(tmp_path, ["NA,null,1,train", "NaN,NULL,0,test"]), progress=silent)
    assert set(screens.rows["perturbation"].to_pylist()) == {"NA", "NaN"}
    assert set(screens.rows["measured_gene"].to_pylist()) == {"null", "NULL"}
    assert not screens.simulated


def test_a_screen_with_other_columns_is_refused_with_its_path(tmp_path: Path) -> None:
    sources = write_screen(tmp_path, [])
    (tmp_path / "k562-de.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ArtifactError, match=r"k562-de\.csv is no table with the columns pert, gene, label, split"):
        read_tables(sources, progress=silent)


def test_ncbi_gene_info_is_read_with_its_own_columns(tmp_path: Path) -> None:
    header = (
        "#tax_id\tGeneID\tSymbol\tLocusTag\tSynonyms\tdbXrefs\tchromosome\tmap_location\tdescription\ttype_of_gene\t"
        "Symbol_from_nomenclature_authority\tFull_name\tNomenclature_status\tOther\tModification_date\tFeature_type\n"
    )
    lines = [
        "9606\t16\tAARS1\t-\tAARS|CMT2N\tHGNC:HGNC:20|Ensembl:ENSG00000090861\t16\t-\t-\tprotein-coding\tAARS1\t-\tO\t-\t-\t-\n",
        "9606\t4508\tATP6\t-\tMTATP6\tEnsembl:ENSG00000198899\tMT\t-\t-\tprotein-coding\tMT-ATP6\t-\tO\t-\t-\t-\n",
        "9606\t1\tTEC\t-\t-\t-\t1\t-\t-\tbiological-region\t-\t-\t-\t-\t-\t-\n",
    ]
    path = tmp_path / "Homo_sapiens.gene_info.gz"
    path.write_bytes(gzip.compress((header + "".join(lines)).encode()))
    resolver = make_resolver(read_genes(LocatedSource(GENES, path, "url", "")))
    assert resolver.resolve("aars") == "AARS1"
    for name in ("ENSG00000090861", "HGNC:20", "HGNC:HGNC:20", "NCBIGene:16"):
        assert resolver.resolve(name) == "AARS1", name
    for name in ("MT-ATP6", "ATP6", "MTATP6"):
        assert resolver.resolve(name) == "MT-ATP6", name
    assert isinstance(resolver.resolve("TEC"), NotApplicable)


ONTOLOGY = """format-version: 1.2
ontology: go

[Term]
id: GO:0000001
name: budding
namespace: biological_process
alt_id: GO:0000009
def: "A bud grows." [PMID:1]
is_a: GO:0000003 ! growing
relationship: part_of GO:0000004 ! dividing
relationship: regulates GO:0000005 ! waiting

[Term]
id: GO:0000002
name: binding
namespace: molecular_function
is_a: GO:0003674 ! molecular_function

[Term]
id: GO:0000003
name: growing
namespace: biological_process
is_a: GO:0008150 ! biological_process

[Term]
id: GO:0000004
name: dividing
namespace: biological_process
is_a: GO:0008150 ! biological_process

[Term]
id: GO:0000005
name: waiting
namespace: biological_process
is_a: GO:0008150 ! biological_process

[Term]
id: GO:0000006
name: gone
namespace: biological_process
is_obsolete: true

[Term]
id: GO:0003674
name: molecular_function
namespace: molecular_function

[Term]
id: GO:0008150
name: biological_process
namespace: biological_process

[Typedef]
id: part_of
name: part of

[Typedef]
id: regulates
name: regulates
"""


def annotation_row(symbol: str, qualifier: str, term: str, code: str) -> str:
    before = ["UniProtKB", "P1", symbol, qualifier, term, "PMID:1", code]
    return "\t".join([*before, "", "P", "name", "", "protein", "taxon:9606", "20240101", "UniProt", "", ""]) + "\n"


def go_sources(folder: Path, *rows: str) -> Sources:
    gaf = "!gaf-version: 2.2\n! a second header line\n" + "".join(rows)
    obo_path = put(folder, "go.obo", ONTOLOGY.encode())
    gaf_path = put(folder, "goa.gaf.gz", gzip.compress(gaf.encode()))
    return Sources(None, folder, {"go-basic.obo": obo_path, "goa_human.gaf": gaf_path}, offline=True)


TWO_GENES = GeneResolver({"AARS1": "AARS1", "ASNS": "ASNS"}, {})


def test_uniprot_ids_come_from_the_official_annotations_where_the_gene_table_has_none(tmp_path: Path) -> None:
    header = "#tax_id\tSymbol\tSynonyms\tdbXrefs\ttype_of_gene\tSymbol_from_nomenclature_authority\n"
    rows = "9606\tAARS1\tAARS\tEnsembl:ENSG00000090861\tprotein-coding\tAARS1\n"
    rows += "9606\tMT3\tGRIF\t-\tprotein-coding\t-\n9606\tMIF\tGRIF\t-\tprotein-coding\t-\n"
    sources = go_sources(tmp_path, annotation_row("AARS1", "involved_in", "GO:0000001", "IDA").replace("P1", "P49588"))
    table = put(tmp_path, "gene_info.tsv", (header + rows).encode())
    sources = replace(sources, explicit={**sources.explicit, "genes": table})
    store = ArtifactStore(tmp_path / "artifacts")
    manifest = build_genes(store, sources, progress=silent)
    assert manifest.counts["genes_with_uniprot_id"] == 1
    assert [source.name for source in manifest.sources] == ["genes", "hgnc", "goa_human.gaf"]
    resolver, _ = open_genes(store)
    for name in ("AARS1", "aars", " AARS ", "P49588", "p49588-2", "ENSG00000090861", "ENSG00000090861.17"):
        assert resolver.resolve(name) == "AARS1", name
    ambiguous = resolver.resolve("GRIF")
    assert isinstance(ambiguous, NotApplicable)
    assert (ambiguous.reason, ambiguous.detail) == ("ambiguous_gene", "GRIF may be MIF or MT3.")
    for name in ("ENSG00000000000", "P00000", "AARS1-2", "AARS1.1", ""):
        assert isinstance(resolver.resolve(name), NotApplicable), name


def test_real_genes_resolve_by_every_kind_of_name(real_store: ArtifactStore) -> None:
    resolver, _ = open_genes(real_store)
    for name in ("AARS1", "AARS", "ENSG00000090861", "ENSG00000090861.17", "P49588", "P49588-2"):
        assert resolver.resolve(name) == "AARS1", name


def test_annotations_that_deny_or_know_nothing_are_dropped(tmp_path: Path) -> None:
    sources = go_sources(
        tmp_path,
        annotation_row("AARS1", "involved_in", "GO:0000009", "IDA"),
        annotation_row("AARS1", "NOT|enables", "GO:0000002", "IDA"),
        annotation_row("ASNS", "enables", "GO:0000002", "ND"),
    )
    annotations = read_annotations(sources, TWO_GENES, progress=silent)
    assert [term.name for term in annotations.terms] == ["budding"]
    assert annotations.genes == {"AARS1": [0]}
    assert annotations.counts["annotations_not"] == annotations.counts["annotations_nd"] == 1
    assert annotations.counts["ontology_terms"] == 7


def test_what_no_curator_looked_at_can_be_left_out(tmp_path: Path) -> None:
    sources = go_sources(
        tmp_path,
        annotation_row("AARS1", "involved_in", "GO:0000001", "IDA"),
        annotation_row("ASNS", "enables", "GO:0000002", "IEA"),
    )
    assert set(read_annotations(sources, TWO_GENES, progress=silent).genes) == {"AARS1", "ASNS"}
    curated = read_annotations(sources, TWO_GENES, progress=silent, settings=GoSettings(electronic=False))
    assert set(curated.genes) == {"AARS1"}
    assert curated.counts["annotations"] == 2
    assert curated.counts["annotations_iea"] == 1


def test_ancestors_are_over_is_a_and_part_of_without_the_roots(tmp_path: Path) -> None:
    sources = go_sources(tmp_path, annotation_row("AARS1", "involved_in", "GO:0000009", "IDA"))
    annotations = read_annotations(sources, TWO_GENES, progress=silent, settings=GoSettings(terms="ancestors"))
    assert [term.name for term in annotations.terms] == ["budding", "dividing", "growing"]
    assert annotations.terms[0].definition == "A bud grows."


@pytest.mark.parametrize("settings", [{"electronic": False}, {"terms": "ancestors"}, {"text": "definitions"}])
def test_the_bundled_annotations_say_what_they_leave_out(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match=r"leaves out\. Run: bioverify data fetch go-basic\.obo goa_human\.gaf"):
        read_annotations(
            bundled_sources(tmp_path), TWO_GENES, progress=silent, settings=GoSettings.model_validate(settings)
        )


def test_the_real_ontology_has_its_published_size_in_the_form_that_the_consortium_offers(
    tmp_path: Path, real_store: ArtifactStore
) -> None:
    mirror = data_folder() / "go"
    put(tmp_path, "go/go-basic.obo", gzip.decompress((mirror / "go-basic.obo.gz").read_bytes()))
    put(tmp_path, "go/goa_human.gaf.gz", (mirror / "goa_human.gaf.gz").read_bytes())
    resolver, _ = open_genes(real_store)
    counts = read_annotations(Sources(tmp_path, tmp_path, offline=True), resolver, progress=silent).counts
    assert (counts["ontology_terms"], counts["annotations"]) == (43_558, 348_116)


def test_the_simulated_screen_looks_like_a_screen_and_is_always_the_same(tmp_path: Path) -> None:
    rows = read_tables(bundled_sources(tmp_path), progress=silent).rows
    assert rows.equals(read_tables(bundled_sources(tmp_path), progress=silent).rows)
    table = rows.to_pydict()
    de = [
        (line, perturbation, gene, label, split)
        for line, kind, perturbation, gene, label, split in zip(*table.values(), strict=True)
        if kind == "differential_expression"
    ]
    assert 0.12 < sum(label for *_, label, _ in de) / len(de) < 0.16
    by_pair: dict[tuple[str, str], list[int]] = {}
    for _, perturbation, gene, label, _ in de:
        by_pair.setdefault((perturbation, gene), []).append(label)
    shared = [labels for labels in by_pair.values() if len(labels) >= 2]
    assert 0.92 < sum(labels[0] == labels[1] for labels in shared) / len(shared) < 0.98
    for line in ("k562", "rpe1", "hepg2", "jurkat"):
        of_split = {
            split: {perturbation for own, perturbation, _, _, its in de if own == line and its == split}
            for split in ("train", "test")
        }
        assert of_split["train"]
        assert of_split["test"]
        assert not of_split["train"] & of_split["test"]


def test_the_simulated_screen_holds_the_pairs_of_our_examples_with_labels_drawn_like_all_others(tmp_path: Path) -> None:
    rows = read_tables(bundled_sources(tmp_path), progress=silent).rows.to_pylist()
    de = [row for row in rows if row["task_kind"] == "differential_expression"]
    shown = [
        row
        for row in de
        if row["perturbation"] in simulated.EXAMPLE_PERTURBATIONS and row["measured_gene"] in simulated.EXAMPLE_GENES
    ]
    n_pairs = len(simulated.EXAMPLE_PERTURBATIONS) * len(simulated.EXAMPLE_GENES)
    assert len(shown) == 4 * n_pairs
    assert {row["split"] for row in shown} == {"train"}
    # Nobody wrote these labels: seed and formula did, and an experiment sees AARS1 and TRIB3 otherwise.
    label_of = {(row["perturbation"], row["measured_gene"]): row["label"] for row in shown if row["line"] == "k562"}
    assert label_of["AARS1", "TRIB3"] == 0
    assert label_of["EIF2B4", "DDIT3"] == 1


def test_prompts_hold_all_kinds_and_splits_and_say_what_is_simulated(bundled_store: ArtifactStore) -> None:
    table, artifact = prompts.open_prompts(bundled_store)
    assert artifact.identity.simulated
    is_co_expression = pc.equal(table["task_kind"], "co_expression")
    responses, co_expression = table.filter(pc.invert(is_co_expression)), table.filter(is_co_expression)
    assert responses["simulated"].unique().to_pylist() == [True]
    assert set(responses["task_kind"].unique().to_pylist()) == {"differential_expression", "direction_of_change"}
    assert set(responses["split"].unique().to_pylist()) == {"train", "test"}
    assert co_expression["simulated"].unique().to_pylist() == [False]
    assert str(table["label"].type) == "int8"


def test_co_expression_is_asked_of_the_top_and_the_bottom_of_the_matrix(bundled_store: ArtifactStore) -> None:
    table, _ = prompts.open_prompts(bundled_store)
    rows = table.filter(pc.equal(table["task_kind"], "co_expression")).to_pylist()
    verifier = open_pmi(bundled_store)
    items = [Item(CoExpression(row["perturbation"], row["measured_gene"]), answer=row["label"] == 1) for row in rows]
    values = [outcome.value for outcome in verifier.score(items) if isinstance(outcome, Scored)]
    assert len(values) == len(rows) > 100
    assert all(value >= 0.5 for value in values)
    assert sum(row["label"] for row in rows) * 2 == len(rows)


def test_every_symbol_of_perturbqa_resolves(real_store: ArtifactStore, real_sources: Sources) -> None:
    resolver, _ = open_genes(real_store)
    rows = read_tables(real_sources, progress=silent).rows
    symbols = set(rows["perturbation"].unique().to_pylist()) | set(rows["measured_gene"].unique().to_pylist())
    assert len(symbols) == 10_632
    answers = {symbol: resolver.resolve(symbol) for symbol in symbols}
    assert [answer for answer in answers.values() if isinstance(answer, NotApplicable)] == []
    assert sum(answer == symbol for symbol, answer in answers.items()) == 10_485
    assert resolver.resolve("MT-CO2") == "MT-CO2"
    assert resolver.resolve("H2AFZ") == "H2AZ1"


def test_the_real_tables_have_the_published_sizes(real_sources: Sources) -> None:
    rows = read_tables(real_sources, progress=silent).rows.select(["line", "task_kind", "split", "label"])
    counted = rows.group_by(["line", "task_kind", "split"]).aggregate([("label", "count")]).to_pylist()
    sizes = {(entry["line"], entry["split"]): entry["label_count"] for entry in counted if "diff" in entry["task_kind"]}
    assert (sizes["k562", "train"], sizes["k562", "test"]) == (134_467, 23_212)
    assert sum(sizes.values()) == 614_479


def test_annotations_of_other_species_are_left_out_and_counted(tmp_path: Path) -> None:
    mouse = annotation_row("ASNS", "involved_in", "GO:0000001", "IDA").replace("taxon:9606", "taxon:10090")
    host = annotation_row("ASNS", "involved_in", "GO:0000002", "IDA").replace("taxon:9606", "taxon:9606|taxon:1280")
    sources = go_sources(tmp_path, annotation_row("AARS1", "involved_in", "GO:0000001", "IDA"), mouse, host)
    annotations = read_annotations(sources, TWO_GENES, progress=silent)
    assert {gene: [annotations.terms[at].id for at in terms] for gene, terms in annotations.genes.items()} == {
        "AARS1": ["GO:0000001"],
        "ASNS": ["GO:0000002"],
    }
    assert annotations.counts["annotations_other_species"] == 1
    with pytest.raises(ArtifactError, match=r"no annotation of taxon:9606, the human, but taxon:10090"):
        read_annotations(go_sources(tmp_path, mouse), TWO_GENES, progress=silent)


@pytest.mark.parametrize("form", ["a comment inside", "16 columns", "15 columns", "no gzip", "a comment at the end"])
def test_annotations_of_any_gaf_form_are_read(tmp_path: Path, form: str) -> None:
    rows = [annotation_row(symbol, "involved_in", "GO:0000001", "IDA") for symbol in ("AARS1", "ASNS")]
    if form == "a comment inside":
        rows.insert(1, "!gaf-version: 2.2\n!of the second file\n")
    elif form == "a comment at the end":
        rows.append("! the end")
    elif "columns" in form:
        rows = ["\t".join(row.rstrip("\n").split("\t")[: int(form[:2])]) + "\n" for row in rows]
    sources = go_sources(tmp_path, *rows)
    if form == "no gzip":
        path = sources.explicit["goa_human.gaf"]
        path.write_bytes(gzip.decompress(path.read_bytes()))
    assert set(read_annotations(sources, TWO_GENES, progress=silent).genes) == {"AARS1", "ASNS"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 1 columns"),
        (b"a\tb\n", "has 2 columns; a GAF file has 17"),
        (annotation_row("AARS1", "", "GO:0000001", "IDA").encode() + b"a\tb\n", 'columns, the first 17: "a b"'),
        (gzip.compress(annotation_row("AARS1", "", "GO:0000001", "IDA").encode())[:-9], "cannot be read"),
    ],
    # Workers collect alike: a gzip's bytes hold the second.
    ids=["empty", "two columns", "a short line", "cut off"],
)
def test_a_file_that_is_no_gaf_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    sources = go_sources(tmp_path)
    sources.explicit["goa_human.gaf"].write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_annotations(sources, TWO_GENES, progress=silent)
