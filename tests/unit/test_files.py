"""Whatever kills a writer, and at whichever byte: what was whole before is whole after."""

from __future__ import annotations

import contextlib
import errno
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.files import append_lines, making_folder, read_lines, replace_file, replacing_file, stamp_of
from tests.fixtures import killing
from tests.fixtures.servers import ROOT

LINES = st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"") + b"\n"), max_size=8)
REPLACE = """
import pathlib
import sys
from bioverify.files import replace_file
replace_file(pathlib.Path(sys.argv[1]), "new" * 1000)
"""
APPEND = """
import pathlib
import sys
from bioverify.files import append_lines
append_lines(pathlib.Path(sys.argv[1]), b"".join(b"%d\\n" % n for n in range(100, 200)))
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "lines"


@given(before=LINES, after=LINES, data=st.data())
def test_of_a_file_cut_at_any_byte_all_whole_lines_are_kept_and_the_next_append_follows_them(
    path: Path, before: list[bytes], after: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(before)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = [line for place, line in enumerate(before) if len(b"".join(before[: place + 1])) <= cut]
    assert list(read_lines(path)) == kept
    assert append_lines(path, b"".join(after), sync_to_disk=False) == len(b"".join(kept))
    assert path.read_bytes() == b"".join(kept + after)


def test_a_cut_line_longer_than_a_block_is_taken_off_too(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"first\n" + b"x" * 200_000)
    append_lines(path, b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"


def test_of_an_append_that_is_killed_at_any_byte_the_lines_before_it_stay(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    old, new = b"first\n" * 3, [b"%d\n" % n for n in range(100, 200)]
    with killing.script(APPEND, tmp_path) as append:
        for at_byte in range(len(old), len(old) + 400, 3):
            path.write_bytes(old)
            assert append.run(path, at_byte=at_byte) == -signal.SIGXFSZ
            assert path.stat().st_size == at_byte
            kept = old + b"".join(new[: (at_byte - len(old)) // 4])
            assert b"".join(read_lines(path)) == kept
            append_lines(path, b"last\n")
            assert path.read_bytes() == kept + b"last\n"


@pytest.mark.parametrize("cut_line", [b"", b"cut"])
def test_an_append_that_a_full_disk_refuses_leaves_the_whole_lines_as_they_were(
    tmp_path: Path, cut_line: bytes
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"first\n" * 3 + cut_line)
    with killing.script(APPEND, tmp_path) as append:
        assert append.run(path, full_at=100) == errno.EFBIG
    assert path.read_bytes() == b"first\n" * 3


def test_a_replacement_that_is_killed_at_any_step_or_byte_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "state"
    replace_file(path, "old")
    with killing.script(REPLACE, tmp_path) as replace:
        assert replace.run(path, at_byte=1000) == -signal.SIGXFSZ
        assert path.read_text() == "old"
        # Before it opens the file beside, and before it renames it.
        assert [(step, path.read_text()) for step in replace.at_every_step(path)] == [(1, "old"), (2, "old")]
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("state", "new" * 1000)]


def test_a_replacement_that_a_full_disk_refuses_leaves_the_old_content_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "state"
    replace_file(path, "old")
    with killing.script(REPLACE, tmp_path) as replace:
        assert replace.run(path, full_at=1000) == errno.EFBIG
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("state", "old")]


def test_an_exception_while_it_is_written_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "state"
    replace_file(path, "old")
    with contextlib.suppress(ZeroDivisionError), replacing_file(path) as file:
        file.write(b"new")
        1 / 0  # noqa: B018
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("state", "old")]


def test_writers_of_one_file_at_the_same_time_each_write_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    replace_file(path, "0" * 5000)
    script = f"""
import pathlib, sys
from bioverify.files import replace_file
for _ in range(30):
    replace_file(pathlib.Path({str(path)!r}), sys.argv[1] * 5000)
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, digit], cwd=ROOT) for digit in "123"]
    while any(writer.poll() is None for writer in writers):
        text = path.read_text()
        assert text == text[0] * 5000
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_private_file_is_its_owners_alone_whatever_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    (tmp_path / ".secret.partial").write_text("of a killed writer")
    (tmp_path / ".secret.partial").chmod(0o644)
    replace_file(path, "new", private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_written_does_not_follow_a_link_that_somebody_laid_beside(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / ".state.partial").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(tmp_path / "state", "new")
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_a_stamp_tells_a_file_that_was_written_replaced_or_whose_link_was_turned(tmp_path: Path) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_text("one")
    link.symlink_to("a")
    stamps = [stamp_of(link), stamp_of(link)]
    assert stamps[0] == stamps[1]
    replace_file(path, "two")
    stamps.append(stamp_of(link))
    append_lines(path, b"more\n")
    stamps.append(stamp_of(link))
    (tmp_path / "b").write_text("two")
    link.unlink()
    link.symlink_to("b")
    stamps.append(stamp_of(link))
    assert len(set(stamps)) == 4


def test_a_folder_has_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "models" / "small"
    with contextlib.suppress(ZeroDivisionError), making_folder(target) as folder:
        (folder / "half").touch()
        _ = 1 / 0
    assert list(target.parent.iterdir()) == []
    with making_folder(target) as folder:
        (folder / "whole").touch()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_of_two_that_make_a_folder_the_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "small"
    with making_folder(target) as late:
        (late / "late").touch()
        with making_folder(target) as early:
            (early / "early").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert [path.name for path in target.iterdir()] == ["early"]
