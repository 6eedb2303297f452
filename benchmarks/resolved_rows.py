"""How many rows of PerturbQA have known genes, by name of what is left: ``python -m benchmarks.resolved_rows``.

*Before*: by symbols and aliases alone. *After*: with HGNC's previous symbols, as the ``genes`` artifact has them. A
row whose two names are both unknown counts for the first. More than fifty rows lost after is an error. Needs the real
data (`BIOVERIFY_DATA_MIRROR`, or fetched).
"""

from __future__ import annotations

from collections import Counter

import typer

from bioverify.artifacts.genes import locate_official_names, make_resolver, read_genes, read_official_names
from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.sources import GENES, Sources
from bioverify.core.genes import GeneResolver
from bioverify.core.outcomes import NotApplicable

MOST_LOST = 50


def lost_rows(n_rows_of: Counter[tuple[str, str]], resolver: GeneResolver) -> Counter[NotApplicable]:
    """Why → number of rows, of pairs of names and how many rows each has."""
    lost: Counter[NotApplicable] = Counter()
    for names, n_rows in n_rows_of.items():
        reasons = [answer for name in names if isinstance(answer := resolver.resolve(name), NotApplicable)]
        if reasons:
            lost[reasons[0]] += n_rows
    return lost


def main() -> None:
    """Print what is lost before and after, by name; exit status 1 for more than fifty rows after."""
    sources = Sources.default(tell=_progress)
    screens = read_tables(sources, progress=_progress)
    if screens.simulated:
        raise typer.BadParameter("PerturbQA is not here. Run: bioverify data fetch --accept-license")
    columns = [screens.rows[name].to_pylist() for name in ("perturbation", "measured_gene")]
    n_rows_of = Counter(zip(*columns, strict=True))
    named = locate_official_names(sources)
    official = [name for one in named for name in read_official_names(one.path)]
    table = sources.locate(GENES)
    after = f"after ({', '.join(one.kind for one in named)})"
    for title, names in (("before", []), (after, official)):
        lost = lost_rows(n_rows_of, make_resolver(read_genes(table, names)))
        print(f"\n**{title}**: {n_rows_of.total() - lost.total():,} of {n_rows_of.total():,} rows resolve")
        print(f"\n| why not the other {lost.total():,} | rows |\n|---|---|")
        for reason, n_rows in lost.most_common():
            print(f"| {reason.detail} | {n_rows:,} |")
    if lost.total() > MOST_LOST:
        raise typer.Exit(1)


def _progress(said: str) -> None:
    typer.echo(said, err=True)


if __name__ == "__main__":
    typer.run(main)
