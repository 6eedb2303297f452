"""The ``genes`` artifact as services open it: three tables, sorted by name, read into a `GeneResolver`."""

from __future__ import annotations

from bioverify.artifacts.names import Names
from bioverify.artifacts.store import ArtifactStore, OpenArtifact
from bioverify.artifacts.tables import read_served
from bioverify.core.genes import GeneResolver

CURRENT_FILE = "current.arrows"
"""``key``, the upper-cased symbol, sorted by its bytes; ``symbol``."""
OTHER_NAMES_FILE = "other_names.arrows"
"""``name``, sorted by its bytes; ``symbols``, rows of the first table."""
PREVIOUS_FILE = "previous.arrows"
"""``name``, those of several genes that were the official symbol of one, sorted by its bytes; ``symbol``, its row."""


def open_genes(store: ArtifactStore, *, in_memory: bool = False) -> tuple[GeneResolver, OpenArtifact]:
    """The resolver of the current ``genes`` artifact. Raises ArtifactError if it is missing or damaged.

    ``in_memory``: for a builder that looks up nearly every name (`Names.in_memory`).
    """
    artifact = store.open("genes")
    table = read_served(artifact, CURRENT_FILE)
    symbols = table.texts("symbol")

    def symbol_of(row: int) -> str:
        return symbols[row].decode()

    other = read_served(artifact, OTHER_NAMES_FILE)
    starts, rows = (numbers.data for numbers in other.lists("symbols"))
    current = Names(table.texts("key"), symbol_of)
    other_names = Names(other.texts("name"), lambda at: tuple(map(symbol_of, rows[starts[at] : starts[at + 1]])))
    decided = read_served(artifact, PREVIOUS_FILE)
    row_of = decided.numbers("symbol").data
    meant = Names(decided.texts("name"), lambda at: symbol_of(row_of[at]))
    ids = artifact.manifest.parameters["ids"]
    assert isinstance(ids, list)
    if in_memory:
        return GeneResolver(current.in_memory(), other_names.in_memory(), meant, tuple(ids)), artifact
    return GeneResolver(current, other_names, meant, tuple(ids)), artifact
