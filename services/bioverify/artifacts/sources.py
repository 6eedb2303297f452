"""Public source files: what they are called, where they officially live, and where this machine has them.

A file is looked for in this order: a path given by the person, the local cache, a mirror folder, the official address
(downloaded into the cache), and last the small set that ships with the package. Cache and mirror have the same layout,
so one can serve as the other. The first connection that fails is remembered for the run: without a network, only one
short timeout is paid.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from bioverify.artifacts.checksums import sha256_of
from bioverify.artifacts.errors import ArtifactError
from bioverify.artifacts.store import SourceKind, SourceRecord, home_folder
from bioverify.files import replacing_file

BUNDLED_FOLDER = Path(__file__).parent / "bundled"

CC_BY = "CC BY 4.0"
NCBI = "public domain (NCBI)"
CC0 = "CC0 1.0 (HGNC)"
GENENTECH = "Genentech Non-Commercial Software License 1.0"
SCANPY = "BSD-3-Clause (scanpy)"
INFERCNVPY = "BSD-3-Clause (infercnvpy)"
TISSUE_LICENSE = "CC BY-SA (Human Protein Atlas), open (GTEx)"


@dataclass(frozen=True)
class Source:
    """One public file. ``file_names``: accepted forms below a mirror or cache; the first is the downloaded one."""

    name: str
    file_names: tuple[str, ...]
    url: str
    license: str
    sha256: str = ""
    size_bytes: int = 0
    """If no checksum of the file itself is known; 0: not known either."""
    bundled: str = ""
    notice: str = ""
    """The licence in a sentence; if there is one, it has to be accepted before the file is downloaded."""


@dataclass(frozen=True)
class LocatedSource:
    """A source file on disk. ``kind`` says how it was found; "bundled" files have our own compact form."""

    source: Source
    path: Path
    kind: SourceKind
    sha256: str

    @property
    def record(self) -> SourceRecord:
        return SourceRecord(
            name=self.source.name,
            kind=self.kind,
            location=f"bundled/{self.path.name}" if self.kind == "bundled" else str(self.path),
            url=self.source.url,
            sha256=self.sha256,
            license=self.source.license,
        )


_PERTURBQA_URL = "https://raw.githubusercontent.com/genentech/PerturbQA/main/perturbqa/datasets"
_PERTURBQA_NOTICE = (
    f"PerturbQA (Genentech, Inc.) comes under the {GENENTECH}: use and modification for any purpose that is not a "
    "Commercial Use. bioverify never ships these files. Full text: https://github.com/genentech/PerturbQA"
)
_PERTURBQA_SHA256 = {
    "hepg2-de.csv": "f94045fb44dcca4af9c69bee5c87de624590061a1123d55d9ee42a9c1ca97932",
    "hepg2-dir.csv": "8c642ab6e6996887dce6c774d5fc58546970ba9216a636c7547b5039062a2cc3",
    "jurkat-de.csv": "cf993f77015bd7df9d71ce9cf1170f6c8e64a571dc6f9ba0aef411ffb103eec5",
    "jurkat-dir.csv": "8e17055a5bbf8c2751317db5284a9e793a2dc5aaccef0afbcdaf87daabc45709",
    "k562-de.csv": "e6ab095f3f970bb29f48427414904136785e8cd4945496f8d9a8fa6eab35ee67",
    "k562-dir.csv": "84a0bc9631b33b8720663ed69506a316dad0f686a51f702f277914cc722000f4",
    "rpe1-de.csv": "a66a86aac5db458e0703bccf7f2d638769400a7ccb9f2615cd9421c106b748ca",
    "rpe1-dir.csv": "25fa0b37c7e86cd73e8135b83513ea9d96c55e5a6c3f222ffbb531b91ab0fb0c",
}

_GENE_SETS_SHA256 = {
    "k562_set-de.csv": "d51faff9a337d111ff2f0858890bbf3207669925f26c0ba75164bc7217872c54",
    "k562_set-dir.csv": "3298d18708d82bd0852e9f6a91b9c5b56a000a2183375457143ccab7f218cb7f",
    "k562_set-mapping.json": "dd6368b07d81fa134cd0e9558f81f44b809015193bc2350c1367c4d9b925e066",
}


def _perturbqa(folder: str, sha256_by_file: Mapping[str, str]) -> dict[str, Source]:
    return {
        file_name: Source(
            name=f"{folder}/{file_name}",
            file_names=(f"perturbqa/{file_name}",),
            url=f"{_PERTURBQA_URL}/{file_name}",
            license=GENENTECH,
            sha256=sha256,
            notice=_PERTURBQA_NOTICE,
        )
        for file_name, sha256 in sha256_by_file.items()
    }


PERTURBQA = _perturbqa("perturbqa", _PERTURBQA_SHA256)
PERTURBQA_GENE_SETS = _perturbqa("perturbqa-sets", _GENE_SETS_SHA256)
GENES = Source(
    name="genes",
    file_names=("go/Homo_sapiens.gene_info.gz", "go/genes.tsv.gz"),
    url="https://ftp.ncbi.nlm.nih.gov/gene/DATA/GENE_INFO/Mammalia/Homo_sapiens.gene_info.gz",
    license=NCBI,
    bundled="genes.parquet",
)
HGNC = Source(
    name="hgnc",
    file_names=("hgnc/hgnc_complete_set.txt",),
    url="https://storage.googleapis.com/public-download-files/hgnc/tsv/tsv/hgnc_complete_set.txt",
    license=CC0,
    bundled="previous_symbols.tsv",
)
GO_TERMS = Source(
    name="go-basic.obo",
    file_names=("go/go-basic.obo", "go/go-basic.obo.gz"),
    url="http://current.geneontology.org/ontology/go-basic.obo",
    license=CC_BY,
    bundled="go_terms.parquet",
)
GO_ANNOTATIONS = Source(
    name="goa_human.gaf",
    file_names=("go/goa_human.gaf.gz", "go/goa_human.gaf"),
    url="http://current.geneontology.org/annotations/goa_human.gaf.gz",
    license=CC_BY,
    bundled="go_annotations.parquet",
)
TISSUES = Source(
    name="tissue_expression",
    file_names=("knowledge/tissue_expression.tpm.tsv.gz",),
    url="",
    license=TISSUE_LICENSE,
)
"""TPM per gene and tissue, of the Human Protein Atlas and of GTEx."""
GLIOMA_CELLS = Source(
    name="oligodendroglioma.h5ad",
    file_names=("cells/oligodendroglioma.h5ad",),
    url="",
    license=INFERCNVPY,
)
BLOOD_CELLS = Source(
    name="10x_pbmc68k_reduced.h5ad",
    file_names=("cells/10x_pbmc68k_reduced.h5ad",),
    url="",
    license=SCANPY,
    bundled="pbmc_detection.parquet",
)
TF_SAPIENS = Source(
    name="tf_sapiens",
    file_names=("transcriptformer/tf_sapiens.tar.gz",),
    url="https://czi-transcriptformer.s3.amazonaws.com/weights/tf_sapiens.tar.gz",
    license="MIT (TranscriptFormer)",
    size_bytes=1_819_975_447,
)
"""Weights of TranscriptFormer, and the ESM2-3B vector of each human gene; `checkpoints.unpack` opens it."""
TF_SAPIENS_SHA256 = {
    "model_weights.pt": "eff027e7393f92a32cadcbb2e13a917e24b62b71341571bf40f38ff6ec6d3021",
    "homo_sapiens_gene.h5": "676640be87ba4ba7ea7af8d9dc470a8ae8be02768989478027dec5fe61f465e2",
}
STRING_PROTEINS = Source(
    name="string",
    file_names=("string/9606.protein.info.v12.0.txt.gz",),
    url="https://stringdb-downloads.org/download/protein.info.v12.0/9606.protein.info.v12.0.txt.gz",
    license=f"{CC_BY} (STRING)",
)
"""A functional description of each human gene, as words or for a text model (`esm_mlp.embed`)."""
STRING_LINKS = Source(
    name="string_links",
    file_names=("string/9606.protein.links.v12.0.txt.gz",),
    url="https://stringdb-downloads.org/download/protein.links.v12.0/9606.protein.links.v12.0.txt.gz",
    license=f"{CC_BY} (STRING)",
)
COESSENTIAL_MODULES = Source(
    name="coessential_modules",
    file_names=("knowledge/clusterOne_clusters.tsv", "knowledge/coessential_modules.clusterOne.tsv.gz"),
    url="https://raw.githubusercontent.com/kundajelab/coessentiality/a9f9a059460e5a16d7f5f46e843cb6d79251caf1/"
    "clusterOne_clusters.tsv",
    license=f"{CC_BY} (DepMap; modules of Wainberg et al., MIT)",
)
COMPLEX_PORTAL = Source(
    name="complex_portal",
    file_names=("knowledge/complex_portal.9606.tsv",),
    url="https://ftp.ebi.ac.uk/pub/databases/intact/complex/current/complextab/9606.tsv",
    license="CC0 1.0 (Complex Portal)",
)
REACTOME = Source(
    name="reactome",
    file_names=("knowledge/ReactomePathways.gmt.zip", "knowledge/ReactomePathways.gmt"),
    url="https://reactome.org/download/current/ReactomePathways.gmt.zip",
    license="CC0 1.0 (Reactome)",
)
BIOGRID = Source(
    name="biogrid",
    file_names=("knowledge/BIOGRID-MV-Physical-LATEST.tab3.zip",),
    url="https://downloads.thebiogrid.org/Download/BioGRID/Latest-Release/BIOGRID-MV-Physical-LATEST.tab3.zip",
    license="MIT (BioGRID)",
)
INTACT = Source(
    name="intact",
    file_names=("knowledge/intact.human.zip",),
    url="https://ftp.ebi.ac.uk/pub/databases/intact/current/psimitab/species/human.zip",
    license=f"{CC_BY} (IntAct)",
)
"""Networks and gene sets for more vectors (`esm_mlp.knowledge`). The providers replace the last four in place, so no
checksum can be known before; a manifest keeps that of the file which was read."""
ON_REQUEST = (TF_SAPIENS, COMPLEX_PORTAL, REACTOME, BIOGRID, INTACT)
"""What ``bioverify data fetch`` brings only if it is named: no build needs it."""
PUBLIC = (
    *PERTURBQA.values(),
    *PERTURBQA_GENE_SETS.values(),
    GENES,
    HGNC,
    GO_TERMS,
    GO_ANNOTATIONS,
    STRING_PROTEINS,
    STRING_LINKS,
    COESSENTIAL_MODULES,
    TISSUES,
    GLIOMA_CELLS,
    BLOOD_CELLS,
)
"""What ``bioverify data fetch`` brings, and the builds read."""


def _silent(_message: str) -> None:
    return None


def default_mirror() -> Path | None:
    """``BIOVERIFY_DATA_MIRROR``, else ``../shared/data`` of the working directory if it exists."""
    named = os.environ.get("BIOVERIFY_DATA_MIRROR")
    if named:
        return Path(named)
    beside = Path("../shared/data")
    return beside if beside.is_dir() else None


@dataclass
class Sources:
    """Finds source files. ``explicit``: source name, or its folder (``perturbqa``), → path given by the person."""

    mirror: Path | None
    cache: Path
    explicit: Mapping[str, Path] = field(default_factory=dict)
    offline: bool = False
    accept_license: bool = False
    """Whether files that come under a licence to be accepted may be downloaded. Files at hand need no acceptance."""
    tell: Callable[[str], None] = _silent
    bundled: Path = BUNDLED_FOLDER
    consulted: dict[str, str] = field(default_factory=dict, init=False)
    """Every source that was looked for → sha256 of what was found, empty if nothing was."""
    _unreachable: str = field(default="", init=False)
    _notices_shown: set[str] = field(default_factory=set, init=False)

    @classmethod
    def default(
        cls,
        *,
        explicit: Mapping[str, Path] | None = None,
        offline: bool = False,
        accept_license: bool = False,
        tell: Callable[[str], None] = _silent,
    ) -> Self:
        return cls(
            mirror=default_mirror(),
            cache=home_folder("sources"),
            explicit=explicit or {},
            offline=offline,
            accept_license=accept_license,
            tell=tell,
        )

    def locate(self, source: Source) -> LocatedSource:
        """The file, wherever it is. Raises ArtifactError if it is nowhere."""
        located = self.find(source)
        if located is None:
            looked = ", ".join(
                [f"cache {self.cache}", f"mirror {self.mirror or '(none)'}", source.url or "(no public address)"]
            )
            reason = f" ({self._unreachable})" if self._unreachable else ""
            raise ArtifactError(
                f"source {source.name}: not found in {looked}{reason}. Put the file there, or run: "
                f"bioverify data fetch --mirror FOLDER"
            )
        return located

    def find(self, source: Source) -> LocatedSource | None:
        """The file, or None if it is nowhere. Raises ArtifactError for a file that is there but wrong."""
        located = self._explicit(source) or self._in_folder(source, self.cache, "cache")
        if located is None and self.mirror is not None:
            located = self._in_folder(source, self.mirror, "mirror")
        located = located or self._download(source) or self._bundled(source)
        self.consulted[source.name] = located.sha256 if located else ""
        return located

    def locate_bundled(self, source: Source) -> LocatedSource:
        """What ships of the source, for what the public file lacks."""
        located = self._bundled(source)
        assert located is not None, f"{source.name} ships in a small form"
        return located

    def fetch(self, source: Source) -> LocatedSource | None:
        """The public file, in the cache afterwards: there already, copied from the mirror, or downloaded; else None."""
        located = self._in_folder(source, self.cache, "cache")
        if located is None and self.mirror is not None:
            located = self._in_folder(source, self.mirror, "mirror")
            if located is not None:
                target = self.cache / located.path.relative_to(self.mirror)
                target.parent.mkdir(parents=True, exist_ok=True)
                with located.path.open("rb") as original, replacing_file(target) as copy:
                    shutil.copyfileobj(original, copy, 1 << 20)
                located = replace(located, path=target)
        return located or self._download(source)

    def find_all(self, sources: Sequence[Source]) -> list[LocatedSource] | None:
        """All the files, or None if none of them is found. Raises ArtifactError if some are missing."""
        located = [self.find(source) for source in sources]
        found = [item for item in located if item is not None]
        if found and len(found) < len(sources):
            missing = next(source for source, item in zip(sources, located, strict=True) if item is None)
            raise ArtifactError(
                f"source {missing.name}: not found, but {found[0].source.name} is ({found[0].path}). "
                f"Complete the set, or remove it, and run: bioverify data build"
            )
        return found or None

    def _explicit(self, source: Source) -> LocatedSource | None:
        path = self.explicit.get(source.name)
        if path is None and "/" in source.name:
            folder_name, _, file_name = source.name.partition("/")
            folder = self.explicit.get(folder_name)
            path = folder / file_name if folder is not None else None
        if path is None:
            return None
        if not path.is_file():
            raise ArtifactError(f"source {source.name}: {path} was named for it and is no file")
        # The person's own file may be another release, so its checksum is recorded but not compared.
        return LocatedSource(source, path, "explicit", sha256_of(path))

    def _in_folder(self, source: Source, folder: Path, kind: SourceKind) -> LocatedSource | None:
        for file_name in source.file_names:
            path = folder / file_name
            if path.is_file():
                if source.size_bytes and path.stat().st_size != source.size_bytes:
                    raise ArtifactError(
                        f"source {source.name}: {path} has {path.stat().st_size:,} bytes, expected "
                        f"{source.size_bytes:,}. The file was changed or cut short. Remove it and fetch it again"
                    )
                found = sha256_of(path)
                if source.sha256 and found != source.sha256:
                    raise ArtifactError(
                        f"source {source.name}: sha256 of {path} is {found[:4]}…, expected {source.sha256[:4]}…. "
                        f"The file was changed or cut short. Remove it and run: bioverify data build"
                    )
                return LocatedSource(source, path, kind, found)
        return None

    def _bundled(self, source: Source) -> LocatedSource | None:
        path = self.bundled / source.bundled
        if not source.bundled or not path.is_file():
            return None
        return LocatedSource(source, path, "bundled", sha256_of(path))

    def _download(self, source: Source) -> LocatedSource | None:
        if not source.url or self.offline or self._unreachable:
            return None
        if source.notice and source.notice not in self._notices_shown:
            self._notices_shown.add(source.notice)
            self.tell(source.notice)
            if not self.accept_license:
                self.tell("Not downloaded: accept the licence with --accept-license")
        if source.notice and not self.accept_license:
            return None
        # Here, because services never download, and an HTTP client is a tenth of what they import.
        import httpx

        from bioverify.artifacts.downloads import download

        target = self.cache / source.file_names[0]
        try:
            found = download(source.name, source.url, target, sha256=source.sha256, size_bytes=source.size_bytes)
        except httpx.TransportError as error:
            self._unreachable = f"{httpx.URL(source.url).host} cannot be reached: {error}"
            self.tell(f"{self._unreachable}; downloads are not tried again in this run")
            return None
        except httpx.HTTPStatusError as error:
            self.tell(f"{source.url} answers {error.response.status_code}; not downloaded")
            return None
        return LocatedSource(source, target, "url", found)
