"""A client without pyarrow reads lines of JSON, and says what Parquet and data frames need."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bioverify.rollouts.lines import read_items
from bioverify.rollouts.stored import StoredRollouts

ROWS = [{"prompt": "Why?", "completion": "So."}, {"prompt": "Why?", "completion": "<answer>no</answer>"}]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def parquet(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def test_what_a_file_is_is_read_off_its_first_bytes(tmp_path: Path) -> None:
    contents = {
        "rows.jsonl": LINES,
        "rows.txt": b"\xef\xbb\xbf" + LINES,
        "rows.jsonl.gz": gzip.compress(LINES),
        "rows.json": json.dumps(ROWS, indent=1).encode(),
        "rows.json.gz": gzip.compress(b"\xef\xbb\xbf\n " + json.dumps(ROWS).encode()),
    }
    paths = [parquet(tmp_path / "rows.pq"), parquet(tmp_path / "ROWS.PARQUET"), parquet(tmp_path / "bare")]
    paths.append(parquet(tmp_path / "hub" / "data" / "train-00000.parquet").parents[1])
    for name, content in contents.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    for path in paths:
        items = read_items(StoredRollouts(path).lines(), [], lambda error: pytest.fail(str(error)))
        assert [line.item.completion for line in items] == [row["completion"] for row in ROWS], path


def test_a_file_that_is_cut_or_no_array_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(LINES * 100)[:60])
    (tmp_path / "cut.json").write_bytes(json.dumps(ROWS).encode()[:-5])
    (tmp_path / "empty").mkdir()
    for name, says in (("cut.gz", "the gzip stream is broken"), ("cut.json", "begins like a JSON array and is none")):
        with pytest.raises(ValueError, match=says):
            list(StoredRollouts(tmp_path / name).lines())
    with pytest.raises(ValueError, match=r"no \.parquet file in it, nor in a folder data"):
        StoredRollouts(tmp_path / "empty")


def test_columns_of_bytes_are_text_if_they_are_utf8_and_else_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"completion": pa.array([b"So.", b"\xff\xfe"])}), tmp_path / "bytes.parquet")
    errors: list[str] = []
    items = read_items(StoredRollouts(tmp_path / "bytes.parquet").lines(), [], lambda error: errors.append(str(error)))
    assert [line.item.completion for line in items] == ["So."]
    assert len(errors) == 1
    assert errors[0].startswith("line 2: completion: a text or a list of messages, not bytes")


def test_without_pyarrow_json_is_read_and_parquet_and_frames_say_what_they_need(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "bioverify.client.frames", raising=False)
    lines, table = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    lines.write_bytes(b"{}\n")
    table.write_bytes(b"")
    assert list(StoredRollouts(lines).lines()) == [b"{}\n"]
    with pytest.raises(ValueError, match=r"Parquet needs pyarrow\. Run in a clone.*'\.\[tables\]'"):
        StoredRollouts(table)
    with pytest.raises(ImportError, match=r"score_dataframe needs pyarrow\. Run in a clone.*'\.\[tables\]'"):
        import bioverify.client.frames  # noqa: F401
