"""Row X2 where something is there already: patched, given attributes, deleted, in a race.

As test_confine_race: a thread swaps a directory of the target for a link to one outside, while
files in it are compared, cloned and replaced, get their attributes set, or are deleted.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from attack.test_confine_race import SWAPS, Canary, exchange, swapping
from restoring import DIRECTORY, entry, file_entry

from packstone.errors import TargetError
from packstone.filesystem import existing as existing_module
from packstone.filesystem import target_directory
from packstone.filesystem.confine import Target, TargetDirectory
from packstone.filesystem.metadata import MODE

DATA = b"canary"  # what the canary's files hold: with another mode and time they would be fixed


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "outside")


def patch(target: Target, directory: TargetDirectory, name: bytes) -> None:
    """Do with a file what `--overwrite changed` does: compare, set attributes, or replace."""
    wanted = file_entry(name, DATA, 0o100777)
    row = target.stat_names(directory, (name,))[0]
    if row is None or not stat.S_ISREG(row[MODE]):
        return
    existing = target.existing_file(directory, name, row)
    if existing is None:
        return
    with existing:
        target.settle_attributes(directory, wanted, row)
        file = target.create_file(directory, name, len(DATA))
        file.clone(existing)
        file.write_at(0, existing.read(0, 6) or DATA)
        file.finish(wanted)


def attack(target: Target, below: TargetDirectory) -> None:
    """Everything that changes what is there, in a directory and in one below it."""
    inner = target.make_directory(below, b"inner")
    for each in (below, inner):
        patch(target, each, b"file")
        target.is_as_entry(each, entry(b"link", 0o120777, b"x"), (0,) * 11)
        for name in target.names(each):
            if name.startswith((b"extra", b"file")):
                target.remove(each, name, True)
        for name, _ in target.leftovers(each):
            target.discard_leftover(each, name)
    target.finish_directory(inner, entry(b"inner", DIRECTORY | 0o777))
    target.remove(below, b"inner", True)


def fill(directory: Path) -> None:
    """Put in what is to be deleted and patched, as far as it is not there."""
    (directory / "inner" / "extra").mkdir(parents=True, exist_ok=True)
    for name in ("file", "inner/file", "inner/extra/file", "extra"):
        (directory / name).write_bytes(DATA)


def open_target(root: Path) -> Target:
    target = Target(os.fsencode(root), overwrite="changed")
    target.may_remove(lambda *_: True, lambda path, size: None)
    return target


@pytest.mark.parametrize("met", ["each time anew", "before"])
def test_directory_swapped_for_a_link_outside(tmp_path: Path, canary: Canary, met: str) -> None:
    root = tmp_path / "target"
    (root / "d").mkdir(parents=True)
    link = tmp_path / "swap"
    link.symlink_to(canary.path)
    turns = worked = 0
    target = open_target(root)
    known = target.make_directory(target.root, b"d")
    with swapping(root / "d", link, SWAPS) as goes_on:
        while goes_on():
            turns += 1
            for real in (root / "d", link):
                try:
                    # Never the link, whichever of the two it is by now.
                    held = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                except OSError:
                    continue
                try:
                    fill(Path(f"/proc/self/fd/{held}"))
                except OSError:
                    pass  # a turn too late
                finally:
                    os.close(held)
            try:
                if met == "before":
                    attack(target, known)
                else:
                    with open_target(root) as fresh:
                        attack(fresh, fresh.make_directory(fresh.root, b"d"))
                worked += 1
            except TargetError:
                pass
    target.close()
    canary.check()
    assert turns > 0 and worked > 0


def test_names_to_delete_swapped_for_links(tmp_path: Path, canary: Canary) -> None:
    """A directory that is being deleted becomes a link to one outside, at any moment."""
    root = tmp_path / "target"
    root.mkdir()
    link = root / "swapped"
    link.symlink_to(canary.path)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                exchange(root / "extra", link)
            except OSError:
                pass

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(SWAPS // 4):
            for path in (root / "extra", link):
                if not path.is_symlink():
                    try:
                        (path / "inner").mkdir(parents=True, exist_ok=True)
                        if not path.is_symlink():
                            held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
                            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=held))
                            os.close(held)
                    except OSError:
                        pass
            if not os.path.lexists(link):
                link.symlink_to(canary.path)
            with open_target(root) as target:
                target.remove(target.root, b"extra", True)
    finally:
        stop.set()
        thread.join()
    names = {path.name for path in canary.path.rglob("*")}
    assert names == {"file", "inner"}
    assert (canary.path / "file").read_bytes() == DATA


def delete_below(target: Target) -> None:
    target.remove(target.root, b"d", True)


def delete_in(target: Target) -> None:
    directory = target.enter(target.root, b"d")
    if directory is not None:
        target.remove(directory, b"file", True)


def fix_in(target: Target) -> None:
    directory = target.enter(target.root, b"d")
    if directory is not None:
        row = target.stat_names(directory, (b"file",))[0]
        assert row is not None
        target.settle_attributes(directory, file_entry(b"file", DATA, 0o100700), row)


@pytest.mark.parametrize("act", [delete_below, delete_in, fix_in])
@pytest.mark.parametrize("defended", [True, False])
def test_the_attack_works_without_the_defence(
    tmp_path: Path,
    canary: Canary,
    act: Callable[[Target], None],
    defended: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: a directory becomes a link between the look at it and the step into it."""
    root = tmp_path / "target"
    (root / "d").mkdir(parents=True)
    if not defended:
        monkeypatch.setattr(target_directory, "_OPEN", target_directory._OPEN & ~os.O_NOFOLLOW)
    enter = target_directory.Directories.enter

    def swapped_before(
        self: target_directory.Directories, parent: TargetDirectory, name: bytes
    ) -> TargetDirectory | None:
        if not (root / "d").is_symlink():
            (root / "d").rename(tmp_path / "away")
            (root / "d").symlink_to(canary.path)
        return enter(self, parent, name)

    monkeypatch.setattr(target_directory.Directories, "enter", swapped_before)
    with open_target(root) as target:
        act(target)
    assert (canary.look() == canary.before) == defended


