"""Every reader of texts takes time in proportion to the text, whatever is in it.

A text sixteen times as long may take at most sixty times as long: a reader whose time grows with the square would take
256 times as long, and a machine that is busy with other things does not reach either by chance (the best of three).
"""

from time import process_time

import pytest

from bioverify.core import rbio_demo
from bioverify.core.answers import ParseMode, parse_answer
from bioverify.core.completions import PromptForm, TaggedText, thought_problem
from bioverify.core.conversation import opened_thought, read_completion, whole_completion
from bioverify.core.questions import Unread, read_question
from bioverify.core.tasks import TaskKind, canonical_cell_line

SHORT, TIMES, AT_MOST = 2_000, 16, 60

FRAGMENTS = [
    *(
        "<answer>",
        "</answer>",
        "<answer ",
        "<think>",
        "</think>",
        "<think ",
        "<gene_info>",
        "<",
        "[THINK]",
        "<thinking>",
    ),
    *("<|channel|>analysis<|message|>", "<|end|>", "<pad>", "</s>\n", " \n", "analysis", "assistantfinal"),
    *("yes ", "no ", "not ", "yes or ", "no_", "_'", "*`", "-", "A-", "A.", "AB1-", "increase ", "\u200b", "\uff59"),
    *("Is a knockdown of A in K562 ", "Is a knockdown of ", "Are genes A and ", "What is the function of A, ", "A, "),
    *(
        "Is a knockdown of A in K562 cells likely to result in differential expression of ",
        "knockdown of",
        "so? ",
        "predict ",
    ),
]


def _detail(text: str) -> None:
    question = read_question(text)
    if isinstance(question, Unread):
        assert question.detail


READERS = {
    "answer": lambda text: parse_answer(text),
    "answer in a block": lambda text: parse_answer(f"<answer>{text}</answer>"),
    "direction in a block": lambda text: parse_answer(f"<answer>{text}</answer>", TaskKind.DIRECTION_OF_CHANGE),
    "answer as published": lambda text: parse_answer(text, mode=ParseMode.RBIO_DEMO),
    "reward as published": lambda text: rbio_demo.reward(text, "A|AB1", 0.5),
    "form": lambda text: [TaggedText(text).form_checks(form) for form in PromptForm],
    "thoughts": lambda text: (TaggedText(text).mention_share(["A", "AB1"]), TaggedText(text).gene_info_blocks),
    "thought": thought_problem,
    "question": _detail,
    "cell line": canonical_cell_line,
    "whole completion": lambda text: (
        whole_completion(text),
        whole_completion(text, reasoning=text),
        opened_thought(text),
    ),
    "message": lambda text: read_completion({"role": "assistant", "content": text, "reasoning": text}).text,
}


def _seconds(read, text: str) -> float:
    best = float("inf")
    for number in range(3):
        # Another text each time: what is remembered is not read again.
        varied = f"{number} {text}"
        start = process_time()
        read(varied)
        best = min(best, process_time() - start)
    return best


@pytest.mark.parametrize("reader", READERS)
def test_time_is_linear_in_the_text(reader):
    read = READERS[reader]
    slow = {}
    for fragment in FRAGMENTS:
        short = fragment * (SHORT // len(fragment))
        # A clock's tick and a first call are no work on the text.
        ratio = _seconds(read, short * TIMES) / max(_seconds(read, short), 0.001)
        if ratio > AT_MOST:
            slow[fragment] = round(ratio)
    assert slow == {}
