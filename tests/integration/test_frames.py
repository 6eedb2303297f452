"""Data frames of several libraries in, a table with rewards out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from bioverify.client import AsyncClient, Client
from tests.fixtures import servers
from tests.fixtures.rewards import optional, recipe, required

BY = recipe(optional("lookup", 2.0), required("text"))
QUESTION = (
    "Is a knockdown of {} in k562 cells likely to result in differential expression of B? "
    "The answer is either yes or no."
)
YES = "<think>so</think><answer>yes</answer>"
ROWS: dict[str, list[Any]] = {
    "prompt": [QUESTION.format("A"), QUESTION.format("UNKNOWN"), QUESTION.format("A"), "Tell me a joke."],
    "completion": [YES, YES, "<think>so</think><answer>no</answer>", "no"],
    "group_id": [1, 1, 2, 3],
    "model": ["m"] * 4,
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        servers.verifier("Lookup") as lookup,
        servers.verifier("Text") as text,
        servers.aggregator({"lookup": lookup.target, "text": text.target}) as running,
        Client(running.target) as client,
    ):
        yield client


class Stream:
    """A frame of a library that nothing is known of but Arrow's interface."""

    def __init__(self, rows: dict[str, list[Any]]) -> None:
        self._table = pa.table(rows)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame, Stream])
def test_every_kind_of_frame_keeps_its_columns_and_gains_the_rewards(client: Client, make: Any) -> None:
    scored = client.score_dataframe(make(ROWS), BY)

    assert scored.column_names[:4] == list(ROWS)
    rows = scored.to_pylist()
    assert [row["outcome/lookup"] for row in rows] == ["scored", "not_applicable", "scored", "not_applicable"]
    # Lookup is missing for one of group 1, so it counts for none of it.
    assert [row["contribution/lookup"] is None for row in rows] == [True, True, False, True]
    assert [row["answer"] for row in rows] == ["yes", "yes", "no", "no_answer_block"]
    assert [row["highest"] for row in rows] == [1.0, 1.0, 3.0, 1.0]
    assert [row["verdict"] for row in rows][2:] == [
        "No screen was asked; the answer says no.",
        "No question was read; the answer could not be read (no_answer_block).",
    ]
    for row in rows:
        assert row["reward"] == sum(row[f"contribution/{term}"] or 0 for term in ("lookup", "text"))
    assert any(sentence.startswith("lookup: belief") for sentence in rows[0]["evidence"])
    assert scored.to_pandas()["reward"].notna().all()


async def test_messages_tasks_and_completions_as_turns_are_read_and_the_async_client_agrees(client: Client) -> None:
    genes = {"perturbation": "A", "measured_gene": "B", "cell_line": "k562"}
    frame = pa.Table.from_pylist(
        [
            {
                "prompt": [{"role": "user", "content": QUESTION.format("A")}],
                "completion": [{"role": "assistant", "content": YES}],
                "task": None,
            },
            # Arrow gives this row a null prompt, and the other one a task of nulls.
            {"completion": [{"role": "assistant", "content": YES}], "task": {"differential_expression": genes}},
        ]
    )

    scored = client.score_dataframe(frame, BY, with_evidence=False)

    assert scored["value/lookup"][0] == scored["value/lookup"][1]
    assert scored["evidence"].to_pylist() == [[], []]
    async with AsyncClient(client.target) as other:
        assert (await other.score_dataframe(frame, BY, with_evidence=False)).equals(scored)


def test_a_frame_that_cannot_be_scored_says_which_column_or_row(client: Client) -> None:
    with pytest.raises(ValueError, match="no column completion; it has: text"):
        client.score_dataframe(pa.table({"text": ["a"]}), BY)
    with pytest.raises(ValueError, match="no row can be scored; row 0: completion: a text or a list of messages, not"):
        client.score_dataframe(pa.table({"completion": pa.array([None], pa.string())}), BY)
    with pytest.raises(ValueError, match="already: reward"):
        client.score_dataframe(pa.table({"completion": ["a"], "reward": [0.0]}), BY)


def test_a_row_without_a_reward_is_null_and_no_frame_is_too_small(client: Client) -> None:
    strict = recipe(required("lookup"))

    scored = client.score_dataframe(pd.DataFrame(ROWS), strict)

    assert [value is None for value in scored["reward"].to_pylist()] == [False, True, False, True]
    assert "not applicable" in scored["unscorable_because"][1].as_py()
    assert client.score_dataframe(pa.table({"completion": pa.array([], pa.string())}), strict).num_rows == 0
