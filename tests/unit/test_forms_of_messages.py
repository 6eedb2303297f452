"""Laws of reading, from each door's own first step to the item that a verifier gets: door and form change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.adapters.reading import read_rollout
from bioverify.client import ScoreItem
from bioverify.client.json_form import StrictItem
from bioverify.client.messages import item_to_wire
from bioverify.core.answers import ParseMode
from bioverify.core.completions import PromptForm
from bioverify.core.outcomes import Scored
from bioverify.core.verifier import Item, Reads
from bioverify.rollouts.lines import fields_of, item_of
from bioverify.verifiers.format.verifier import FormatCheck
from bioverify.wire.tasks import read_item
from tests.fixtures.conversations import Q
from tests.unit.test_rbio_demo import PUBLISHED

EVERYTHING = Reads.TASK | Reads.ANSWER | Reads.COMPLETION
THOUGHTS = st.text(st.characters(codec="utf-8", exclude_characters="<>[]◁▷|"), min_size=1, max_size=60).filter(
    lambda text: text.strip() == text
)
FINALS = st.sampled_from(["yes", "no", "perhaps", "not yes", "yes\u2014so it is"]).map("<answer>{}</answer>".format)

Case = dict[str, Any]
DOORS: dict[str, Callable[[Case], ScoreItem]] = {
    "client": lambda case: ScoreItem("0", case["completion"], prompt=case["prompt"]),
    "a line of a file": lambda case: item_of(fields_of(json.dumps(case).encode(), 1), 1).score_item("0", ""),
    "http": lambda case: StrictItem.model_validate_json(json.dumps(case)).score_item("0", ""),
    "an adapter": lambda case: read_rollout(case["completion"], case["prompt"]),
}


def message(content: Any, **beside: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content, **beside}]


FORMS: dict[str, Callable[[str, str], Any]] = {
    "reasoning_content": lambda thought, final: message(final, reasoning_content=thought),
    "reasoning": lambda thought, final: message(final, reasoning=thought),
    "thinking": lambda thought, final: message(final, thinking=thought),
    "reasoning_details": lambda thought, final: message(final, reasoning_details=[{"text": thought}]),
    "thinking_blocks": lambda thought, final: message(final, thinking_blocks=[{"thinking": thought}]),
    "parts": lambda thought, final: message(
        [{"type": "thinking", "thinking": thought}, {"type": "text", "text": final}]
    ),
    "responses": lambda thought, final: [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": thought}], "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": final}]},
    ],
    "an earlier step": lambda thought, final: [
        *message(None, reasoning=thought),
        {"role": "tool", "content": "<answer>no</answer> <answer>yes</answer>"},
        *message(final),
    ],
    "one message": lambda thought, final: message(f"<think>{thought}</think>\n{final}"),
    "text in parts": lambda thought, final: message(
        [{"type": "text", "text": f"<think>{thought}"}, {"type": "text", "text": f"</think>\n{final}"}]
    ),
}


def read(item: ScoreItem, mode: ParseMode = ParseMode.WHOLE_WORDS) -> Item:
    return read_item(item_to_wire(item), mode, EVERYTHING)


@pytest.mark.parametrize("mode", ParseMode)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("form", FORMS)
@given(thought=THOUGHTS, final=FINALS)
def test_no_verifier_is_given_another_item_for_another_door_or_form_of_messages(
    form: str, door: str, mode: ParseMode, thought: str, final: str
) -> None:
    joined = read(ScoreItem("0", f"<think>{thought}</think>\n{final}", prompt=Q), mode)
    case = {"prompt": [{"role": "user", "content": Q}], "completion": FORMS[form](thought, final)}
    assert read(DOORS[door](case), mode) == joined


@pytest.mark.parametrize("mode", ParseMode)
@pytest.mark.parametrize("key", ["reasoning", "reasoning_content", "thinking"])
@given(thought=THOUGHTS, final=FINALS)
def test_reasoning_beside_a_completion_is_the_joined_text(key: str, mode: ParseMode, thought: str, final: str) -> None:
    joined = read(ScoreItem("0", f"<think>{thought}</think>\n{final}", prompt=Q), mode)
    case = {"prompt": Q, "completion": final, key: thought}
    for door in ("a line of a file", "http"):
        assert read(DOORS[door](case), mode) == joined


@given(thought=THOUGHTS, final=FINALS, opened=st.sampled_from(["<think>", "<think>\n"]))
def test_a_thought_that_the_template_opened_is_the_joined_text(thought: str, final: str, opened: str) -> None:
    joined = read(ScoreItem("0", f"{opened}{thought}</think>\n{final}", prompt=Q))
    rest = f"{thought}</think>\n{final}"
    assert read(ScoreItem("0", rest, prompt=Q, prefix=opened)) == joined
    assert read(ScoreItem("0", rest, prompt=f"{Q}\n{opened}")) == joined


def form_terms(item: ScoreItem, mode: ParseMode) -> tuple[str, ...]:
    """Every number of the format verifier, to its last bit."""
    [outcome] = FormatCheck().score([read(item, mode)])
    assert isinstance(outcome, Scored)
    return tuple(f"{name} {value.hex()}" for name, value in sorted(outcome.components.items()))


SPLIT = [
    (thought, final)
    for row in PUBLISHED
    if row[0].startswith("<think>") and "</think>" in row[0]
    for thought, _, final in [row[0].removeprefix("<think>").partition("</think>")]
    # A server that splits takes the white space away, and one line break is put back: without any, it is not the same.
    if final[:1].isspace() and "<think>" not in final
]


@pytest.mark.parametrize(("thought", "final"), SPLIT)
@pytest.mark.parametrize("mode", ParseMode)
def test_published_completions_whose_reasoning_was_split_off_earn_the_same_to_the_last_bit(
    thought: str, final: str, mode: ParseMode
) -> None:
    whole, split, stripped = (
        ScoreItem("0", completion, prompt=Q, prompt_form=PromptForm.ANSWER)
        for completion in (
            f"<think>{thought}</think>{final}",
            message(final, reasoning=thought),
            message(final.lstrip(), reasoning=thought),
        )
    )
    assert len(SPLIT) >= 3
    assert read(split, mode) == read(whole, mode)
    assert form_terms(stripped, mode) == form_terms(split, mode) == form_terms(whole, mode)
