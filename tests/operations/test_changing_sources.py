"""Sources that change while they are read (row N3): consistent, or flagged and named; no hang.

What is meant by consistent: a file is stored as it was at one moment. A writer in a thread
replaces all of a file's bytes at once, so that a mixture of two states is recognised.
"""

from __future__ import annotations

import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import packstone
from packstone.filesystem import _scan
from packstone.model import Entry, Flag
from packstone.operations import files

SMALL, LONG = 200_000, 3 << 20
TRIALS = int(os.environ.get("PACKSTONE_TEST_CHANGE_TRIALS", "4"))


def content(size: int, number: int) -> bytes:
    """One state of the file: recognisable in every block."""
    return (b"%07d\n" % number) * (size // 8)


def append(path: Path, number: int) -> None:
    with open(path, "ab") as file:
        file.write(b"%07d\n" % number * 100)


def truncate(path: Path, number: int) -> None:
    size = path.stat().st_size
    os.truncate(path, size // 2 if size > 1000 else SMALL)


def rewrite(path: Path, number: int) -> None:
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(content(size, number))


def rename_over(path: Path, number: int) -> None:
    other = path.with_name("new")
    other.write_bytes(content(path.stat().st_size if path.exists() else SMALL, number))
    os.rename(other, path)


def become_fifo(path: Path, number: int) -> None:
    os.mkfifo(path.with_name("pipe"))
    os.rename(path.with_name("pipe"), path)
    time.sleep(0.0005)
    rename_over(path, number)


def become_link(path: Path, number: int) -> None:
    os.symlink("/etc/passwd", path.with_name("link"))
    os.rename(path.with_name("link"), path)
    time.sleep(0.0005)
    rename_over(path, number)


def become_directory(path: Path, number: int) -> None:
    os.unlink(path)
    path.mkdir()
    time.sleep(0.0005)
    path.rmdir()
    path.write_bytes(content(SMALL, number))


def delete(path: Path, number: int) -> None:
    path.unlink()
    time.sleep(0.0005)
    path.write_bytes(content(SMALL, number))


CHANGES = [
    append, truncate, rewrite, rename_over, become_fifo, become_link, become_directory, delete,
]  # fmt: skip


class Writer(threading.Thread):
    """Changes a file over and over until it is stopped."""

    def __init__(self, change: Callable[[Path, int], None], path: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self._change = change
        self._path = path
        self._ended = threading.Event()
        self._pause = random.Random(seed)
        self.count = 0

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self._change(self._path, self.count)
            except FileNotFoundError:
                pass
            self.count += 1
            time.sleep(self._pause.random() * 0.002)

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self.join()


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Run `function` in a thread; fail, instead of hanging, when it takes longer."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(function())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert result, f"still not done after {seconds} seconds"
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


@pytest.mark.parametrize("size", [SMALL, LONG], ids=["small", "long"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_moves(
    repository: packstone.Repository, source: Path, change: Callable[[Path, int], None], size: int
) -> None:
    path = source / "moving"
    path.write_bytes(content(size, 9_999_999))
    others = {f"still {at}": random.Random(at).randbytes(5000) for at in range(5)}
    for name, data in others.items():
        (source / name).write_bytes(data)
    with Writer(change, path, size) as writer:
        for _ in range(TRIALS):
            before = writer.count
            while writer.count == before:
                time.sleep(0.0002)
            result = within(20, lambda: repository.snapshot([path, *map(source.joinpath, others)]))
            judge(
                repository, result, path, steady=change in (rename_over, become_fifo, become_link)
            )
            for name, data in others.items():
                with repository.open_file("latest", os.fsencode(source / name)) as stored:
                    assert stored.read() == data
    assert repository.check(read_data=True).errors == []


def judge(
    repository: packstone.Repository, result: packstone.SnapshotResult, path: Path, *, steady: bool
) -> None:
    """The file is there whole, or flagged and named, or gone and named."""
    raw = os.fsencode(path)
    named = [problem.path for problem in result.errors]
    assert set(named) <= {raw}
    entry = find(repository, path)
    if entry is None:
        assert named == [raw], "a file that is missing must be named"
        return
    flags = entry.extras.flags if entry.extras else 0
    assert bool(flags) == bool(named), (flags, result.errors)
    if flags & Flag.UNREADABLE:
        assert entry.content is None
        return
    if not stat.S_ISREG(entry.mode):
        assert steady or stat.S_ISDIR(entry.mode)
        return
    with repository.open_file("latest", raw) as stored:
        data = stored.read()
    assert len(data) == entry.size, "an entry must describe what is stored for it"
    if not flags and steady:
        assert len({data[at : at + 8] for at in range(0, len(data), 8)}) <= 1, "a mixture"


def find(repository: packstone.Repository, path: Path) -> Entry | None:
    rows = repository.ls("latest", os.fsencode(path.parent))
    return next((row.entry for row in rows if row.path == os.fsencode(path)), None)


# -- the same, at an exact moment -----------------------------------------------------------


@pytest.fixture
def while_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Say what is to happen in the middle of every reading of a file."""

    def arrange(action: Callable[[], None]) -> None:
        read_into, open_regular = files.read_into, files.open_regular

        class Scan:
            @staticmethod
            def read_files(items: Any, limit: int) -> Any:
                # The kernel's two fstats around one read cannot be parted from here: what it
                # would have found is put in the place of its answer.
                before = _scan.read_files(items, limit)
                action()
                after = _scan.read_files(items, limit)
                return [
                    old if isinstance(old, int) else (*old[:2], old[2] and old[0] == new[0], old[3])
                    for old, new in zip(before, after, strict=True)
                ]

        def read(fd: int, view: memoryview, offset: int) -> int:
            if offset == 0 or len(view) < 4 << 20:
                action()
            return read_into(fd, view, offset)

        monkeypatch.setattr(files, "read_into", read)
        monkeypatch.setattr(files, "_scan", Scan)
        monkeypatch.setattr(files, "open_regular", open_regular)

    return arrange


@pytest.mark.parametrize("size", [SMALL, LONG], ids=["small", "long"])
@pytest.mark.parametrize("times", [1, 2, 3, 50])
def test_two_more_tries(
    repository: packstone.Repository,
    source: Path,
    while_reading: Callable[[Callable[[], None]], None],
    size: int,
    times: int,
) -> None:
    """A change or two during the reading cost another reading; a third is flagged."""
    path = source / "moving"
    path.write_bytes(content(size, 0))
    done = 0

    def change() -> None:
        nonlocal done
        if done < times:
            done += 1
            rewrite(path, done)
            os.utime(path, ns=(done, done))

    while_reading(change)
    result = repository.snapshot([source])
    entry = find(repository, path)
    assert entry is not None
    if times <= 2:
        assert result.errors == []
        assert entry.extras is None
        with repository.open_file("latest", os.fsencode(path)) as stored:
            assert stored.read() == content(size, times)
        assert entry.mtime_ns == path.stat().st_mtime_ns
    else:
        assert [problem.path for problem in result.errors] == [os.fsencode(path)]
        assert "changed while it was read" in result.errors[0].message
        assert entry.extras is not None and entry.extras.flags == Flag.CHANGED


def test_a_flagged_file_is_read_again(
    settled: packstone.Repository,
    source: Path,
    while_reading: Callable[[Callable[[], None]], None],
) -> None:
    path = source / "moving"
    path.write_bytes(content(SMALL, 0))
    moves = iter(range(1, 4))

    def change() -> None:
        if (number := next(moves, None)) is not None:
            os.utime(path, ns=(number, number))

    while_reading(change)
    assert len(settled.snapshot([source]).errors) == 1
    result = settled.snapshot([source])
    assert result.errors == []
    entry = find(settled, path)
    assert entry is not None and entry.extras is None


@pytest.mark.parametrize("size", [SMALL, LONG], ids=["small", "long"])
@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "nothing"])
def test_something_else_between_look_and_open(
    repository: packstone.Repository,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    kind: str,
) -> None:
    """Seen as a file, then replaced: opening a fifo would wait for ever, a link lead outside."""
    from packstone.operations import build_tree

    path = source / "moving"
    path.write_bytes(content(size, 0))
    outside = source.parent / "outside"
    outside.write_bytes(b"secret" * (size // 6))
    walk = build_tree.walk

    def replacing(*arguments: Any) -> Iterator[Any]:
        for event in walk(*arguments):
            if b"moving" in getattr(event, "names", ()):
                path.unlink()
                if kind == "fifo":
                    os.mkfifo(path)
                elif kind == "link":
                    os.symlink(outside, path)
                elif kind == "directory":
                    path.mkdir()
            yield event

    with monkeypatch.context() as patch:
        patch.setattr(build_tree, "walk", replacing)
        result = within(10, lambda: repository.snapshot([source]))
    assert [problem.path for problem in result.errors] == [os.fsencode(path)]
    entry = find(repository, path)
    assert entry is None or entry.content is None
    assert (entry is None) == (kind == "nothing")


def test_a_directory_that_loses_names(
    repository: packstone.Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed, then gone: each is named, the rest is stored."""
    from packstone.operations import build_tree

    for at in range(50):
        (source / f"file {at:02}").write_bytes(b"%d" % at)
        (source / f"directory {at:02}").mkdir()
    walk = build_tree.walk

    def vanishing(*arguments: Any) -> Iterator[Any]:
        for event in walk(*arguments):
            yield event
            if hasattr(event, "names") and b"file 00" in event.names:
                for at in range(0, 50, 7):
                    (source / f"file {at:02}").unlink()
                    (source / f"directory {at:02}").rmdir()

    # The names of the slice are known by then, the files not read, the directories not entered.
    monkeypatch.setattr(build_tree, "walk", vanishing)
    result = repository.snapshot([source])
    monkeypatch.undo()
    gone = {os.fsencode(source / f"{kind} {at:02}") for kind in ("file", "directory")
            for at in range(0, 50, 7)}  # fmt: skip
    assert {problem.path for problem in result.errors} <= gone
    assert len(result.errors) >= 8
    names = {row.path for row in repository.ls("latest", os.fsencode(source))}
    assert {os.fsencode(path) for path in source.iterdir()} <= names
    assert repository.check(read_data=True).errors == []
