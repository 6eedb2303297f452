"""Which column of a table says what: by the settings, by the tool that wrote it, or by the names people use.

The columns are those of the tools' documentation: Seurat's FindMarkers and FindAllMarkers, DESeq2's results (also
tidy), edgeR's topTags, scanpy's rank_genes_groups_df, MAGeCK's gene summary. One file is one comparison, so what was
perturbed is said by ``perturbation:`` of the settings, except for tables with a column of groups. MAGeCK counts guides:
its ids are what was perturbed, and ``measured_gene:`` says by which reporter the cells were sorted; an enriched guide
is an increase, so the sample with more of the reporter has to be the treatment.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bioverify.artifacts.own_screens.settings import Columns, FormName, OwnScreen

INDEX = "index"
"""What settings call the column that has no name in the file."""
_NAMELESS = ("", "__index_level_0__", "Unnamed: 0", "...1")
"""As R and pandas write it, pandas in Parquet, pandas and readr when they write again what they read."""


@dataclass(frozen=True)
class Form:
    """Per meaning the columns that may say it, the first that a file has counts. ``adjusted_p``: the least of them."""

    log_fold_change: tuple[str, ...]
    adjusted_p: tuple[str, ...]
    measured_gene: tuple[str, ...] = ()
    perturbation: tuple[str, ...] = ()


FORMS: Mapping[FormName, Form] = {
    "seurat": Form(
        measured_gene=("gene", INDEX),
        perturbation=("cluster",),
        log_fold_change=("avg_log2FC", "avg_logFC", "avg_diff"),
        adjusted_p=("p_val_adj",),
    ),
    "deseq2": Form(measured_gene=("row", INDEX), log_fold_change=("log2FoldChange",), adjusted_p=("padj",)),
    "edger": Form(measured_gene=(INDEX, "genes"), log_fold_change=("logFC",), adjusted_p=("FDR",)),
    "scanpy": Form(
        measured_gene=("names",),
        perturbation=("group",),
        log_fold_change=("logfoldchanges",),
        adjusted_p=("pvals_adj",),
    ),
    "mageck": Form(perturbation=("id",), log_fold_change=("neg|lfc",), adjusted_p=("neg|fdr", "pos|fdr")),
}

_USUAL = {
    "perturbation": "perturbation pert perturbed_gene perturbed target target_gene gene_target knockdown guide_target "
    "sgrna_target grna_target guide_identity guide sgrna condition treatment contrast group cluster",
    "measured_gene": "measured_gene gene gene_symbol symbol gene_name genes names feature feature_name readout_gene "
    "response response_id gene_short_name gene_id ensembl_id index",
    "cell_line": "cell_line cellline cell line cell_type celltype",
    "log_fold_change": "log_fold_change log2foldchange logfc log2fc lfc avg_log2fc avg_logfc logfoldchanges "
    "log2_fold_change log_fc log2_fc foldchange_log2 beta",
    "adjusted_p": "adjusted_p padj p_adj p_val_adj pvals_adj adj.p.val adj_p adj_pval p.adjust p_adjusted fdr qvalue "
    "q_value qval q",
    "label": "label responds diffexpressed is_de significant sig regulation direction change de",
    "split": "split",
}


@dataclass(frozen=True)
class Taken:
    """Meaning → column of the file. Of ``adjusted_p`` there may be several, of which the least counts."""

    texts: Mapping[str, str]
    label: str
    log_fold_change: str
    adjusted_p: tuple[str, ...]

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.log_fold_change, *self.adjusted_p) if self.log_fold_change else ()

    @property
    def all(self) -> tuple[str, ...]:
        label = (self.label,) if self.label else ()
        return tuple(dict.fromkeys((*self.texts.values(), *label, *self.numbers)))


def find(header: Sequence[str], wanted: str) -> str | None:
    """The column called so, else the only one whose name differs in case and space alone."""
    if wanted in header:
        return wanted
    if wanted == INDEX:
        return next((name for name in _NAMELESS if name in header), None)
    alike = [name for name in header if name.strip().casefold() == wanted.strip().casefold()]
    return alike[0] if len(alike) == 1 else None


def take(screen: OwnScreen, header: Sequence[str]) -> Taken:
    """Raises ArtifactError that names the column that is not there, and those that are."""
    form = FORMS[screen.form] if screen.form else Form((), ())
    texts = {}
    for meaning in ("perturbation", "measured_gene", "cell_line", "split"):
        if getattr(screen, meaning, ""):
            continue
        if named := getattr(screen.columns, meaning):
            texts[meaning] = _named(screen, header, named)
        elif candidates := getattr(form, meaning, ()):
            texts[meaning] = _first(screen, header, meaning, candidates)
        elif meaning in {"perturbation", "measured_gene"}:
            told = "which gene was knocked down" if meaning == "perturbation" else "which gene was measured"
            raise screen.refuse(f"has no column that says {told}: write {meaning}: GENE, or columns.{meaning}")
    if screen.columns.label:
        return Taken(texts, _named(screen, header, screen.columns.label), "", ())
    change, adjusted = screen.columns.log_fold_change, screen.columns.adjusted_p
    return Taken(
        texts,
        "",
        _named(screen, header, change) if change else _first(screen, header, "log_fold_change", form.log_fold_change),
        (_named(screen, header, adjusted),)
        if adjusted
        else tuple(_first(screen, header, "adjusted_p", (one,)) for one in form.adjusted_p),
    )


def guess(header: Sequence[str]) -> tuple[FormName | None, Columns]:
    """The tool that wrote a table with this header, and what its columns say as far as their names tell."""
    for name, form in FORMS.items():
        if _first_of(header, form.log_fold_change) is None or any(find(header, one) is None for one in form.adjusted_p):
            continue
        has_gene, has_group = (_first_of(header, one) is not None for one in (form.measured_gene, form.perturbation))
        return name, Columns(
            perturbation="" if has_group else _usual(header, "perturbation"),
            measured_gene="" if has_gene or not form.measured_gene else _usual(header, "measured_gene"),
            cell_line=_usual(header, "cell_line"),
            split=_usual(header, "split"),
        )
    columns = {meaning: _usual(header, meaning) for meaning in _USUAL}
    if columns["log_fold_change"] and columns["adjusted_p"]:
        columns["label"] = ""
    else:
        columns |= {"log_fold_change": "", "adjusted_p": ""}
    return None, Columns(**columns)


def _usual(header: Sequence[str], meaning: str) -> str:
    usual = _USUAL[meaning].split()
    found = _first_of(header, usual)
    return INDEX if found in _NAMELESS else found or ""


def _first_of(header: Sequence[str], candidates: Sequence[str]) -> str | None:
    return next((column for one in candidates if (column := find(header, one)) is not None), None)


def _named(screen: OwnScreen, header: Sequence[str], wanted: str) -> str:
    found = find(header, wanted)
    if found is None:
        raise screen.refuse(_absent(header, wanted))
    return found


def _first(screen: OwnScreen, header: Sequence[str], meaning: str, candidates: Sequence[str]) -> str:
    found = _first_of(header, candidates)
    if found is None:
        hint = f", write {meaning}: GENE for a table of one," if meaning in {"perturbation", "measured_gene"} else ""
        raise screen.refuse(
            f"is no table of the form {screen.form}: it {_absent(header, ' or '.join(candidates))}. Look at form:"
            f"{hint} or name its columns under columns:"
        )
    return found


def _absent(header: Sequence[str], wanted: str) -> str:
    near = difflib.get_close_matches(wanted, header, 1)
    shown = ", ".join(name or '""' for name in header[:12]) + (", …" if len(header) > 12 else "")
    meant = f". Did you mean {near[0]}?" if near else ""
    return f"has no column {wanted}; there are: {shown}{meant}"
