"""The file that ``bioverify data build --settings`` reads: per artifact, how it is made. All of it is optional.

experimental:
  splits: train              # all: also test labels, which rewards then leak
  other_lines: detail        # belief: what other lines saw fills gaps, marked so
  perturbqa: true
  screens:
    - name: my-screen        # what evidence calls it
      file: de_results.csv   # text, Parquet or .h5ad; relative to this file
      cell_line: k562
      columns: {perturbation: target, measured_gene: gene, log_fold_change: lfc, adjusted_p: padj}
      max_adjusted_p: 0.05
      min_abs_log_fold_change: 0.25
      license: CC BY 4.0
go_rouge:
  electronic: true           # false: without annotations that no curator looked at (IEA)
  terms: direct              # ancestors: with all that follow by is_a and part_of
  text: names                # definitions: names and definitions
claims:
  networks:                  # what claims about two genes may rest on, beside the terms that they share
    - name: STRING
      file: 9606.protein.links.v12.0.txt.gz   # STRING, BioGRID, IntAct, or two names a line; relative to this file
      says: interacts        # regulates: the first the second; co-expressed
      least_score: 700       # of an edge that has a score
      license: CC BY 4.0
transcriptformer_pmi:        # of the empirical matrix
  expression: tissues        # cells: also if the table of tissues is to be had
  measure: pmi               # of cells; npmi: normalised, from -1 to 1
  cells: {file: cells.h5ad, name: hepatocytes, license: CC BY 4.0}
  max_genes: 5400
esm_mlp:
  net: two_tower             # rbio: the published net
  form: own                  # strict, loose: the other lines' rows
  folds: 5
  steps: 60                  # of the two-tower net
  epochs: 30                 # of rbio's net
  seed: 20250818
  go_dimensions: 512         # 0: without vectors from GO
  knowledge: [string_links, string, coessential_modules]   # public sources beside GO, as far as they are to be had
  weights: {GO: 1}           # how much each table of vectors counts in likeness, by its name
  reduce_to: 256             # null: as many dimensions as there are
  base_rate: score           # not_applicable: no number for a gene without training rows
analogy:
  base_rate: score           # likewise
  reduce_to: 256             # null: genes are compared by as many dimensions as there are
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bioverify.artifacts.cells import OwnCells
from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.go import GoSettings
from bioverify.artifacts.own_screens.settings import OwnScreen
from bioverify.settings import read_settings
from bioverify.verifiers.analogy.settings import Settings as AnalogySettings
from bioverify.verifiers.claims.settings import Network
from bioverify.verifiers.claims.settings import Settings as ClaimsSettings
from bioverify.verifiers.esm_mlp.settings import Settings as EsmMlpSettings
from bioverify.verifiers.experimental.build import Settings as ExperimentalSettings
from bioverify.verifiers.transcriptformer_pmi.build import Settings as PmiSettings


class BuildSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    experimental: ExperimentalSettings = ExperimentalSettings()
    go_rouge: GoSettings = GoSettings()
    claims: ClaimsSettings = ClaimsSettings()
    transcriptformer_pmi: PmiSettings = PmiSettings()
    esm_mlp: EsmMlpSettings = EsmMlpSettings()
    analogy: AnalogySettings = AnalogySettings()

    def of(self, artifact: str) -> str:
        """All that the settings change in an artifact: equal texts, equal results. Files are told by their content."""
        if artifact == "go_rouge":
            return self.go_rouge.model_dump_json()
        if artifact == "esm_mlp":
            return self.esm_mlp.model_dump_json()
        if artifact == "analogy":
            return self.analogy.model_dump_json()
        if artifact == "experimental":
            files = [
                _content(file)
                for screen in self.experimental.screens
                for file in (screen.file, screen.orthologs)
                if file is not None
            ]
            return " ".join([self.experimental.model_dump_json(), *files])
        if artifact == "claims":
            networks = self.claims.networks
            return " ".join([self.claims.model_dump_json(), *(_content(one.file) for one in networks)])
        if artifact == "transcriptformer_pmi":
            cells = self.transcriptformer_pmi.cells
            return " ".join([self.transcriptformer_pmi.model_dump_json(), _content(cells.file) if cells else ""])
        return ""


def read_build_settings(path: Path | None) -> BuildSettings:
    """The defaults without a file. Raises SettingsError."""
    if path is None:
        return BuildSettings()
    settings = read_settings(BuildSettings, path)
    folder = path.parent
    experimental, pmi = settings.experimental, settings.transcriptformer_pmi
    screens = tuple(one.model_copy(update=_below(folder, one)) for one in experimental.screens)
    networks = tuple(one.model_copy(update=_below(folder, one)) for one in settings.claims.networks)
    cells = pmi.cells and pmi.cells.model_copy(update=_below(folder, pmi.cells))
    return settings.model_copy(
        update={
            "experimental": experimental.model_copy(update={"screens": screens}),
            "claims": settings.claims.model_copy(update={"networks": networks}),
            "transcriptformer_pmi": pmi.model_copy(update={"cells": cells}),
        }
    )


def _below(folder: Path, named: OwnScreen | OwnCells | Network) -> dict[str, Path]:
    """The files that the settings name, which are relative to theirs."""
    orthologs = None if isinstance(named, Network) else named.orthologs
    return {"file": folder / named.file} | ({"orthologs": folder / orthologs} if orthologs else {})


def _content(file: Path) -> str:
    return sha256_of(file) if file.is_file() else ""
