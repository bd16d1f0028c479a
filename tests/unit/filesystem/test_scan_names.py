"""list_names, open_directory, stat_names, stat_slice: names are bytes, nothing is lost."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packstone.filesystem import _scan
from packstone.filesystem.metadata import stat_of
from packstone.model import Stat

ODD_NAMES = [
    b"new\nline",
    b"esc\x1b[31mred",
    b"\xff\xfe not UTF-8",
    b"\xe9",
    "e\u0301".encode(),
    "\u00e9".encode(),
    "\u202egpj.exe".encode(),
    b"-rf",
    b" ",
    b"...",
    b"x" * 255,
    b"\xff" * 255,
    b"abcdefgh",
    b"abcdefghi",
    b"abcdefg",
    b"abcdefgh\x01",
]
ONE_BYTE_NAMES = [bytes([byte]) for byte in range(1, 256) if bytes([byte]) not in b"./"]


def touch(fd: int, name: bytes, content: bytes = b"") -> None:
    file = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd)
    os.write(file, content)
    os.close(file)


def test_all_one_byte_names_come_back_sorted(here: int) -> None:
    for name in ONE_BYTE_NAMES:
        touch(here, name)
    assert _scan.list_names(here) == sorted(ONE_BYTE_NAMES)


def test_odd_names_come_back_sorted_with_their_stats(here: int) -> None:
    for number, name in enumerate(ODD_NAMES):
        touch(here, name, b"x" * number)
    names = _scan.list_names(here)
    assert names == sorted(ODD_NAMES)
    rows = _scan.stat_names(here, names)
    assert [row[3] for row in rows if not isinstance(row, int)] == [
        ODD_NAMES.index(name) for name in names
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    names=st.sets(
        st.binary(min_size=1, max_size=40).filter(
            lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
        ),
        max_size=40,
    )
)
def test_any_names(here: int, tmp_path: Path, names: set[bytes]) -> None:
    os.mkdir(b"n", dir_fd=here)
    fd = os.open(b"n", os.O_RDONLY, dir_fd=here)
    try:
        for name in names:
            touch(fd, name)
        assert _scan.list_names(fd) == sorted(names)
        for name in names:
            os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
        os.rmdir(b"n", dir_fd=here)


def test_listing_twice_gives_the_same(here: int) -> None:
    for name in (b"b", b"a"):
        touch(here, name)
    assert _scan.list_names(here) == _scan.list_names(here) == [b"a", b"b"]


def test_many_names_are_sorted_like_bytes(here: int) -> None:
    names = [b"%x-%d" % (i * 2654435761 % 2**32, i) for i in range(5_000)]
    for name in names:
        touch(here, name)
    assert _scan.list_names(here) == sorted(names)


def test_listing_what_is_no_directory_fails(here: int) -> None:
    touch(here, b"file")
    fd = os.open(b"file", os.O_RDONLY, dir_fd=here)
    try:
        with pytest.raises(NotADirectoryError):
            _scan.list_names(fd)
    finally:
        os.close(fd)
    with pytest.raises(OSError) as caught:
        _scan.list_names(-1)
    assert caught.value.errno == errno.EBADF


def test_listing_a_removed_directory_fails_instead_of_being_empty(here: int) -> None:
    os.mkdir(b"gone", dir_fd=here)
    fd = os.open(b"gone", os.O_RDONLY, dir_fd=here)
    try:
        os.rmdir(b"gone", dir_fd=here)
        if os.uname().sysname == "Linux":
            with pytest.raises(FileNotFoundError):
                _scan.list_names(fd)
    finally:
        os.close(fd)


def test_stat_names_gives_the_fields_of_model_stat(here: int, tmp_path: Path) -> None:
    touch(here, b"file", b"12345")
    os.symlink(b"nowhere", b"link", dir_fd=here)
    os.mkfifo(b"fifo", dir_fd=here)
    os.mkdir(b"dir", dir_fd=here)
    os.utime(b"file", ns=(0, -1_500_000_001), dir_fd=here)
    names = [b"file", b"link", b"fifo", b"dir"]
    rows = _scan.stat_names(here, names)
    for name, row in zip(names, rows, strict=True):
        expected = stat_of(os.stat(name, dir_fd=here, follow_symlinks=False))
        assert row == expected
        assert isinstance(row, tuple)
        assert len(row) == len(Stat._fields)
    file = rows[0]
    assert isinstance(file, tuple)
    assert Stat(*file).mtime_ns == -1_500_000_001


@pytest.mark.parametrize("seconds", [0, -1, 2**31, 2**33, -(2**31)])
def test_times_are_what_os_stat_says(here: int, seconds: int) -> None:
    touch(here, b"file")
    os.utime(b"file", ns=(0, seconds * 10**9 + 123), dir_fd=here)
    assert _scan.stat_names(here, [b"file"]) == [stat_of(os.stat(b"file", dir_fd=here))]


def test_names_that_fail_give_their_errno(here: int) -> None:
    touch(here, b"a")
    rows = _scan.stat_names(here, [b"a", b"missing", b"a/b", b"x" * 256])
    assert isinstance(rows[0], tuple)
    assert rows[1:] == [errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG]


def test_stat_slice_says_where_directories_and_failures_are(here: int) -> None:
    for name in (b"a", b"c"):
        touch(here, name)
    for name in (b"b", b"d"):
        os.mkdir(name, dir_fd=here)
    os.symlink(b"b", b"e", dir_fd=here)
    names = [b"a", b"b", b"c", b"d", b"e", b"missing"]
    rows, directories, failures = _scan.stat_slice(here, names)
    assert rows == _scan.stat_names(here, names)
    assert (directories, failures) == ([1, 3], [5])
    assert _scan.stat_slice(here, []) == ([], [], [])


def test_names_must_be_bytes(here: int) -> None:
    for names in (["text"], [1], [b"nul\0inside"], 5):
        with pytest.raises((TypeError, ValueError)):
            _scan.stat_names(here, names)  # type: ignore[arg-type]


def test_open_directory_opens_and_lists(here: int) -> None:
    os.mkdir(b"d", dir_fd=here)
    sub = os.open(b"d", os.O_RDONLY, dir_fd=here)
    touch(sub, b"z")
    touch(sub, b"y")
    os.close(sub)
    fd, row, names = _scan.open_directory(here, b"d")
    try:
        assert names == [b"y", b"z"]
        assert row == stat_of(os.fstat(fd))
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "missing"])
def test_open_directory_refuses_everything_else(here: int, kind: str) -> None:
    os.mkdir(b"d", dir_fd=here)
    touch(here, b"file")
    os.symlink(b"d", b"link", dir_fd=here)
    os.mkfifo(b"fifo", dir_fd=here)
    began = time.monotonic()
    with pytest.raises(OSError):
        _scan.open_directory(here, kind.encode())
    assert time.monotonic() - began < 2


def test_reading_a_directory_leaves_its_atime(
    here: int, held: Callable[[Path], int], tmp_path: Path
) -> None:
    os.mkdir(b"d", dir_fd=here)
    os.utime(b"d", ns=(5, 5), dir_fd=here)
    fd, _, _ = _scan.open_directory(here, b"d")
    os.close(fd)
    if hasattr(os, "O_NOATIME"):
        assert os.stat(b"d", dir_fd=here).st_atime_ns == 5


def test_stat_slice_in_threads_while_names_change(here: int) -> None:
    """The names handed in may be changed by others meanwhile: only what was there counts."""
    import threading

    names = [b"n%d" % i for i in range(500)]
    for name in names:
        touch(here, name)
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            names.append(b"extra")
            names.pop()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(50):
            rows = _scan.stat_names(here, names)
            assert all(isinstance(row, tuple) and stat.S_ISREG(row[0]) for row in rows[:500])
    finally:
        stop.set()
        thread.join()
