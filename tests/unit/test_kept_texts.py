"""What is remembered of texts from outside: short ones that many callers share, and no long one for good."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from bioverify.aggregator.questions import question_of
from bioverify.core.questions import read_question
from bioverify.core.tasks import GeneAnnotation
from bioverify.core.verifier import Item, Reads

TEXTS, LETTERS = 40, 8_000
MOST_BYTES = TEXTS * LETTERS // 4
ASKED = "Is a knockdown of AARS in K562 cells likely to result in differential expression of TRIB3?"


def padded(number: int, word: str) -> str:
    return f"{number} {word}".ljust(LETTERS, word[-1])


def of_64_genes(number: int) -> bytes:
    genes = tuple(f"{number}X{gene}".ljust(64, "X") for gene in range(64))
    return question_of(Item(GeneAnnotation(genes)), Reads.TASK)


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda number: read_question(f"{padded(number, 'Words.')} {ASKED}"), id="words before a question"),
        pytest.param(lambda number: read_question(f"{ASKED} {padded(number, 'thanks!')}"), id="words behind it"),
        pytest.param(
            lambda number: read_question(f"Does the weather of {padded(number, 'May')}?"), id="another question"
        ),
        pytest.param(lambda number: read_question(ASKED.replace("AARS", padded(number, "A"))), id="a name without end"),
        pytest.param(lambda number: read_question(ASKED.replace("K562", padded(number, "K"))), id="a line without end"),
        pytest.param(of_64_genes, id="a list of genes"),
    ],
)
def test_no_long_text_is_kept_when_it_has_been_read(read: Callable[[int], object]) -> None:
    read(-1)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(TEXTS):
            read(number)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < MOST_BYTES, f"{after - before:,} bytes of {TEXTS} texts of {LETTERS:,} letters are kept"
