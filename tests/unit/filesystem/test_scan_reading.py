"""read_files: the content that was there, or word that it moved meanwhile."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packstone.filesystem import _scan
from packstone.filesystem.metadata import stat_of

LIMIT = 1 << 20


def read(fd: int, name: bytes, size: int, limit: int = LIMIT) -> Any:
    return _scan.read_files([(fd, name, size)], limit)[0]


@pytest.mark.parametrize("size", [0, 1, 2, 511, 4096, 65536, 65537, 300_000, LIMIT])
@pytest.mark.parametrize("hint", ["right", "zero", "short", "long", "negative"])
def test_content_comes_back_whatever_size_was_expected(
    here: int, tmp_path: Path, size: int, hint: str
) -> None:
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    expected = {
        "right": size,
        "zero": 0,
        "short": max(size - 1, 0),
        "long": size + 1000,
        "negative": -5,
    }[hint]
    row, data, stable, xattrs = read(here, b"f", expected)
    assert data == content
    assert stable is True
    assert xattrs is None
    assert row == stat_of(os.stat(tmp_path / "f"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(size=st.integers(0, 3000), expected=st.integers(0, 3000), limit=st.integers(0, 3000))
def test_never_more_than_the_limit(
    here: int, tmp_path: Path, size: int, expected: int, limit: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    row, data, stable, _ = read(here, b"f", expected, limit)
    assert data == content[:limit]
    assert stable is (size <= limit)
    assert row[3] == size


def test_many_files_in_order_and_failures_among_them(here: int, tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / f"f{i}").write_bytes(b"%d" % i)
    (tmp_path / "d").mkdir()
    os.symlink("f1", tmp_path / "link")
    items = [(here, b"f%d" % i, 3) for i in range(300)]
    items[7] = (here, b"missing", 3)
    items[8] = (here, b"d", 3)
    items[9] = (here, b"link", 3)
    items[10] = (-1, b"f10", 3)
    results = _scan.read_files(items, LIMIT)
    assert [results[i] for i in (7, 8, 9, 10)] == [
        errno.ENOENT,
        errno.ELOOP,
        errno.ELOOP,
        errno.EBADF,
    ]
    for i in (0, 6, 11, 299):
        assert results[i][1] == b"%d" % i  # type: ignore[index]


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_replaced_a_file_is_refused_at_once(
    here: int, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            monkeypatch.chdir(tmp_path)  # the path of a socket is short
            sock.bind("f")
    else:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        os.mknod(path, 0o20600, os.makedev(1, 5))
    began = time.monotonic()
    assert isinstance(read(here, b"f", 100), int)
    assert time.monotonic() - began < 2


def test_a_file_of_proc_is_read_to_its_end() -> None:
    if not os.path.exists("/proc/self/status"):
        pytest.skip("needs /proc")
    fd = os.open("/proc/self", os.O_RDONLY)
    try:
        row, data, stable, _ = read(fd, b"status", 0)
    finally:
        os.close(fd)
    assert row[3] == 0
    assert data.startswith(b"Name:") and data.endswith(b"\n")
    assert stable is False  # size 0 and content do not agree: the caller decides


def test_unreadable_files_give_eacces(open_place: Path, ordinary: Callable[..., None]) -> None:
    (open_place / "secret").write_bytes(b"x")
    (open_place / "secret").chmod(0)

    def work() -> None:
        fd = os.open(open_place, os.O_RDONLY)
        assert read(fd, b"secret", 1) == errno.EACCES
        os.close(fd)

    ordinary(work)


def test_files_of_others_are_read_without_noatime(
    open_place: Path, ordinary: Callable[..., None]
) -> None:
    """O_NOATIME is refused for them; the batch goes on without."""
    for i in range(3):
        (open_place / f"f{i}").write_bytes(b"data")

    def work() -> None:
        fd = os.open(open_place, os.O_RDONLY)
        results = _scan.read_files([(fd, b"f%d" % i, 4) for i in range(3)], 10)
        assert [result[1] for result in results] == [b"data"] * 3  # type: ignore[index]
        os.close(fd)

    ordinary(work)


def test_own_atime_is_left_alone(here: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    os.utime(tmp_path / "f", ns=(7, 7))
    read(here, b"f", 4)
    if hasattr(os, "O_NOATIME"):
        assert os.stat(tmp_path / "f").st_atime_ns == 7


def test_attributes_come_with_the_content(here: int, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"data")
    values = {b"user.b": b"", b"user.a": b"\0\xff" * 500, b"user.c": b"x" * 3000}
    try:
        for name, value in values.items():
            os.setxattr(path, name, value)
    except (AttributeError, OSError):
        pytest.skip("no extended attributes here")
    found = [pair for pair in read(here, b"f", 4)[3] if pair[0].startswith(b"user.")]
    assert found == sorted(values.items())


def test_a_change_while_reading_is_seen(here: int, tmp_path: Path) -> None:
    """A thread appends all the time: what is called stable is what was there at one time."""
    path = tmp_path / "growing"
    begun = 500_000  # lines: long enough to be caught in the middle
    path.write_bytes(b"".join(b"%07d\n" % i for i in range(begun)))
    stop = threading.Event()

    def append() -> None:
        with open(path, "ab", buffering=0) as file:
            count = begun
            while not stop.is_set():
                file.write(b"%07d\n" % count)
                count += 1
                if count > 2 * begun:
                    time.sleep(0.0005)

    thread = threading.Thread(target=append)
    thread.start()
    unstable = 0
    try:
        deadline = time.monotonic() + 20
        while unstable == 0 and time.monotonic() < deadline:
            row, data, stable, _ = read(here, b"growing", path.stat().st_size, 1 << 26)
            if stable:
                assert len(data) == row[3]
            else:
                unstable += 1
            lines = data.split(b"\n")[:-1]
            assert lines[begun - 2 :] == [b"%07d" % i for i in range(begun - 2, len(lines))]
    finally:
        stop.set()
        thread.join()
    assert unstable > 0


@pytest.mark.parametrize("change", ["same size", "truncate", "attributes", "mode"])
def test_each_kind_of_change_is_seen(here: int, tmp_path: Path, change: str) -> None:
    """Changes race with reads of a file that is long enough to be caught in the middle."""
    path = tmp_path / "f"
    size = 8 << 20
    path.write_bytes(b"a" * size)
    stop = threading.Event()

    def disturb() -> None:
        fd = os.open(path, os.O_RDWR)
        turn = 0
        while not stop.is_set():
            turn += 1
            if change == "same size":
                os.pwrite(fd, b"%08d" % turn, size // 2)
            elif change == "truncate":
                os.ftruncate(fd, size - 1 - turn % 2)
            elif change == "mode":
                os.fchmod(fd, 0o600 + turn % 2)
            else:
                os.utime(fd, ns=(0, turn))
        os.close(fd)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if read(here, b"f", size, size)[2] is False:
                return
        pytest.fail("no change was seen in 20 s")
    finally:
        stop.set()
        thread.join()


def test_files_replaced_while_reading_never_hang_or_mislead(here: int, tmp_path: Path) -> None:
    """A thread exchanges a file for a fifo, a link, nothing: content is the file's or an errno."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"SECRET")
    stop = threading.Event()

    def disturb() -> None:
        name = tmp_path / "f"
        while not stop.is_set():
            for make in (
                lambda: name.write_bytes(b"content"),
                lambda: os.mkfifo(name),
                lambda: os.symlink(secret, name),
            ):
                make()
                name.unlink()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(300):
            for result in _scan.read_files([(here, b"f", 7)] * 20, 100):
                if isinstance(result, int):
                    assert result in (errno.ENOENT, errno.ELOOP)
                else:
                    assert b"content".startswith(result[1])
    finally:
        stop.set()
        thread.join()


def test_wrong_items_are_refused(here: int) -> None:
    for items in ([(here, "text", 1)], [(here, b"a\0b", 1)], [here], [(here, b"a")], 3):
        with pytest.raises((TypeError, ValueError)):
            _scan.read_files(items, 10)  # type: ignore[arg-type]


def test_workers_read_at_the_same_time(here: int, tmp_path: Path) -> None:
    for i in range(200):
        (tmp_path / f"f{i}").write_bytes(b"%d" % i * 100)
    items = [(here, b"f%d" % i, 300) for i in range(200)]
    expected = _scan.read_files(items, LIMIT)
    failures: list[object] = []

    def work() -> None:
        for _ in range(20):
            if _scan.read_files(items, LIMIT) != expected:
                failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