def test_another_inode_gets_no_attributes(tmp_path: Path, canary: Canary) -> None:
    """The name leads to a file from outside by the time attributes are set."""
    root = tmp_path / "target"
    root.mkdir()
    (root / "file").write_bytes(DATA)
    with open_target(root) as target:
        row = target.stat_names(target.root, (b"file",))[0]
        assert row is not None
        held = os.open(root / "file", os.O_RDONLY)  # or its number would be given to another
        os.unlink(root / "file")
        os.link(canary.path / "file", root / "file")
        mode = (canary.path / "file").stat().st_mode
        wanted = file_entry(b"file", DATA, 0o100777)
        settled = target.settle_attributes(target.root, wanted, row)
        assert settled == existing_module.Settled.NEEDS_COPY
        again = target.stat_names(target.root, (b"file",))[0]
        assert again is not None
        (canary.path / "moved").write_bytes(DATA)
        (canary.path / "moved").rename(root / "file")  # of one name, and another inode
        settled = target.settle_attributes(target.root, wanted, row)
        assert settled == existing_module.Settled.NEEDS_COPY
        assert stat.S_IMODE((root / "file").stat().st_mode) != 0o777
        os.unlink(root / "file")
        os.link(canary.path / "file", root / "file")
        settled = target.settle_attributes(target.root, wanted, again)
        assert settled == existing_module.Settled.NEEDS_COPY
    os.close(held)
    assert (canary.path / "file").stat().st_mode == mode


def test_a_mounted_file_system_is_not_deleted(tmp_path: Path) -> None:
    import subprocess

    inside = tmp_path / "target" / "extra" / "mounted"
    inside.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    # of the same device: its number alone would not tell
    done = subprocess.run(["mount", "--bind", outside, inside], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (tmp_path / "target" / "extra" / "file").write_bytes(b"2")
        with open_target(tmp_path / "target") as target:
            assert not target.remove(target.root, b"extra", True)
            assert [row.path for row in target.problems] == [os.fsencode(inside)]
            assert "mounted" in target.problems[0].message
    finally:
        subprocess.run(["umount", inside], check=True)
    assert (outside / "precious").exists()
    assert not (tmp_path / "target" / "extra" / "file").exists()
