"""A client without pyarrow reads lines of JSON, and says what Parquet and data frames need."""

from __future__ import annotations

import sys

import pytest

from bioverify.rollouts.stored import StoredRollouts


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
