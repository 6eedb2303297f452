"""Tables as the tools write them: one file per comparison, columns as in each tool's documentation."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.tasks import DirectionOfChange
from bioverify.core.verifier import Item
from tests.fixtures.own_screens import build_own

# FindMarkers(ident.1 = "AARS", ident.2 = "NT"), written by write.csv.
SEURAT = """"","p_val","avg_log2FC","pct.1","pct.2","p_val_adj"
"ASNS",1.2e-40,1.53,0.912,0.404,4.3e-36
"TRIB3",3.1e-22,-1.18,0.31,0.75,1.1e-17
"GAPDH",0.44,0.02,0.99,0.99,1
"""
# FindAllMarkers: one table of all guides.
SEURAT_ALL = """"","p_val","avg_log2FC","pct.1","pct.2","p_val_adj","cluster","gene"
"ASNS",1.2e-40,1.53,0.912,0.404,4.3e-36,"AARS","ASNS"
"TRIB3",3.1e-22,-1.18,0.31,0.75,1.1e-17,"AARS","TRIB3"
"GAPDH",0.44,0.02,0.99,0.99,1,"AARS","GAPDH"
"ASNS1",0.44,0.02,0.99,0.99,1,"NT","ASNS"
"""
# results(dds), written by write.csv; padj is NA for what independent filtering left out.
DESEQ2 = """"","baseMean","log2FoldChange","lfcSE","stat","pvalue","padj"
"ENSG00000070669.17",811.2,1.53,0.1,15.3,1e-52,4.1e-48
"ENSG00000101255",93.1,-1.18,0.2,-5.9,3.6e-09,1.2e-07
"ENSG00000111640.15",51234.9,0.02,0.03,0.6,0.54,0.77
"ENSG00000175197",0.4,2.1,2.9,0.7,0.46,NA
"""
# topTags(qlf, n = Inf)$table, written by write.table(sep = "\t"): the row names have no header.
EDGER = """logFC\tlogCPM\tF\tPValue\tFDR
ASNS\t1.53\t7.1\t301.1\t1e-30\t3e-26
TRIB3\t-1.18\t4.2\t88.4\t1e-12\t5e-10
GAPDH\t0.02\t11.3\t0.3\t0.58\t0.81
"""
# sc.get.rank_genes_groups_df(adata, group=None), written by to_csv; a gene that is silent in a group is at -inf.
SCANPY = """,group,names,scores,logfoldchanges,pvals,pvals_adj,pct_nz_group,pct_nz_reference
0,AARS,ASNS,31.2,1.53,1e-40,4e-36,0.91,0.4
1,AARS,TRIB3,-20.0,-inf,3e-22,1e-17,0.0,0.75
2,AARS,GAPDH,0.1,0.02,0.44,0.81,0.99,0.99
3,non-targeting,ASNS,0.1,0.02,0.44,0.81,0.99,0.99
"""
# gene_summary.txt of mageck test, of cells sorted by a reporter of ASNS.
_SIDE = ("score", "p-value", "fdr", "rank", "goodsgrna", "lfc")
MAGECK = (
    "\t".join(["id", "num", *(f"{side}|{name}" for side in ("neg", "pos") for name in _SIDE)])
    + """
