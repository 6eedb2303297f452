"""Pairs of genes as networks are published; a name that ends in ``.gz`` or ``.zip`` is unpacked.

* BioGRID (TAB3) and IntAct (MITAB): interactions between human proteins, of BioGRID the physical ones, of IntAct those
  with a MI score of `LEAST_MISCORE`.
* a list of edges: two names a line, and perhaps a score, divided by blanks or tabs. Names may be STRING's protein ids;
  they are translated by its protein information.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from bioverify.artifacts.errors import ArtifactError

LEAST_SCORE = 700
"""STRING's "high confidence"."""
LEAST_MISCORE = 0.45
"""IntAct calls it medium confidence. Not measured here."""
HUMAN = "9606"
TABLES = (".gmt", ".txt", ".tsv")
"""What an archive's table may end in."""
STRING_ID = re.compile(r"9606\.ENSP\d+")
ACCESSION = re.compile(r"(?:uniprotkb:)?([A-Z][A-Z0-9]{5,9})(?:-\w+)?(?:\(\d*\))?")
_MISCORE = re.compile(r"intact-miscore:([0-9.]+)")

Pairs = Iterator[tuple[str, str]]


def read_links(path: Path, lines: Iterator[str], *, least_score: float = LEAST_SCORE) -> Pairs:
    """Names of two genes each, in the order of the file. ``least_score``: of an edge that has a score.

    Raises ArtifactError for a line that is no edge.
    """
    head = next(lines, "")
    columns = head.rstrip("\n").split("\t")
    if "Official Symbol Interactor A" in columns:
        return _of_biogrid(columns, lines)
    if len(columns) > 14 and columns[0].startswith("#ID(s) interactor A"):
        return _of_mitab(lines)
    has_header = len(head.split()) > 2 and not _is_number(head.split()[2])
    return _of_edges(path, lines if has_header else chain([head], lines), least_score)


def _of_biogrid(columns: list[str], lines: Iterable[str]) -> Pairs:
    """TAB3."""
    place = {name: number for number, name in enumerate(columns)}
    human = place["Organism ID Interactor A"], place["Organism ID Interactor B"]
    one, other = place["Official Symbol Interactor A"], place["Official Symbol Interactor B"]
    kind = place["Experimental System Type"]
    for line in lines:
        fields = line.rstrip("\n").split("\t")
        if {fields[each] for each in human} == {HUMAN} and fields[kind] == "physical":
            yield fields[one], fields[other]


def _of_mitab(lines: Iterable[str]) -> Pairs:
    """PSI-MI TAB 2.7: ids in columns 0 and 1, species in 9 and 10, scores in 14."""
    for line in lines:
        fields = line.rstrip("\n").split("\t")
        if len(fields) <= 14 or not all(fields[column].startswith(f"taxid:{HUMAN}(") for column in (9, 10)):
            continue
        score = _MISCORE.search(fields[14])
        one, other = (ACCESSION.fullmatch(each) for each in fields[:2])
        if score and float(score[1]) >= LEAST_MISCORE and one and other:
            yield one[1], other[1]


def _of_edges(path: Path, lines: Iterable[str], least_score: float) -> Pairs:
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or line.startswith("#"):
            continue
        if len(fields) not in {2, 3} or (len(fields) == 3 and not _is_number(fields[2])):
            raise ArtifactError(
                f"{path}: edge {number} is {line.strip()[:60]!r}; expected two names, and perhaps a score"
            )
        if len(fields) == 2 or float(fields[2]) >= least_score:
            yield fields[0], fields[1]


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def names_of_proteins(path: Path) -> Mapping[str, str]:
    """STRING's protein information: id → name of the gene."""
    with open_lines(path) as lines:
        split = (line.split("\t", 2) for line in lines)
        return {fields[0]: fields[1] for fields in split}


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[str]]:
    """Of an archive the largest table: IntAct puts the few negative results into another one."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            tables = [one for one in archive.infolist() if Path(one.filename).suffix.lower() in TABLES]
            if not tables:
                raise ArtifactError(f"{path}: holds no file that ends in {', '.join(TABLES)}")
            largest = max(tables, key=lambda one: one.file_size)
            with archive.open(largest) as member, io.TextIOWrapper(member, encoding="utf-8") as lines:
                yield lines
    else:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            yield lines
