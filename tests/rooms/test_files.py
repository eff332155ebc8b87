"""Files that appear at once, with the user's modes; leftovers of killed writers; reading with a bound."""

from __future__ import annotations

import os
import signal
import stat
from multiprocessing import get_context
from pathlib import Path

import pytest

from byzopt.files import clear_directories, clear_leftovers, read, write_atomically, write_directory


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o027])
def test_files_and_directories_have_the_modes_of_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", b"a", memoryview(b"b"))
        write_directory(tmp_path / "folder", {"inside": b"c"})
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_bytes() == b"ab"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
    assert (tmp_path / "folder" / "inside").read_bytes() == b"c"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_directory_appears_whole_or_not_at_all_and_replaces_another_only_where_asked(tmp_path):
    place = tmp_path / "folder"
    write_directory(place, {"a": b"1"})
    for contents in ({"b": b"2"}, {"b": b"2", "no/such": b""}):
        with pytest.raises(OSError):
            write_directory(place, contents)
    with pytest.raises(OSError):
        write_directory(place, {"b": b"2", "no/such": b""}, replace=True)
    assert {path.name for path in tmp_path.iterdir()} == {"folder"}
    assert {path.name for path in place.iterdir()} == {"a"}
    write_directory(place, {"b": b"2"}, replace=True)
    (tmp_path / ".folder.0123abcd").mkdir()
    clear_directories(place)
    assert {path.name for path in tmp_path.iterdir()} == {"folder"}
    assert {path.name for path in place.iterdir()} == {"b"}


@pytest.mark.parametrize("name", ["x" * 255, "[a]*?", "ü" * 100, os.fsdecode(b"\xff.pt")])
def test_any_name_that_the_system_takes_is_written(name, tmp_path):
    write_atomically(tmp_path / name, b"here")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"here"]


def _write(folder: Path, told) -> None:
    import byzopt.files

    byzopt.files.os.fsync = lambda handle: (told.set(), signal.pause())
    write_atomically(folder / "checkpoint.pt", b"new")


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_is_not(tmp_path):
    context = get_context("fork")
    (tmp_path / ".checkpoint.pt.swp").write_bytes(b"an editor's")
    children = []
    for _ in range(2):
        told = context.Event()
        child = context.Process(target=_write, args=(tmp_path, told))
        child.start()
        assert told.wait(60)
        children.append(child)
    dead, alive = children
    os.kill(dead.pid, signal.SIGKILL)
    dead.join()
    assert len(list(tmp_path.iterdir())) == 3
    clear_leftovers(tmp_path, "other")
    assert len(list(tmp_path.iterdir())) == 3
    clear_leftovers(tmp_path, "checkpoint.pt")
    assert len(list(tmp_path.iterdir())) == 2
    os.kill(alive.pid, signal.SIGKILL)
    alive.join()
    clear_leftovers(tmp_path, "checkpoint.pt")
    assert [path.name for path in tmp_path.iterdir()] == [".checkpoint.pt.swp"]


def test_what_is_no_file_or_too_large_is_refused_and_not_waited_for(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        read(tmp_path / "file", 4)
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, tmp_path / "nothing", Path("/dev/zero")):
        with pytest.raises(OSError):
            read(place, 10)
