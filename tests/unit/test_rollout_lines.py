"""Lines of a file of completions: what the reader takes, the contract takes; the others are told by number."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import repeat

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.adapters.reading import read_rollout
from bioverify.client.frames import read_frame
from bioverify.client.messages import checked, score_request
from bioverify.rollouts import lines
from bioverify.rollouts.lines import FileItem, LineError, lines_of, read_chunks, read_items
from bioverify.transport.channels import MAX_CALL_ITEMS
from bioverify.wire.rules import broken_rules

GOOD = {"completion": "<answer>yes</answer>"}


def read(rows: list[object]) -> tuple[list[FileItem], list[LineError]]:
    errors: list[LineError] = []
    items = list(read_items([json.dumps(row).encode() for row in rows], ["moon", "x" * 256], errors.append))
    return items, errors


names = st.text(max_size=80) | st.sampled_from(["", "-", " _ ", "K-562", "A" * 64, "A" * 65, "é" * 64])
knockdown = st.fixed_dictionaries({"perturbation": names, "measured_gene": names, "cell_line": names})
rows = st.fixed_dictionaries(
    {"completion": st.text(max_size=40)},
    optional={
        "prompt": st.text(max_size=40)
        | st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": st.text()})),
        "id": st.text(max_size=300) | st.integers(),
        "group_id": st.text(max_size=300) | st.integers() | st.just("g" * 300),
        "source": st.sampled_from(["moon", "x" * 256, "x" * 257, ""]),
        "task": st.one_of(
            st.fixed_dictionaries({"differential_expression": knockdown}),
            st.fixed_dictionaries({"direction_of_change": knockdown}),
            st.fixed_dictionaries({"co_expression": st.fixed_dictionaries({"gene_a": names, "gene_b": names})}),
            st.fixed_dictionaries({"gene_annotation": st.fixed_dictionaries({"genes": st.lists(names, max_size=66)})}),
        ),
        "prompt_form": st.sampled_from(["answer", "gene_info", "poem"]),
    },
)  # fmt: skip


@pytest.mark.parametrize("ids", [[2, None], ["2", None], [None, "1"], ["a", "a"], [None, None], ["1", 1]])
def test_lines_and_rows_travel_under_their_numbers_whatever_ids_they_give(ids: list[str | int | None]) -> None:
    given_rows = [GOOD if one is None else {**GOOD, "id": one} for one in ids]
    items, errors = read(list(given_rows))
    assert not errors
    assert [one.item.id for one in items] == ["1", "2"]
    assert [one.id for one in items] == [str(line if one is None else one) for line, one in enumerate(ids, 1)]
    texts = {"id": [None if one is None else str(one) for one in ids], "completion": [GOOD["completion"]] * 2}
    _, of_frame, unread = read_frame(pa.table(texts))
    assert ([one.id for one in of_frame], unread) == (["0", "1"], {})
    assert not broken_rules(score_request([checked(one.item) for one in items], "all", with_evidence=True))


@given(st.lists(rows, max_size=6))
def test_what_the_reader_takes_the_contract_takes(given_rows: list[object]) -> None:
    errors: list[LineError] = []
    texts = [json.dumps(row).encode() for row in given_rows]
    chunks = list(read_chunks(texts, ["moon", "x" * 256], errors.append, 3))
    assert sum(map(len, chunks)) + len(errors) == len(given_rows)
    for chunk in chunks:
        request = score_request([checked(line.item) for line in chunk], "all", with_evidence=True)
        assert broken_rules(request) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"task": {"differential_expression": {"perturbation": "A", "measured_gene": "B", "cell_line": ""}}},
         "task.differential_expression.cell_line"),
        ({"task": {"gene_annotation": {"genes": ["A"] * 65}}}, "task.gene_annotation.genes"),
        ({"source": "sun"}, "source"),
        ({"prompt": [{"role": "robot", "content": ""}]}, "prompt[0].role"),
    ],
)  # fmt: skip
def test_one_bad_line_is_told_and_costs_no_other(row: dict[str, object], problem: str) -> None:
    items, [error] = read([GOOD, GOOD | row, GOOD])
    assert [line.line for line in items] == [1, 3]
    assert error.line == 2
    assert problem in error.problem


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_group_s_lines_are_in_one_chunk_wherever_they_stand_and_the_file_s_order_stays(size: int) -> None:
    names = ["a", "b", "a", None, "c", "b", "c", "d", None, "d"]
    rows = [json.dumps(GOOD | ({} if name is None else {"group_id": name})).encode() for name in names]
    chunks = list(read_chunks(rows, [], pytest.fail, size))
    assert [line.line for chunk in chunks for line in chunk] == list(range(1, 11))
    for name in set(names) - {None}:
        assert sum(any(line.item.group_id == name for line in chunk) for chunk in chunks) == 1


def test_a_line_whose_group_was_scored_long_before_is_refused_by_name_also_after_a_pause(monkeypatch) -> None:
    monkeypatch.setattr(lines, "MOST_HELD_LINES", 4)
    rows = [json.dumps(GOOD | {"group_id": name}).encode() for name in "abcdefga"]
    for skip, left in ((0, 7), (4, 3)):
        errors: list[LineError] = []
        chunks = list(read_chunks(rows, [], errors.append, 2, skip=skip))
        assert sum(map(len, chunks)) == left
        assert [error.line for error in errors] == [8]
        assert "'a' names lines further up" in errors[0].problem
        assert "sort the file by group_id" in errors[0].problem


def test_keys_that_nobody_reads_are_told_and_those_of_an_item_are_not() -> None:
    unread: set[str] = set()
    row = GOOD | {"model": "m", "gold": 1, "messages": [{"role": "user", "content": "Why?"}], "thinking": "So."}
    [[line]] = read_chunks([json.dumps(row).encode()], [], pytest.fail, 1, unread_keys=unread)
    assert unread == {"model", "gold"}
    assert (line.item.prompt[0].content, line.item.reasoning) == ("Why?", "So.")


QUESTION = "Is a knockdown of A in k562 cells likely to result in differential expression of B?"


@pytest.mark.parametrize(
    "record",
    [
        {"doc_id": 3, "doc": {}, "target": "yes", "arguments": [[QUESTION, {"until": []}]], "resps": [["yes"]]},
        {"doc_id": 3, "doc": {}, "arguments": {"gen_args_0": {"arg_0": QUESTION, "arg_1": {}}}, "resps": [["yes"]]},
        {"input": QUESTION, "output": "yes", "score": 0.5, "step": 7, "gts": "yes"},
        {"request_id": "3", "prompt": QUESTION, "outputs": [{"index": 0, "text": "yes"}]},
        {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "yes"}]},
    ],
)
def test_what_other_tools_write_is_read(record: dict[str, object]) -> None:
    [line], errors = read([record])
    assert errors == []
    assert (line.item.prompt[0].content, line.item.completion) == (QUESTION, "yes")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"question": "Q", "response": "A"}',
         "completion is missing; found: question, response; wanted: prompt (or messages, or task) and completion. "
         "Convert: jq -c '{prompt: .question, completion: .response}' FILE"),
        ('{"custom_id": "a", "response": {"body": {}}, "error": null}', "batch output, which does not hold the"),
        ('{"choices": []}', "a reply of a chat endpoint"),
        ('{"prompt": "Q", "outputs": [{"text": "a"}, {"text": "b"}]}', "with 2 completions in outputs"),
        ('{"doc": {}, "arguments": [], "resps": [["a"]]}', "a sample of lm-eval"),
        ("[1, 2]", "a JSON array; one object per line is read. Convert: jq -c '.[]' FILE"),
        ('"text"', "an object with prompt"),
        ('{"completion": null}', "completion: a text or a list of messages, not null"),
        ('{"completion": [{"role": "assistant", "content": null}]}', "completion[0].content: a text; found none"),
        ('{"completion": "x", "prompt": [{"role": "user", "content": 5}]}', "prompt[0].content: a text, a list"),
        ('{"completion": "x", "prompt": "a", "messages": []}', "give prompt or messages, not both"),
        ('{"completion": "x", "id": 1.5}', "id: a text or a whole number, not 1.5"),
        ('{"completion": "\\ud83d"}', "not JSON"),
        ('{"completion": "\\ud83d", "score": NaN}', "completion: no text: character 0 is half of a surrogate pair"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_item_says_what_was_found_and_what_is_wanted(text: str, says: str) -> None:
    errors: list[LineError] = []
    assert read_items([text.encode()], [], errors.append) == []
    assert says in errors[0].problem


def test_numbers_that_only_python_writes_and_names_that_pandas_made_numbers_are_no_reason_to_refuse_a_line() -> None:
    errors: list[LineError] = []
    text = b'\xef\xbb\xbf{"completion": "x", "id": 1.0, "group_id": 2.0, "loss": NaN, "top": -Infinity}'
    [line] = read_items([text], [], errors.append)
    assert (line.id, line.item.group_id, errors) == ("1", "2", [])


def test_a_long_name_of_a_group_is_no_reason_to_refuse_a_line_and_stays_another_group_than_its_like() -> None:
    long = "g" * 400
    items, errors = read([GOOD | {"group_id": name} for name in (long, long, long + "x", long)])
    assert errors == []
    groups = [line.item.group_id for line in items]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 2
    assert all(len(group) <= 256 for group in groups)


def test_a_group_that_no_call_can_hold_is_bad_lines_with_its_numbers_and_the_others_are_scored() -> None:
    of_group = [GOOD | {"group_id": "g"}] * (MAX_CALL_ITEMS + 1)
    items, errors = read([GOOD, *of_group[:10], {"no": "completion"}, *of_group[10:], GOOD])
    assert [line.line for line in items] == [1, MAX_CALL_ITEMS + 4]
    assert len(errors) == MAX_CALL_ITEMS + 2
    assert "group_id: the group is larger than a call can be" in errors[-1].problem
    assert "at most 4,096 lines" in errors[-1].problem
    fits, none = read(of_group[1:])
    assert (len(fits), none) == (MAX_CALL_ITEMS, [])


def test_a_group_of_too_many_bytes_is_bad_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_GROUP_BYTES", 1000)
    items, errors = read([GOOD | {"group_id": "g", "completion": "x" * 400}] * 3 + [GOOD])
    assert [line.line for line in items] == [4]
    assert [error.line for error in errors] == [1, 2, 3]


def test_a_line_too_long_is_refused_without_being_held_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Long(io.RawIOBase):
        """200 MB of one line, and a good one, made as they are read."""

        def __init__(self) -> None:
            self._parts: Iterator[bytes] = iter([*repeat(b"x" * 2**20, 200), b"\n" + orjson.dumps(GOOD)])

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            part = next(self._parts, b"")
            buffer[: len(part)] = part
            return len(part)

    errors: list[LineError] = []
    longest = 0

    def watched() -> Iterator[bytes]:
        nonlocal longest
        for line in lines_of(io.BufferedReader(Long(), 2**20)):
            longest = max(longest, len(line))
            yield line

    items = read_items(watched(), [], errors.append)
    assert [line.line for line in items] == [2]
    assert str(errors[0]) == "line 1: longer than 16 MiB"
    assert longest == lines.MAX_LINE_BYTES + 1


NOT_OF_THE_CONTRACT = [
    {"group_id": "g" * 257},
    {"task": {"differential_expression": {"perturbation": "A", "measured_gene": "B", "cell_line": "k" * 65}}},
    {"source": "s" * 256 + "é"},
]


@pytest.mark.parametrize("fields", NOT_OF_THE_CONTRACT)
def test_a_frames_row_and_a_frameworks_rollout_are_held_to_the_contract_too(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"row 0: .*{next(iter(fields))}"):
        read_frame(pa.Table.from_pylist([GOOD | fields]))
    with pytest.raises(ValueError, match=str(next(iter(fields)))):
        read_rollout("x", "y", fields)


@pytest.mark.parametrize("messages", ["What is AARS?", {"role": "user", "content": "x"}, 7])
def test_messages_that_are_no_list_are_refused_by_name(messages: object) -> None:
    items, [error] = read([{"messages": messages, "completion": "x"}])
    assert items == []
    assert "messages is a list" in error.problem
