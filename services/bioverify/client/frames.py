"""Data frames: `score_dataframe` takes any table that speaks Arrow's PyCapsule interface, and gives a pyarrow one.

So pandas (from 2.2), polars, pyarrow, duckdb and datasets are served without one of them being needed, and the answer
goes back into any of them without a copy: ``polars.from_arrow(scored)``, ``scored.to_pandas()``.

Columns in: ``completion`` and ``prompt`` (text or messages); ``task``, ``group_id``, ``source``, ``prompt_form`` where
there are such. Rows of one ``group_id`` are a group wherever they stand. A row that cannot be
read has no reward, and says why. Columns out, behind those of the frame: ``verdict`` (one sentence), ``reward`` (null:
unscorable), ``highest`` (out of how much it is), ``unscorable_because``, ``answer``, and for each term its
``value/…``, ``contribution/…`` and ``outcome/…`` (scored, not_applicable or failed), and ``evidence``, a list of
sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from bioverify.client.json_form import ItemJson, outcome_word
from bioverify.client.messages import checked
from bioverify.client.rows import json_rows
from bioverify.client.values import ArrowStream, ItemReward, ScoreItem
from bioverify.core.answers import answer_word
from bioverify.core.outcomes import Scored
from bioverify.errors import how_to_install
from bioverify.settings import first_problem

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError(f"score_dataframe needs pyarrow. {how_to_install('tables')}") from error


def read_frame(frame: ArrowStream) -> tuple[pa.Table, list[ScoreItem], dict[int, str]]:
    """The frame as Arrow, its rows as items, and what is wrong with rows that are none, by number.

    Raises ValueError if no row can be read.
    """
    table = pa.table(frame)
    if not {"completion", "messages"} & set(table.column_names):
        raise ValueError(f"the frame has no column completion; it has: {', '.join(table.column_names)}")
    items, unread = [], {}
    for number, fields in enumerate(json_rows(table)):
        try:
            row = ItemJson.model_validate(fields)
            item = row.score_item(str(number), "" if row.group_id is None else str(row.group_id))
            checked(item)
        except ValidationError as error:
            unread[number] = first_problem(error, ItemJson, "the row")
        except ValueError as error:
            unread[number] = str(error)
        else:
            items.append(item)
    if unread and not items:
        raise ValueError(f"no row can be scored; row 0: {unread[0]}")
    return table, items, unread


def with_unread(rewards: Sequence[ItemReward], unread: Mapping[int, str]) -> list[ItemReward]:
    """The rewards of all rows, those that were not read in their places."""
    read = iter(rewards)
    return [
        ItemReward(str(number), None, unread[number], is_lost=True, is_refused=True) if number in unread else next(read)
        for number in range(len(rewards) + len(unread))
    ]


def with_rewards(table: pa.Table, rewards: Sequence[ItemReward]) -> pa.Table:
    """The table and the rewards of its rows. Raises ValueError if a column of this name is there already."""
    columns = _columns(rewards)
    if taken := sorted(set(columns) & set(table.column_names)):
        raise ValueError(f"the frame has columns of these names already: {', '.join(taken)}. Rename or drop them")
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _columns(rewards: Sequence[ItemReward]) -> dict[str, pa.Array]:
    parts = [{part.term.label: part for part in reward.parts} for reward in rewards]
    columns = {
        "verdict": pa.array([reward.verdict for reward in rewards], pa.string()),
        "reward": pa.array([reward.reward for reward in rewards], pa.float64()),
        "highest": pa.array([reward.highest for reward in rewards], pa.float64()),
        "unscorable_because": pa.array([reward.unscorable_because for reward in rewards], pa.string()),
        "answer": pa.array([answer_word(reward.answer, reward.task) for reward in rewards], pa.string()),
    }
    for label in dict.fromkeys(label for row in parts for label in row):
        of_term = [row.get(label) for row in parts]
        values = [part and part.value for part in of_term]
        columns[f"value/{label}"] = pa.array(values, pa.float64())
        columns[f"contribution/{label}"] = pa.array([part and part.contribution for part in of_term], pa.float64())
        columns[f"outcome/{label}"] = pa.array([part and outcome_word(part.outcome) for part in of_term], pa.string())
    columns["evidence"] = pa.array([_sentences(reward) for reward in rewards], pa.list_(pa.string()))
    return columns


def _sentences(reward: ItemReward) -> list[str]:
    said = [
        f"{part.term.verifier}: {evidence.text}"
        for part in reward.parts
        if isinstance(part.outcome, Scored)
        for evidence in part.outcome.evidence
    ]
    # A verifier of several terms says the same to each.
    return list(dict.fromkeys(said))
