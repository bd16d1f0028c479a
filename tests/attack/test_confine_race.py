"""Row X2: somebody exchanges directories for links while a restore writes through them.

A thread swaps a directory of the target with a symbolic link to a directory outside, in one
step, thousands of times. Whatever the restore reports, nothing outside may change.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from restoring import DIRECTORY, FIFO, LINK, entry, file_entry

from packstone.errors import TargetError
from packstone.filesystem import target_directory
from packstone.filesystem.confine import OPEN_DIRECTORIES, Target

SWAPS = int(os.environ.get("PACKSTONE_RACE_SWAPS", "2000"))
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def exchange(one: Path, other: Path) -> None:
    """Swap two names in one step (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )
    if result != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


class Canary:
    """A tree outside of the target that must stay as it is, to the last attribute."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "inner").mkdir(parents=True)
        (path / "file").write_bytes(b"canary")
        (path / "inner" / "file").write_bytes(b"canary")
        (path / "inner").chmod(0o711)
        self.before = self.look()

    def look(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for path, directories, files in os.walk(self.path):
            for name in [".", *directories, *files]:
                each = os.path.join(path, name)
                status = os.lstat(each)
                found[each] = (
                    status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns,
                    status.st_ctime_ns, status.st_ino, status.st_nlink, status.st_size,
                )  # fmt: skip
        return found

    def check(self) -> None:
        assert self.look() == self.before


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "outside")


@contextmanager
def swapping(place: Path, link: Path, swaps: int) -> Iterator[Callable[[], bool]]:
    """Swap `place` and `link` in a thread; gives a function that says whether it still does."""
    try:
        exchange(place, link)
        exchange(place, link)
    except (AttributeError, OSError):
        pytest.skip("names cannot be swapped in one step here")
    stop = threading.Event()

    aim = os.readlink(link)

    def swap() -> None:
        for number in range(swaps):
            if stop.is_set():
                return
            try:
                exchange(place, link)
                if not place.is_symlink() and not link.is_symlink():
                    # a restore that may replace has put a directory where the link was
                    os.rename(link, link.with_name(f"away{number}"))
                    os.symlink(aim, link)
            except OSError:
                pass  # just between an unlink and a mkdir

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield thread.is_alive
    finally:
        stop.set()
        thread.join()


def write_everything(target: Target, above: object, turn: int, made: set[str]) -> None:
    """One of each kind through a directory that is opened anew, and what comes of it."""
    data = b"attack"
    try:
        directory = target.make_directory(target.root, b"d")
    except TargetError:
        return
    inner = None
    try:
        inner = target.make_directory(directory, b"inner")
        made.add("inner")
    except TargetError:
        pass
    for each in (directory, inner):
        if each is None:
            continue
        target.write_small([(each, file_entry(b"file", data), data)])
        target.make_symlink(each, entry(b"link%d" % turn, LINK, b"t"))
        target.make_fifo(each, entry(b"fifo%d" % turn, FIFO, None))
        target.link(each, b"hard%d" % turn, each, b"file")
        try:
            file = target.create_file(each, b"long%d" % turn, len(data))
        except TargetError:
            continue
        file.write_at(0, data)
        file.finish(file_entry(b"long%d" % turn, data))
    if inner is not None:
        target.finish_directory(inner, entry(b"inner", DIRECTORY | 0o777))
    target.finish_directory(directory, entry(b"d", DIRECTORY | 0o777))
    made.add("d")


@pytest.mark.parametrize("overwrite", ["always", "never"])
def test_directory_swapped_for_a_link_outside(
    tmp_path: Path, canary: Canary, overwrite: str
) -> None:
    """Every time a new target: each directory is met for the first time, in the race."""
    root = tmp_path / "target"
    (root / "d").mkdir(parents=True)
    link = tmp_path / "swap"
    link.symlink_to(canary.path)
    turn = 0
    made: set[str] = set()
    with swapping(root / "d", link, SWAPS) as goes_on:
        while goes_on():
            with Target(os.fsencode(root), overwrite=overwrite) as target:
                write_everything(target, target.root, turn, made)
            turn += 1
    canary.check()
    assert turn > 0


def test_directory_known_before_swapped_later(tmp_path: Path, canary: Canary) -> None:
    """One target: directories are closed and opened again while names change."""
    root = tmp_path / "target"
    link = tmp_path / "swap"
    link.symlink_to(canary.path)
    written = failed = 0
    with Target(os.fsencode(root), overwrite="changed") as target:
        directory = target.make_directory(target.root, b"d")
        inner = target.make_directory(directory, b"inner")
        others = [
            target.make_directory(target.root, b"other%d" % i) for i in range(OPEN_DIRECTORIES + 10)
        ]
        with swapping(root / "d", link, SWAPS * 4) as goes_on:
            while goes_on():
                # enough others in between, so that d and inner are opened again each time
                items = [
                    (each, file_entry(b"file", b"attack"), b"attack")
                    for each in (inner, directory, *others)
                ]
                outcomes = target.write_small(items)
                assert not any(outcomes[2:])
                written += outcomes[:2].count(0)
                failed += 2 - outcomes[:2].count(0)
                target.finish_directory(inner, entry(b"inner", DIRECTORY | 0o777))
    canary.check()
    assert written + failed > 0


def test_file_names_swapped_for_links(tmp_path: Path, canary: Canary) -> None:
    """The final name is a link to a file outside, now and then; it is replaced, not followed."""
    root = tmp_path / "target"
    root.mkdir()
    stop = threading.Event()

    def plant() -> None:
        while not stop.is_set():
            for make in (
                lambda: os.symlink(canary.path / "file", root / "f"),
                lambda: os.symlink(canary.path, root / "d"),
                lambda: os.symlink(canary.path / "inner" / "file", root / "g"),
            ):
                try:
                    make()
                except FileExistsError:
                    pass

    thread = threading.Thread(target=plant)
    thread.start()
    try:
        with Target(os.fsencode(root), overwrite="always") as target:
            for turn in range(300):
                items = [
                    (target.root, file_entry(name, b"attack", 0o100777), b"attack")
                    for name in (b"f", b"g")
                ]
                assert target.write_small(items) == [0, 0]
                target.link(target.root, b"h", target.root, b"f")
                file = target.create_file(target.root, b"f", 6)
                file.write_at(0, b"attack")
                file.finish(file_entry(b"f", b"attack", 0o100777))
                try:
                    directory = target.make_directory(target.root, b"d")
                    target.write_small([(directory, file_entry(b"file", b"x"), b"x")])
                    target.finish_directory(directory, entry(b"d", DIRECTORY | 0o777))
                except TargetError:
                    pass
                if turn % 10 == 0:
                    for name in ("f", "g"):
                        (root / name).unlink(missing_ok=True)
    finally:
        stop.set()
        thread.join()
    canary.check()


@pytest.mark.parametrize("met", ["before", "now"])
@pytest.mark.parametrize("defence", ["whole", "names trusted", "links followed", "none"])
def test_the_attack_works_without_the_defence(
    tmp_path: Path, canary: Canary, met: str, defence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what the swapping thread hopes for happens once the checks are taken away."""
    if defence in ("names trusted", "none"):
        monkeypatch.setattr(target_directory, "_identity", lambda status: 0)
    if defence in ("links followed", "none"):
        monkeypatch.setattr(target_directory, "_OPEN", target_directory._OPEN & ~os.O_NOFOLLOW)
    root = tmp_path / "target"
    with Target(os.fsencode(root), overwrite="never") as target:
        if met == "before":
            directory = target.make_directory(target.root, b"d")
            for i in range(OPEN_DIRECTORIES + 10):
                target.make_directory(target.root, b"other%d" % i)
            (root / "d").rmdir()
        (root / "d").symlink_to(canary.path)
        try:
            if met == "now":
                directory = target.make_directory(target.root, b"d")
            target.write_small([(directory, file_entry(b"new", b"attack"), b"attack")])
        except TargetError:
            pass
    broken = defence == "none" or (defence == "links followed" and met == "now")
    assert (canary.path / "new").exists() == broken


@pytest.mark.soak
@pytest.mark.parametrize("trial", range(200))
def test_many_trials(tmp_path: Path, canary: Canary, trial: int) -> None:
    """Row X2 in full: 200 trials of 10,000 swaps."""
    root = tmp_path / "target"
    (root / "d").mkdir(parents=True)
    link = tmp_path / "swap"
    link.symlink_to(canary.path)
    turn = 0
    made: set[str] = set()
    with swapping(root / "d", link, 10_000) as goes_on:
        while goes_on():
            with Target(os.fsencode(root), overwrite="never") as target:
                write_everything(target, target.root, turn, made)
            turn += 1
    canary.check()
