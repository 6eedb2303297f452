"""Downloads of a file that grows: the range that was asked for and no byte more; a file that was cut is an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import StreamingResponse

from bioverify.gateway import downloads
from bioverify.gateway.downloads import download
from bioverify.gateway.problems import ProblemError


def read(response: StreamingResponse) -> bytes:
    """All that is sent. A reader that gets nowhere fails here instead of going on for ever."""

    async def pieces() -> bytes:
        async with asyncio.timeout(10):
            return b"".join([piece async for piece in cast("AsyncIterator[bytes]", response.body_iterator)])

    return asyncio.run(pieces())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=40), st.integers(0, 12), st.integers(0, 45), st.none() | st.integers(0, 45))
def test_a_range_is_those_bytes_of_what_is_good_and_nothing_that_was_written_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bytes, more: int, first: int, last: int | None
) -> None:
    monkeypatch.setattr(downloads, "_PIECE_BYTES", 7)
    file = tmp_path / "results"
    file.write_bytes(good + b"x" * more)
    asked = f"bytes={first}-{'' if last is None else last}"
    expected = good[first : None if last is None else last + 1]
    if not expected:
        with pytest.raises(ProblemError, match="none of them"):
            download(file, len(good), '"e"', asked, "r.jsonl")
        return
    response = download(file, len(good), '"e"', asked, "r.jsonl")
    assert (response.status_code, read(response)) == (206, expected)
    assert response.headers["content-length"] == str(len(expected))
    assert response.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(good)}"


@pytest.mark.parametrize(
    "asked", [None, "", "bytes=", "bytes=-3", "bytes=0-1,3-4", "lines=0-1", "bytes=" + "9" * 30 + "-"]
)
def test_a_range_of_another_form_is_the_whole(tmp_path: Path, asked: str | None) -> None:
    file = tmp_path / "results"
    file.write_bytes(b"0123456789 and more")
    response = download(file, 10, '"e"', asked, "r.jsonl")
    assert (response.status_code, read(response), response.headers["content-length"]) == (200, b"0123456789", "10")


def test_nothing_so_far_is_an_empty_answer_whether_there_is_a_file_or_not(tmp_path: Path) -> None:
    assert read(download(tmp_path / "results", 0, '"e"', None, "r.jsonl")) == b""


@pytest.mark.parametrize(
    ("left", "asked", "early"), [(0, None, 20), (7, None, 13), (7, "bytes=5-", 13), (7, "bytes=9-12", 4)]
)
def test_a_file_that_was_cut_from_outside_breaks_the_answer_and_is_not_waited_for(
    tmp_path: Path, left: int, asked: str | None, early: int
) -> None:
    file = tmp_path / "results"
    file.write_bytes(b"x" * left)
    response = download(file, 20, '"e"', asked, "r.jsonl")
    with pytest.raises(OSError, match=rf"results ends {early} bytes early"):
        read(response)
