"""People's tables: nothing is dropped in silence, and no control and no missing value is taken for a gene."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.own_screens.settings import OwnScreen
from bioverify.artifacts.store import ArtifactStore
from tests.fixtures.own_screens import NUMBERS, build_own

Row = tuple[object, object, object, object]
"""Perturbation, measured gene, log fold change, adjusted p."""
GOOD: Row = ("AARS", "ASNS", 1.5, 1e-4)


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["target", "gene", "lfc", "padj"])


def as_csv(rows: Sequence[Row], folder: Path) -> Path:
    frame(rows).to_csv(folder / "own.csv", index=False)
    return folder / "own.csv"


def as_categorical_parquet(rows: Sequence[Row], folder: Path) -> Path:
    frame(rows).astype({"target": "category", "gene": "category"}).to_parquet(folder / "own.parquet", index=False)
    return folder / "own.parquet"


def as_h5ad(rows: Sequence[Row], folder: Path, **changes: object) -> Path:
    """Perturbations × genes, NaN for what no row says; names are categories, as anndata writes texts."""
    table = frame(rows)
    targets, genes = (list(dict.fromkeys(table[name].where(table[name].notna(), None))) for name in ("target", "gene"))
    layers = {name: np.full((len(targets), len(genes)), np.nan) for name in ("lfc", "padj")}
    for target, gene, lfc, padj in rows:
        at = targets.index(target), genes.index(gene)
        layers["lfc"][at], layers["padj"][at] = lfc, padj
    obs = pd.DataFrame({"target": pd.Categorical(targets)}, index=[f"p{n}" for n in range(len(targets))])
    var = pd.DataFrame({"gene": pd.Categorical(genes)}, index=[f"g{n}" for n in range(len(genes))])
    anndata.AnnData(obs=obs, var=var, layers=layers, **changes).write_h5ad(folder / "own.h5ad")
    return folder / "own.h5ad"


WRITERS = [as_csv, as_categorical_parquet, as_h5ad]


# D1: missing values and controls


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "name",
    [
        "ctrl",
        "CTRL",
        "NT",
        "NTC_12",
        "non-targeting",
        "sgNT-2",
        "neg_ctrl",
        "safe_7",
        "scramble",
        "DMSO",
        "mock",
        "AAVS1",
        "eGFP",
        "mCherry",
        "NegCtrl0",
        "shLuc",
        "ONE_INTERGENIC_SITE_3",
        "unperturbed",
    ],
)
def test_a_control_is_no_gene_and_is_counted(
    genes_store: ArtifactStore, tmp_path: Path, write: Callable[[Sequence[Row], Path], Path], name: str
) -> None:
    built = build_own(genes_store, tmp_path, write([GOOD, (name, "TRIB3", -1.5, 1e-4)], tmp_path))
    assert built.count("rows_control") == (2 if write is as_h5ad else 1)
    assert f"{name} (" in built.told
    assert built.says("CTRL", "TRIB3") == "pair_not_measured"
    assert built.says("AARS1", "ASNS") == "increased"


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("missing", [None, "NA", "nan", "na", "NaN", "None", "#N/A", "", "all", "unassigned"])
@pytest.mark.parametrize("place", ["perturbation", "measured gene"])
def test_a_missing_name_is_no_gene_in_any_format(
    genes_store: ArtifactStore,
    tmp_path: Path,
    write: Callable[[Sequence[Row], Path], Path],
    missing: str | None,
    place: str,
) -> None:
    row: Row = (missing, "ASNS", -1.5, 1e-4) if place == "perturbation" else ("AARS", missing, -1.5, 1e-4)
    built = build_own(genes_store, tmp_path, write([GOOD, row], tmp_path))
    assert built.count("rows_missing") == 1
    assert "without a gene's name 1 row" in built.told
    for alias in ("XK", "SCN11A", "BCR"):
        assert built.says(alias, "ASNS") == built.says("AARS1", alias) == "pair_not_measured"


@pytest.mark.parametrize("name", ["AARS+ctrl", "ctrl+AARS", "AARS_NegCtrl0", "AARS|NT"])
def test_a_gene_beside_a_control_is_the_gene(genes_store: ArtifactStore, tmp_path: Path, name: str) -> None:
    built = build_own(genes_store, tmp_path, as_csv([(name, "ASNS", 1.5, 1e-4)], tmp_path))
    assert built.says("AARS1", "ASNS") == "increased"


def test_words_that_are_genes_in_their_own_case_stay_genes(genes_store: ArtifactStore, tmp_path: Path) -> None:
    rows = [("REST", "ASNS", 1.5, 1e-4), ("rest", "ASNS", -1.5, 1e-4), ("WT1", "CTRL", 1.0, 1e-4)]
    built = build_own(genes_store, tmp_path, as_csv(rows, tmp_path))
    assert built.says("REST", "ASNS") == "increased"
    assert built.says("WT1", "CTRL") == "increased"
    assert built.count("rows_missing") == 1


def test_controls_of_ones_own_are_named_in_the_settings(genes_store: ArtifactStore, tmp_path: Path) -> None:
    file = as_csv([GOOD, ("OR4F5", "ASNS", 1.0, 1e-4), ("TRAC", "ASNS", 1.0, 1e-4)], tmp_path)
    built = build_own(genes_store, tmp_path, file, controls=["OR4F5"])
    assert built.says("OR4F5", "ASNS") == "pair_not_measured"
    assert built.says("TRAC", "ASNS") == "increased"
    assert "controls 1 row, 1 name: OR4F5 (1)" in built.told


@pytest.mark.parametrize("missing", [None, "nan", "NA", "unknown"])
def test_a_missing_cell_line_is_no_line(genes_store: ArtifactStore, tmp_path: Path, missing: str | None) -> None:
    table = frame([GOOD, ("AARS", "TRIB3", 1.0, 1e-4)]).assign(line=["K-562", missing])
    table.to_csv(tmp_path / "own.csv", index=False)
    columns = {**NUMBERS, "cell_line": "line"}
    built = build_own(genes_store, tmp_path, tmp_path / "own.csv", columns=columns, cell_line="")
    assert built.count("rows_no_line") == 1
    assert built.says("AARS1", "ASNS") == "increased"
    assert built.says("AARS1", "ASNS", "nan") == "unknown_cell_line"


# D2: rows that vanish


@pytest.mark.parametrize("write", WRITERS)
def test_an_infinite_fold_change_is_a_response_with_a_direction(
    genes_store: ArtifactStore, tmp_path: Path, write: Callable[[Sequence[Row], Path], Path]
) -> None:
    rows = [GOOD, ("AARS", "TRIB3", np.inf, 0.0), ("AARS", "GAPDH", -np.inf, 1e-9), ("AARS", "DDIT3", np.inf, 0.9)]
    built = build_own(genes_store, tmp_path, write(rows, tmp_path))
    assert [built.says("AARS1", gene) for gene in ("TRIB3", "GAPDH", "DDIT3")] == [
        "increased",
        "decreased",
        "unchanged",
    ]


def test_guides_that_disagree_are_kept_with_their_numbers_and_not_voted_on(
    genes_store: ArtifactStore, tmp_path: Path
) -> None:
    rows = [("AARS_1", "ASNS", 1.5, 1e-4), ("AARS_2", "ASNS", 1.2, 1e-3), ("AARS_3", "ASNS", 0.1, 0.8)]
    rows += [("sgAARS_1", "TRIB3", 1.0, 1e-4), ("sgAARS_2", "TRIB3", -1.0, 1e-4)]
    built = build_own(genes_store, tmp_path, as_csv(rows, tmp_path))
    assert built.says("AARS1", "ASNS") == "rows_contradict"
    assert built.says("AARS1", "TRIB3") == "changed"
    assert built.count("contradicting_pairs") == 2
    assert "2 pairs with contradicting rows" in built.told
    from bioverify.core.tasks import DifferentialExpression, DirectionOfChange
    from bioverify.core.verifier import Item

    change, way = built.lookup.score(
        [
            Item(DifferentialExpression("AARS", "ASNS", "k562"), answer=True),
            Item(DirectionOfChange("AARS", "TRIB3", "k562"), answer=True),
        ]
    )
    assert "rows contradict (2 changed, 1 not) (mine)" in change.detail
    assert "rows contradict (1 increased, 1 decreased) (mine)" in way.detail


@pytest.mark.parametrize(
    "name",
    [
        "16_AARS_P1_ENSG00000090861",
        "sgAARS_2",
        "sgAARS",
        "AARS vs control",
        "AARS_vs_NT",
        "'AARS",
        "AARS\u200b",
        " AARS",
        "AARS_+_70323216.23-P1P2",
        "AARS-2",
        "AARS_KD",
        "ENSG00000090861.17",
        "shAARS.1",
        "AARS:ENSG00000090861",
    ],
)
def test_a_gene_inside_a_name_is_read(genes_store: ArtifactStore, tmp_path: Path, name: str) -> None:
    built = build_own(genes_store, tmp_path, as_csv([(name, "ASNS", 1.5, 1e-4)], tmp_path))
    assert built.says("AARS1", "ASNS") == "increased"


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("1-Mar", "MARCHF1 or MTARC1?"),
        ("2-Sep", "SEPTIN2"),
        ("Mar-01", "MARCHF1 or MTARC1?"),
        ("2024-03-01 00:00:00", "MARCHF1 or MTARC1?"),
        ("1. Mrz", "MARCHF1 or MTARC1?"),
    ],
)
def test_a_date_made_by_a_spreadsheet_is_named_with_its_candidates(
    genes_store: ArtifactStore, tmp_path: Path, name: str, candidates: str
) -> None:
    built = build_own(genes_store, tmp_path, as_csv([GOOD, ("AARS", name, 1.0, 1e-4)], tmp_path))
    assert "dates instead of genes 1 row" in built.told
    assert f"{name} (1: {candidates}" in built.told


def test_an_ambiguous_name_is_decided_by_the_column_that_holds_the_other_gene(
    genes_store: ArtifactStore, tmp_path: Path
) -> None:
    rows = [("AARS", "COX2", 1.5, 1e-4), ("AARS", "PTGS2", 0.1, 0.9)]
    built = build_own(genes_store, tmp_path, as_csv(rows, tmp_path))
    assert [built.says("AARS1", gene) for gene in ("MT-CO2", "PTGS2")] == ["increased", "unchanged"]


def test_several_genes_are_no_knockdown_of_one(genes_store: ArtifactStore, tmp_path: Path) -> None:
    rows = [GOOD, ("AARS+TRIB3", "ASNS", 1.0, 1e-4), ("AHR_KLF1", "ASNS", 1.0, 1e-4)]
    built = build_own(genes_store, tmp_path, as_csv(rows, tmp_path))
    assert built.count("rows_several") == 2
    assert built.says("TRIB3", "ASNS") == "pair_not_measured"


@pytest.mark.parametrize("make_unique", [False, True])
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_names_of_an_h5ad_file_are_one_gene(
    genes_store: ArtifactStore, tmp_path: Path, make_unique: bool
) -> None:
    layers = {"lfc": np.array([[1.0, 1.2, 1.0]]), "padj": np.array([[1e-3, 1e-3, 0.9]])}
    cells = anndata.AnnData(
        obs=pd.DataFrame(index=["AARS"]), var=pd.DataFrame(index=["TRIB3", "TRIB3", "ASNS"]), layers=layers
    )
    if make_unique:
        cells.var_names_make_unique()
    cells.write_h5ad(tmp_path / "own.h5ad")
    columns = {"perturbation": "index", "measured_gene": "index", "log_fold_change": "lfc", "adjusted_p": "padj"}
    built = build_own(genes_store, tmp_path, tmp_path / "own.h5ad", columns=columns)
    assert [built.says("AARS1", gene) for gene in ("TRIB3", "ASNS")] == ["increased", "unchanged"]
    assert built.count("rows_unknown") == 0


@pytest.mark.parametrize("word", ["training", "TRAIN", "Train set"])
def test_a_training_row_is_one_however_it_is_written_and_others_are_counted(
    genes_store: ArtifactStore, tmp_path: Path, word: str
) -> None:
    table = frame([GOOD, ("AARS", "TRIB3", 1.0, 1e-4)]).assign(split=[word, "validation"])
    table.to_csv(tmp_path / "own.csv", index=False)
    built = build_own(genes_store, tmp_path, tmp_path / "own.csv", columns={**NUMBERS, "split": "split"})
    assert built.says("AARS1", "ASNS") == "increased"
    assert "held out 1 row, 1 name: validation (1)" in built.told


def test_the_build_tells_and_keeps_what_was_left_out_with_the_most_frequent_names(
    genes_store: ArtifactStore, tmp_path: Path
) -> None:
    rows = [GOOD, *[("FOOBAR", "ASNS", 1.0, 0.1)] * 4, ("BAZ99", "ASNS", 1.0, 0.1), ("NT", "ASNS", 1.0, 0.1)]
    rows += [("COX2", "ASNS", 1.0, 0.1), ("AARS", "TRIB3", None, None)]
    built = build_own(genes_store, tmp_path, as_csv(rows, tmp_path))
    assert "9 rows read, 1 used" in built.told
    assert "unknown names 5 rows, 2 names: FOOBAR (4), BAZ99 (1)" in built.told
    assert "COX2 (1: COX2 may be MT-CO2 or PTGS2)" in built.told
    assert "without a number 1 row" in built.told
    assert {
        cause: built.count(cause) for cause in ("rows", "rows_used", "rows_unknown", "rows_ambiguous", "rows_control")
    } == {"rows": 9, "rows_used": 1, "rows_unknown": 5, "rows_ambiguous": 1, "rows_control": 1}
    assert f"experimental: mine: {built.told}" in built.said
    assert any(one.startswith("WARNING: screen mine: only 14% of the rows") for one in built.said)


def test_a_screen_of_which_no_pair_is_left_fails_and_says_where_its_rows_went(
    genes_store: ArtifactStore, tmp_path: Path
) -> None:
    file = as_csv([("ctrl", "ASNS", 1.5, 1e-4), ("AARS", "FOOBAR", 1.0, 0.1)], tmp_path)
    with pytest.raises(
        ArtifactError, match=r"screen mine: no pair is left\. 2 rows read, 0 used; controls 1 row, 1 name: ctrl"
    ):
        build_own(genes_store, tmp_path, file)


# D4: numbers of the wrong kind


@pytest.mark.parametrize("write", WRITERS)
def test_an_adjusted_p_outside_0_to_1_is_refused_with_its_range(
    genes_store: ArtifactStore, tmp_path: Path, write: Callable[[Sequence[Row], Path], Path]
) -> None:
    file = write([("AARS", "ASNS", 1.5, -1.0), ("AARS", "TRIB3", 1.0, 30.5), ("AARS", "GAPDH", 1.0, 0.5)], tmp_path)
    with pytest.raises(
        ArtifactError, match=r"column padj: 2 of 3 numbers are no adjusted p-values.*\(from -1 to 30\.5\)"
    ):
        build_own(genes_store, tmp_path, file)


def test_sparse_p_values_are_refused_and_sparse_fold_changes_are_not(
    genes_store: ArtifactStore, tmp_path: Path
) -> None:
    index = pd.DataFrame(index=["AARS"]), pd.DataFrame(index=["ASNS", "TRIB3"])
    change, p = np.array([[1.0, 0.0]]), np.array([[1e-3, 0.5]])
    columns = {"perturbation": "index", "measured_gene": "index", "log_fold_change": "lfc", "adjusted_p": "padj"}
    for name, layers in {
        "good": {"lfc": scipy.sparse.csr_matrix(change), "padj": p},
        "by_columns": {"lfc": scipy.sparse.csc_matrix(change), "padj": p},
    }.items():
        (tmp_path / name).mkdir()
        anndata.AnnData(obs=index[0], var=index[1], layers=layers).write_h5ad(tmp_path / f"{name}.h5ad")
        built = build_own(genes_store, tmp_path / name, tmp_path / f"{name}.h5ad", columns=columns)
        assert [built.says("AARS1", gene) for gene in ("ASNS", "TRIB3")] == ["increased", "unchanged"]
    layers = {"lfc": change, "padj": scipy.sparse.csr_matrix(p)}
    anndata.AnnData(obs=index[0], var=index[1], layers=layers).write_h5ad(tmp_path / "bad.h5ad")
    with pytest.raises(ArtifactError, match=r"p-values of padj sparse.*would read as p = 0"):
        build_own(genes_store, tmp_path, tmp_path / "bad.h5ad", columns=columns)


def test_fold_changes_without_a_sign_are_told(genes_store: ArtifactStore, tmp_path: Path) -> None:
    genes = [f"ZNF{number}" for number in range(10, 80)]
    built = build_own(genes_store, tmp_path, as_csv([("AARS", gene, 1.1, 0.5) for gene in genes], tmp_path))
    assert any("no number of lfc is negative" in one for one in built.said)


# D5: species and kind of perturbation


def test_a_mouse_screen_is_refused_unless_orthologs_are_given(genes_store: ArtifactStore, tmp_path: Path) -> None:
    file = as_csv([("Trp53", "Ear2", 1.5, 1e-4), ("Trp53", "Cdkn1a", -1.5, 1e-4)], tmp_path)
    with pytest.raises(ArtifactError, match=r"as the mouse's are written.*Write species: mouse and orthologs"):
        build_own(genes_store, tmp_path, file)
    (tmp_path / "orthologs.tsv").write_text("mouse\thuman\nTrp53\tTP53\nCdkn1a\tCDKN1A\n")
    built = build_own(genes_store, tmp_path, file, species="mouse", orthologs=tmp_path / "orthologs.tsv")
    assert built.says("TP53", "CDKN1A") == "decreased"
    assert built.says("TP53", "NR2F6") == "pair_not_measured"
    assert "unknown names 1 row, 1 name: Ear2 (1: no ortholog)" in built.told


@pytest.mark.parametrize("name", ["ENSMUSG00000059552", "mm10___Trp53", "Ear2", "Trp53"])
def test_a_mouse_gene_among_human_ones_is_no_human_gene(genes_store: ArtifactStore, tmp_path: Path, name: str) -> None:
    rows = [GOOD, ("AARS", "TRIB3", 1.0, 0.5), ("AARS", "DDIT3", 1.0, 0.5), ("AARS", name, 1.0, 1e-4)]
    built = build_own(genes_store, tmp_path, as_csv(rows, tmp_path))
    assert built.count("rows_unknown") == 1
    assert "mouse gene)" in built.told


def test_only_knockdowns_answer_questions_about_knockdowns(genes_store: ArtifactStore, tmp_path: Path) -> None:
    from bioverify.core.tasks import DifferentialExpression
    from bioverify.core.verifier import Item
    from bioverify.verifiers.experimental.build import Settings, build
    from bioverify.verifiers.experimental.verifier import open_verifier
    from tests.fixtures.artifacts import bundled_sources, silent

    with pytest.raises(ArtifactError, match=r"no screen of knockdowns \(mine: CRISPRa\)"):
        build_own(genes_store, tmp_path, as_csv([GOOD], tmp_path), kind="CRISPRa")
    own = {"license": "ours", "cell_line": "k562", "columns": NUMBERS}
    frame([("AARS", "TRIB3", 1.0, 1e-4)]).to_csv(tmp_path / "kd.csv", index=False)
    screens = [
        {**own, "name": "activated", "file": tmp_path / "own.csv", "kind": "CRISPRa"},
        {**own, "name": "mine", "file": tmp_path / "kd.csv"},
    ]
    store = ArtifactStore(tmp_path / "artifacts")
    settings = Settings.model_validate({"perturbqa": False, "screens": screens})
    manifest = build(store, bundled_sources(tmp_path), progress=silent, settings=settings)
    assert manifest.parameters["kinds"] == {"activated": "CRISPRa", "mine": "knockdown"}
    lookup = open_verifier(store)
    item, expected = lookup.canary()
    assert lookup.score([item]) == [expected]
    refused = lookup.score([Item(DifferentialExpression("AARS", "ASNS", "k562"), answer=True)])[0]
    assert refused.reason == "not_a_knockdown"
    assert refused.detail == "K562: ASNS was measured under CRISPRa of AARS, not a knockdown (activated)."


@pytest.mark.parametrize("write", [as_csv, as_h5ad])
def test_a_table_that_says_another_kind_of_perturbation_is_refused(
    genes_store: ArtifactStore, tmp_path: Path, write: Callable[[Sequence[Row], Path], Path]
) -> None:
    file = write([GOOD], tmp_path)
    if write is as_csv:
        pd.read_csv(file).assign(perturbation_type="CRISPRa").to_csv(file, index=False)
    else:
        cells = anndata.read_h5ad(file)
        cells.obs["perturbation_type"] = "CRISPRa"
        cells.write_h5ad(file)
    with pytest.raises(ArtifactError, match=r'says "CRISPRa" in .*perturbation_type.*Write kind: CRISPRa'):
        build_own(genes_store, tmp_path, file)


# D7 and D8: ordinary tables


def text(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


LINES = "target,gene,lfc,padj\nAARS,ASNS,1.5,0.0001\nAARS,TRIB3,-2.25,0.001\nAARS,GAPDH,0.046,0.9\n"
TABBED = LINES.replace(",", "\t")
SEMICOLONS = "target;gene;lfc;padj\nAARS;ASNS;1,5;0,0001\nAARS;TRIB3;-2,25;0,001\nAARS;GAPDH;0,046;0,9\n"
ORDINARY: Mapping[str, tuple[str, str | bytes]] = {
    "plain": ("own.csv", LINES),
    "tabs in .txt": ("own.txt", TABBED),
    ".TSV": ("own.TSV", TABBED),
    "tabs in .csv": ("own.csv", TABBED),
    "no ending": ("own", TABBED),
    "semicolons and decimal commas": ("own.csv", SEMICOLONS),
    "tabs and decimal commas": ("own.tsv", SEMICOLONS.replace(";", "\t")),
    "bars": ("own.txt", LINES.replace(",", "|")),
    "spaces": ("own.txt", LINES.replace(",", " ")),
    "Excel's sep=": ("own.csv", "sep=;\n" + SEMICOLONS),
    "comments": ("own.csv", "# DESeq2 1.40\n# made on a Tuesday, at noon\n" + LINES),
    "header in a comment": ("own.tsv", "## about\n#" + TABBED),
    "a comment inside": ("own.csv", LINES + "# end of part one\nAARS,DDIT3,1.0,0.5\n"),
    "gzip": ("own.csv.gz", gzip.compress(LINES.encode())),
    "gzip without .gz": ("own.csv", gzip.compress(LINES.encode())),
    "byte order mark": ("own.csv", b"\xef\xbb\xbf" + LINES.encode()),
    "UTF-16, Excel's Unicode text": ("own.txt", TABBED.encode("utf-16")),
    "UTF-16 without a mark": ("own.txt", TABBED.encode("utf-16-le")),
    "Latin-1": ("own.csv", ("# für später\n" + LINES).encode("latin-1")),
    "Windows lines": ("own.csv", LINES.replace("\n", "\r\n")),
    "old Mac lines": ("own.csv", LINES.replace("\n", "\r")),
    "R's write.table": (
        "own.txt",
        '"target" "gene" "lfc" "padj"\n'
        + "".join(f'"{number}" {line}\n' for number, line in enumerate(LINES.replace(",", " ").splitlines()[1:], 1)),
    ),
    "R's write.csv": (
        "own.csv",
        '"","target","gene","lfc","padj"\n'
        + "".join(f'"{number}",{line}\n' for number, line in enumerate(LINES.splitlines()[1:], 1)),
    ),
    "quoted": (
        "own.csv",
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in LINES.splitlines()) + "\n",
    ),
    "other case": ("own.csv", LINES.replace("target,gene,lfc", "Target,Gene, LFC ")),
    "trailing delimiters": ("own.csv", LINES.replace("\n", ",\n")),
    "blank lines": ("own.csv", "\n" + LINES.replace("\n", "\n\n")),
    "unicode minus": ("own.csv", LINES.replace("-2.25", "−2.25")),
    "a bound": ("own.csv", LINES.replace("0.0001", "<2e-16").replace("0.001", "< 2.2e-16")),
    "thousands": ("own.csv", LINES.replace(",1.5,", ',"1,046",').replace(",-2.25,", ',"-1,002.25",')),
    "bzip2": ("own.csv.bz2", __import__("bz2").compress(LINES.encode())),
    "xz": ("own.csv.xz", __import__("lzma").compress(LINES.encode())),
}


@pytest.mark.parametrize("form", ORDINARY)
def test_an_ordinary_table_is_read(genes_store: ArtifactStore, tmp_path: Path, form: str) -> None:
    built = build_own(genes_store, tmp_path, text(tmp_path, *ORDINARY[form]))
    genes = ("ASNS", "TRIB3", "GAPDH")
    assert [built.says("AARS1", gene) for gene in genes] == ["increased", "decreased", "unchanged"], built.told
    assert built.count("rows_used") == built.count("rows") >= 3


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "0", "0"], ["changed", "unchanged", "unchanged"]),
        (["TRUE", "FALSE", "NA"], ["changed", "unchanged", "pair_not_measured"]),
        (["up", "down", "NS"], ["increased", "decreased", "unchanged"]),
        (["UP", "DOWN", "NO"], ["increased", "decreased", "unchanged"]),
        (["1", "-1", "0"], ["increased", "decreased", "unchanged"]),
        (["1.0", "0.0", "0.0"], ["changed", "unchanged", "unchanged"]),
        (["significant", "not significant", "ns"], ["changed", "unchanged", "unchanged"]),
        (["yes", "no", "no"], ["changed", "unchanged", "unchanged"]),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_labels_are_read_as_people_write_them(
    genes_store: ArtifactStore, tmp_path: Path, labels: list[str], expected: list[str], ending: str
) -> None:
    genes = ["ASNS", "TRIB3", "GAPDH"]
    table = pd.DataFrame({"target": ["AARS"] * 3, "gene": genes, "seen": labels})
    file = tmp_path / f"own.{ending}"
    if ending == "csv":
        table.to_csv(file, index=False)
    else:
        table.to_parquet(file)
    columns = {"perturbation": "target", "measured_gene": "gene", "label": "seen"}
    built = build_own(genes_store, tmp_path, file, columns=columns)
    assert [built.says("AARS1", gene) for gene in genes] == expected


@pytest.mark.parametrize("values", [[True, False, None], [1.0, 0.0, np.nan], [1, 0, None]])
def test_labels_of_a_type_of_their_own_are_read(
    genes_store: ArtifactStore, tmp_path: Path, values: list[object]
) -> None:
    genes = ["ASNS", "TRIB3", "GAPDH"]
    pd.DataFrame({"target": ["AARS"] * 3, "gene": genes, "seen": values}).to_parquet(tmp_path / "own.parquet")
    columns = {"perturbation": "target", "measured_gene": "gene", "label": "seen"}
    built = build_own(genes_store, tmp_path, tmp_path / "own.parquet", columns=columns)
    assert [built.says("AARS1", gene) for gene in genes] == ["changed", "unchanged", "pair_not_measured"]


def test_a_number_that_may_be_a_thousand_or_one_is_asked_about(genes_store: ArtifactStore, tmp_path: Path) -> None:
    file = text(tmp_path, "own.tsv", "target\tgene\tlfc\tpadj\nAARS\tASNS\t1,046\t0\n")
    with pytest.raises(ArtifactError, match="holds 1,046 in lfc, which may be a decimal comma or not: write decimal"):
        build_own(genes_store, tmp_path, file)
    assert (
        build_own(genes_store, tmp_path, file, decimal=",", min_abs_log_fold_change=2).says("AARS", "ASNS")
        == "unchanged"
    )
    assert (
        build_own(genes_store, tmp_path, file, decimal=".", min_abs_log_fold_change=2).says("AARS", "ASNS")
        == "increased"
    )


def test_texts_that_are_no_numbers_are_counted_by_text(genes_store: ArtifactStore, tmp_path: Path) -> None:
    file = text(tmp_path, "own.csv", LINES + "AARS,DDIT3,n.t.,0.5\nAARS,ATF4,n.t.,0.5\nAARS,CHAC1,NA,0.5\n")
    built = build_own(genes_store, tmp_path, file)
    assert "without a number 3 rows, 2 names: lfc: n.t. (2), empty (1)" in built.told


def damaged_h5ad(folder: Path) -> Path:
    path = as_h5ad([GOOD], folder)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def without_x(folder: Path) -> Path:
    index = pd.DataFrame(index=["AARS"]), pd.DataFrame(index=["ASNS"])
    anndata.AnnData(obs=index[0], var=index[1]).write_h5ad(folder / "own.h5ad")
    return folder / "own.h5ad"


def workbook(folder: Path) -> Path:
    """Not written by a library, because none that writes workbooks is needed otherwise: its first bytes count."""
    import zipfile

    with zipfile.ZipFile(folder / "own.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    return folder / "own.xlsx"


REFUSED: Mapping[str, tuple[Callable[[Path], Path], dict[str, object], str]] = {
    "damaged .h5ad": (damaged_h5ad, {}, "own.h5ad cannot be read"),
    "X = None": (
        without_x,
        {"columns": {"perturbation": "index", "measured_gene": "index", "log_fold_change": "X", "adjusted_p": "p"}},
        "has no layer X; there are: none",
    ),
    "a workbook": (workbook, {}, r"is a workbook.*pandas\.read_excel\('own\.xlsx', dtype=str\).*Excel turns MARCH1"),
    "a text called .parquet": (lambda folder: text(folder, "own.parquet", LINES), {}, "is no Parquet file"),
    "a text called .h5ad": (lambda folder: text(folder, "own.h5ad", LINES), {}, "is no HDF5 file"),
    "nothing": (lambda folder: text(folder, "own.csv", ""), {}, "is empty"),
    "a header only": (lambda folder: text(folder, "own.csv", "target,gene,lfc,padj\n"), {}, "has a header and no row"),
    "comments only": (lambda folder: text(folder, "own.csv", "# a\n# b\n"), {}, "holds comments and no table"),
    "a row too long": (
        lambda folder: text(folder, "own.csv", LINES + "AARS,ASNS,1.0,0.5,extra\n"),
        {},
        'line 5 has 5 columns, the header 4: "AARS,ASNS,1.0,0.5,extra"',
    ),
    "words for numbers": (
        lambda folder: text(folder, "own.csv", "target,gene,lfc,padj\nAARS,ASNS,up,low\n"),
        {},
        "has no number in lfc",
    ),
    "cut gzip": (lambda folder: text(folder, "own.csv.gz", gzip.compress(LINES.encode())[:-12]), {}, "cannot be read"),
    "a column too few": (
        lambda folder: text(folder, "own.csv", LINES.replace("padj", "pvalue")),
        {},
        "has no column padj; there are: target, gene, lfc, pvalue",
    ),
    "two columns of one name": (
        lambda folder: text(folder, "own.csv", LINES.replace("padj", "lfc")),
        {"columns": {**NUMBERS, "adjusted_p": "lfc"}},
        "has 2 columns called lfc",
    ),
    "a label of another kind": (
        lambda folder: text(folder, "own.csv", LINES),
        {"columns": {"perturbation": "target", "measured_gene": "gene", "label": "lfc"}},
        "in column lfc holds the label",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_be_read_is_one_sentence_with_the_file_and_the_place(
    genes_store: ArtifactStore, tmp_path: Path, kind: str
) -> None:
    write, settings, message = REFUSED[kind]
    with pytest.raises(ArtifactError, match=message) as refused:
        build_own(genes_store, tmp_path, write(tmp_path), **settings)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("screen mine: ")


@pytest.mark.parametrize("index", ["written by R", "written by pandas", "Parquet", "numbers"])
def test_an_index_without_a_name_is_called_index(genes_store: ArtifactStore, tmp_path: Path, index: str) -> None:
    table = pd.DataFrame({"lfc": [1.5, -1.0], "padj": [1e-4, 1e-3]}, index=["ASNS", "TRIB3"])
    file = tmp_path / ("own.parquet" if index == "Parquet" else "own.csv")
    if index == "Parquet":
        table.to_parquet(file)
    elif index == "written by R":
        file.write_text('"","lfc","padj"\n"ASNS",1.5,1e-04\n"TRIB3",-1,0.001\n')
    elif index == "written by pandas":
        table.to_csv(file)
    else:
        table.reset_index(drop=True).to_csv(file)
    columns = {"measured_gene": "index", "log_fold_change": "lfc", "adjusted_p": "padj"}
    if index == "numbers":
        with pytest.raises(
            ArtifactError, match=r"no pair is left.*unknown names 2 rows, 2 names: 0 \(1: an id of NCBI Gene\?"
        ):
            build_own(genes_store, tmp_path, file, columns=columns, perturbation="AARS")
        return
    built = build_own(genes_store, tmp_path, file, columns=columns, perturbation="AARS")
    assert [built.says("AARS1", gene) for gene in ("ASNS", "TRIB3")] == ["increased", "decreased"]


def test_whole_numbers_as_gene_names_and_an_empty_column_are_no_traceback(
    genes_store: ArtifactStore, tmp_path: Path
) -> None:
    table = pd.DataFrame({"target": [16, 57761], "gene": ["ASNS", None], "lfc": [1.0, None], "padj": [0.1, None]})
    table.to_parquet(tmp_path / "own.parquet")
    with pytest.raises(ArtifactError, match="no pair is left"):
        build_own(genes_store, tmp_path, tmp_path / "own.parquet")
    table.assign(lfc=None).to_parquet(tmp_path / "own.parquet")
    with pytest.raises(ArtifactError, match="has no number in lfc"):
        build_own(genes_store, tmp_path, tmp_path / "own.parquet")


def test_a_file_of_old_anndata_is_read_with_its_categories(genes_store: ArtifactStore, tmp_path: Path) -> None:
    """Before 0.7: tables are compound data sets, and what the codes of a category mean is in ``uns``."""
    import h5py

    with h5py.File(tmp_path / "own.h5ad", "w") as file:
        obs = np.array([(b"a", 1), (b"b", 0), (b"c", -1)], dtype=[("index", "S8"), ("target", "i1")])
        file["obs"] = obs
        file["var"] = np.array([(b"ASNS",), (b"TRIB3",)], dtype=[("index", "S8")])
        file["uns/target_categories"] = np.array([b"TRIB3", b"AARS"])
        file["X"] = np.array([[1.0, -1.0], [2.0, 0.5], [3.0, 3.0]])
        file["layers/padj"] = np.array([[1e-3, 1e-3], [1e-3, 0.5], [0.0, 0.0]])
    columns = {"perturbation": "target", "measured_gene": "index", "log_fold_change": "X", "adjusted_p": "padj"}
    built = build_own(genes_store, tmp_path, tmp_path / "own.h5ad", columns=columns)
    assert [built.says("AARS1", gene) for gene in ("ASNS", "TRIB3")] == ["increased", "decreased"]
    assert built.says("TRIB3", "ASNS") == "increased"
    assert built.count("rows_missing") == 2


def test_a_cell_line_with_a_slash_is_a_line_like_any_other(genes_store: ArtifactStore, tmp_path: Path) -> None:
    built = build_own(genes_store, tmp_path, as_csv([GOOD], tmp_path), cell_line="MCF10A/TP53")
    assert built.says("AARS1", "ASNS", "mcf10a/tp53") == "increased"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"perturbation": "target", "measured_gene": "gene"}}, "name either the column label"),
        ({"perturbation": "AARS"}, "name either perturbation, or the column perturbation"),
        ({"species": "mouse"}, "go together"),
        ({"cell_line": ""}, "name cell_line of the whole file, or the column cell_line"),
        ({"form": "excel"}, "'seurat', 'deseq2', 'edger', 'scanpy' or 'mageck'"),
    ],
)
def test_settings_that_make_no_sense_say_what_to_name(changes: dict[str, object], message: str) -> None:
    own = {"name": "mine", "file": "x.csv", "cell_line": "k562", "columns": NUMBERS, "license": "ours"}
    OwnScreen.model_validate(own)
    with pytest.raises(ValueError, match=message):
        OwnScreen.model_validate(own | changes)


def test_nothing_that_serves_needs_the_readers() -> None:
    told = (
        "import sys, bioverify.verifiers.experimental.verifier; print([n for n in sys.modules if 'own_screens' in n])"
    )
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