AARS\t4\t0.99\t0.99\t1.0\t900\t0\t1.53\t1.2e-07\t2.6e-07\t0.0001\t1\t4\t1.53
TRIB3\t4\t1.2e-07\t2.6e-07\t0.0001\t1\t4\t-1.18\t0.99\t0.99\t1.0\t900\t0\t-1.18
GAPDH\t4\t0.4\t0.5\t0.9\t400\t1\t0.02\t0.5\t0.6\t0.95\t500\t1\t0.02
NonTargeting_Human_0001\t4\t0.4\t0.5\t0.9\t401\t1\t0.0\t0.5\t0.6\t0.95\t501\t1\t0.0
"""
)

OF_ONE = {"perturbation": "AARS"}


@pytest.mark.parametrize(
    ("form", "content", "settings", "left_out"),
    [
        ("seurat", SEURAT, OF_ONE, {}),
        ("seurat", SEURAT.replace("avg_log2FC", "avg_logFC"), OF_ONE, {}),
        ("seurat", SEURAT_ALL, {}, {"control": 1}),
        ("deseq2", DESEQ2, OF_ONE, {"no_number": 1}),
        ("deseq2", DESEQ2.replace('""', '"row"'), OF_ONE, {"no_number": 1}),
        ("edger", EDGER, OF_ONE, {}),
        ("scanpy", SCANPY, {}, {"control": 1}),
    ],
)
def test_a_table_of_a_tools_own_form_is_read_by_its_name(
    genes_store: ArtifactStore,
    tmp_path: Path,
    form: str,
    content: str,
    settings: dict[str, str],
    left_out: dict[str, int],
) -> None:
    (tmp_path / "de.txt").write_text(content)
    built = build_own(genes_store, tmp_path, tmp_path / "de.txt", form=form, min_abs_log_fold_change=0.25, **settings)
    assert [built.says("AARS1", gene) for gene in ("ASNS", "TRIB3", "GAPDH")] == ["increased", "decreased", "unchanged"]
    assert built.count("rows") == 3 + sum(left_out.values())
    assert {cause: built.count(f"rows_{cause}") for cause in left_out} == left_out
    outcome = built.lookup.score([Item(DirectionOfChange("AARS", "ASNS", "k562"), answer=True)])[0]
    assert outcome.evidence[0].text == ("K562: AARS1 (asked as AARS) knocked down, ASNS measured, increased (mine)")


def test_mageck_tells_which_knockdowns_move_the_reporter(genes_store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "gene_summary.txt").write_text(MAGECK)
    built = build_own(genes_store, tmp_path, tmp_path / "gene_summary.txt", form="mageck", measured_gene="ASNS")
    knocked_down = ("AARS1", "TRIB3", "GAPDH")
    assert [built.says(gene, "ASNS") for gene in knocked_down] == ["increased", "decreased", "unchanged"]
    assert built.count("rows_control") == 1


def test_the_same_tables_as_parquet(genes_store: ArtifactStore, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"log2FoldChange": [1.53, -1.18, 0.02], "padj": [1e-9, 1e-7, 0.8]}, index=["ASNS", "TRIB3", "GAPDH"]
    )
    table.to_parquet(tmp_path / "de.parquet")
    built = build_own(genes_store, tmp_path, tmp_path / "de.parquet", form="deseq2", **OF_ONE)
    assert [built.says("AARS1", gene) for gene in table.index] == ["increased", "decreased", "unchanged"]


@pytest.mark.parametrize(
    ("form", "content", "settings", "message"),
    [
        ("deseq2", EDGER, OF_ONE, 'form deseq2: it has no column log2FoldChange; there are: "", logFC'),
        ("deseq2", DESEQ2, {}, "no column that says which gene was knocked down: write perturbation: GENE"),
        ("mageck", MAGECK, {}, "no column that says which gene was measured: write measured_gene: GENE"),
        ("seurat", SEURAT, {}, "has no column cluster; .* write perturbation: GENE for a table of one"),
    ],
)
def test_what_a_form_lacks_is_told_with_what_to_write(
    genes_store: ArtifactStore, tmp_path: Path, form: str, content: str, settings: dict[str, str], message: str
) -> None:
    (tmp_path / "de.txt").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        build_own(genes_store, tmp_path, tmp_path / "de.txt", form=form, **settings)


def test_columns_of_ones_own_replace_those_of_the_form(genes_store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "de.csv").write_text(DESEQ2.replace('""', '"gene_id"').replace("padj", "padj_IHW"))
    columns = {"measured_gene": "gene_id", "adjusted_p": "padj_IHW"}
    built = build_own(genes_store, tmp_path, tmp_path / "de.csv", form="deseq2", columns=columns, **OF_ONE)
    assert built.says("AARS1", "ASNS") == "increased"
