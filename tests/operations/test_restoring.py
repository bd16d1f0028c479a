"""Restore: a part or all, over what is there or not, with what this user may do."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from compare_trees import assert_equal_trees, describe, differences
from operations.samples import ROOT, as_nobody, has_xattrs

import packstone


@pytest.fixture
def crm(source: Path) -> Path:
    """A small tree with a few levels."""
    for name in ("dumps/monday.sql", "dumps/tuesday.sql", "files/a/1.pdf", "files/a/2.txt",
                 "files/b/3.pdf", "notes.txt"):  # fmt: skip
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode() * 1000)
    (source / "dumps" / "long").write_bytes(random.Random(9).randbytes(2 << 20))
    (source / "files" / "bare").mkdir()
    os.symlink("notes.txt", source / "link")
    for at, path in enumerate(sorted(source.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 1_600_000_000_000_000_000 + at), follow_symlinks=False)
    return source


def names(root: Path | str) -> set[str]:
    return {str(path.relative_to(root)) for path in Path(root).rglob("*")}


def test_a_directory(repository: packstone.Repository, crm: Path, tmp_path: Path) -> None:
    repository.snapshot([crm])
    target = tmp_path / "target"
    result = repository.restore("latest", target, path=os.fsencode(crm / "files"))
    assert result.errors == []
    assert result.files_restored == 3
    assert result.bytes_written == sum(p.stat().st_size for p in (crm / "files").rglob("*.*"))
    assert_equal_trees(crm / "files", target, top=False)


@pytest.mark.parametrize("name", ["notes.txt", "dumps/long", "link"])
def test_one_file(repository: packstone.Repository, crm: Path, tmp_path: Path, name: str) -> None:
    repository.snapshot([crm])
    target = tmp_path / "target"
    result = repository.restore("latest", target, path=os.fsencode(crm / name))
    assert result.errors == []
    assert os.listdir(target) == [os.path.basename(name)]
    only = crm.parent / "only"
    only.mkdir()
    shutil.copy2(crm / name, only, follow_symlinks=False)
    os.utime(only / os.path.basename(name), ns=(0, os.lstat(crm / name).st_mtime_ns),
             follow_symlinks=False)  # fmt: skip
    assert_equal_trees(only, target, top=False)


def test_everything_from_the_root(
    repository: packstone.Repository, crm: Path, tmp_path: Path
) -> None:
    repository.snapshot([crm])
    target = tmp_path / "target"
    assert repository.restore("latest", target).errors == []
    for ancestor in [crm, *list(crm.parents)[:-1]]:
        want, got = ancestor.stat(), Path(f"{target}{ancestor}").stat()
        assert (want.st_mode, want.st_uid, want.st_gid) == (got.st_mode, got.st_uid, got.st_gid)
    assert_equal_trees(crm, f"{target}{crm}")


@pytest.mark.parametrize("path", [b"/no/such", b"/..", b"a/../b"])
def test_a_path_that_is_not_there(
    repository: packstone.Repository, crm: Path, tmp_path: Path, path: bytes
) -> None:
    repository.snapshot([crm])
    with pytest.raises(packstone.UsageError):
        repository.restore("latest", tmp_path / "target", path=path)
    with pytest.raises(packstone.UsageError):
        repository.restore("latest", tmp_path / "t", path=os.fsencode(crm / "notes.txt" / "x"))


SELECTIONS: list[tuple[dict[str, Any], set[str]]] = [
    ({"include": ["*.pdf"]}, {"files", "files/a", "files/a/1.pdf", "files/b", "files/b/3.pdf"}),
    ({"include": ["dumps/"]},
     {"dumps", "dumps/long", "dumps/monday.sql", "dumps/tuesday.sql"}),
    ({"include": ["files"], "exclude": ["*.pdf"]},
     {"files", "files/a", "files/a/2.txt", "files/b", "files/bare"}),
    ({"exclude": ["files", "dumps"]}, {"notes.txt", "link"}),
    ({"include": ["nothing like it"]}, set()),
    ({"include": ["bare"]}, {"files", "files/bare"}),
]  # fmt: skip


@pytest.mark.parametrize(("patterns", "expected"), SELECTIONS)
def test_include_and_exclude(
    repository: packstone.Repository,
    crm: Path,
    tmp_path: Path,
    patterns: dict[str, Any],
    expected: set[str],
) -> None:
    repository.snapshot([crm])
    target = tmp_path / "target"
    result = repository.restore("latest", target, path=os.fsencode(crm), **patterns)
    assert result.errors == []
    assert names(target) == expected
    everything = describe(crm, top=False)
    wanted = {path: row for path, row in everything.items() if os.fsdecode(path) in expected}
    assert differences(wanted, describe(target, top=False)) == []
    absolute = [f"{crm}/{path}" for path in sorted(expected)]
    if expected and "include" not in patterns:
        again = tmp_path / "again"
        repository.restore("latest", again, path=os.fsencode(crm), include=absolute)
        assert names(again) == expected


def test_dry_run(repository: packstone.Repository, crm: Path, tmp_path: Path) -> None:
    repository.snapshot([crm])
    target = tmp_path / "target"
    for patterns in ({}, {"include": ["*.pdf"]}, {"exclude": ["dumps"]}):
        tried = repository.restore("latest", target, dry_run=True, **patterns)
        assert not target.exists()
        real = repository.restore("latest", target, **patterns)
        assert tried.files_restored == real.files_restored
        assert tried.bytes_written == real.bytes_written
        shutil.rmtree(target)


def test_a_target_that_is_not_empty(
    repository: packstone.Repository, crm: Path, tmp_path: Path
) -> None:
    repository.snapshot([crm])
    target = tmp_path / "target"
    target.mkdir()
    (target / ".precious").write_bytes(b"mine")
    with pytest.raises(packstone.UsageError, match="not empty"):
        repository.restore("latest", target)
    assert names(target) == {".precious"}
    assert (target / ".precious").read_bytes() == b"mine"
    os.unlink(target / ".precious")
    assert repository.restore("latest", target).errors == []


def prepare_target(crm: Path, target: Path) -> None:
    """Make a target that differs from the source in every way that matters to overwriting."""
    shutil.copytree(crm, target, symlinks=True)
    (target / "notes.txt").write_bytes(b"changed since")  # size and time
    size = (target / "dumps/tuesday.sql").stat().st_size
    (target / "dumps/tuesday.sql").write_bytes(b"x" * size)  # time
    data = bytearray((target / "files/a/1.pdf").read_bytes())
    data[0] ^= 1
    (target / "files/a/1.pdf").write_bytes(data)  # content, with size and time put back
    times = (crm / "files/a/1.pdf").stat().st_mtime_ns
    os.utime(target / "files/a/1.pdf", ns=(times, times))
    os.unlink(target / "files/a/2.txt")
    shutil.rmtree(target / "files" / "b")
    (target / "files" / "b").write_bytes(b"a file where a directory belongs")
    os.unlink(target / "dumps" / "long")
    os.symlink("/etc", target / "dumps" / "long")
    (target / "of its own").write_bytes(b"mine")
    os.chmod(target / "dumps", 0o700)


def test_overwrite_always(repository: packstone.Repository, crm: Path, tmp_path: Path) -> None:
    repository.snapshot([crm])
    target = tmp_path / "target"
    prepare_target(crm, target)
    result = repository.restore("latest", target, path=os.fsencode(crm), overwrite="always")
    assert result.errors == []
    assert result.files_skipped == 0
    assert (target / "of its own").read_bytes() == b"mine"
    os.unlink(target / "of its own")
    assert_equal_trees(crm, target, top=False)


def test_overwrite_changed(repository: packstone.Repository, crm: Path, tmp_path: Path) -> None:
    """Size and time decide, as with rsync: what is equal in both is not fetched."""
    repository.snapshot([crm])
    target = tmp_path / "target"
    prepare_target(crm, target)
    untouched = (target / "dumps" / "monday.sql").stat().st_ino
    result = repository.restore("latest", target, path=os.fsencode(crm), overwrite="changed")
    assert result.errors == []
    assert result.files_skipped == 3  # two files and the symbolic link
    assert (target / "dumps" / "monday.sql").stat().st_ino == untouched
    expected, found = describe(crm, top=False), describe(target, top=False)
    del found[b"of its own"]
    wrong = differences(expected, found)
    assert len(wrong) == 1 and "1.pdf" in wrong[0] and "content" in wrong[0]


def test_overwrite_never(repository: packstone.Repository, crm: Path, tmp_path: Path) -> None:
    repository.snapshot([crm])
    target = tmp_path / "target"
    prepare_target(crm, target)
    before = describe(target, top=False)
    result = repository.restore("latest", target, path=os.fsencode(crm), overwrite="never")
    after = describe(target, top=False)
    assert differences(before, {path: after[path] for path in before}, ignore=("mtime_ns",)) == []
    assert after.keys() - before.keys() == {b"files/a/2.txt"}
    assert (target / "files/a/2.txt").read_bytes() == (crm / "files/a/2.txt").read_bytes()
    # a directory cannot be made where a file stays: that is named
    assert {os.path.basename(problem.path) for problem in result.errors} == {b"b"}


def test_over_itself_changes_nothing(
    repository: packstone.Repository, crm: Path, tmp_path: Path
) -> None:
    repository.snapshot([crm])
    for overwrite in ("changed", "always", "never"):
        result = repository.restore("latest", crm, path=os.fsencode(crm), overwrite=overwrite)
        assert result.errors == []
    target = tmp_path / "target"
    repository.restore("latest", target, path=os.fsencode(crm))
    assert_equal_trees(crm, target, top=False)


def test_an_unknown_way_to_overwrite(
    repository: packstone.Repository, crm: Path, tmp_path: Path
) -> None:
    repository.snapshot([crm])
    with pytest.raises(packstone.UsageError):
        repository.restore("latest", tmp_path / "target", overwrite="sometimes")


def test_owners_as_a_normal_user(open_path: Path) -> None:
    """Said once, for all files; everything else is restored."""
    if not ROOT:
        pytest.skip("needs files of several owners")
    source = open_path / "source"
    source.mkdir()
    for at in range(20):
        (source / f"{at}").write_bytes(b"%d" % at)
        os.chmod(source / f"{at}", 0o644)
        os.chown(source / f"{at}", at % 3, at % 4)
    (source / "setuid").write_bytes(b"1")
    os.chmod(source / "setuid", 0o4755)
    os.chmod(source, 0o755)
    with packstone.init(open_path / "repository") as repository:
        repository.snapshot([source])
    for path in [open_path / "repository", *(open_path / "repository").rglob("*")]:
        os.chown(path, 65534, 65534)

    def run() -> None:
        with packstone.open(open_path / "repository") as repository:
            target = open_path / "target"
            result = repository.restore("latest", target, path=bytes(source))
            assert len(result.warnings) + len(result.errors) <= 2, (result.errors, result.warnings)
            assert any("owner" in text for text in result.warnings)
            assert_equal_trees(source, target, top=False, ignore=("uid", "gid", "mode"))
            assert stat.S_IMODE((target / "3").stat().st_mode) == 0o644
            # A program of root's must not become one of somebody else's that keeps its power.
            assert not (target / "setuid").stat().st_mode & stat.S_ISUID
            quiet = repository.restore("latest", open_path / "t", path=bytes(source), owner=False)
            assert quiet.warnings == []

    as_nobody(run)


def test_without_owners(repository: packstone.Repository, crm: Path, tmp_path: Path) -> None:
    if not ROOT:
        pytest.skip("only root can give files away")
    os.chown(crm / "notes.txt", 1234, 1234)
    repository.snapshot([crm])
    repository.restore("latest", tmp_path / "target", path=os.fsencode(crm), owner=False)
    assert (tmp_path / "target" / "notes.txt").stat().st_uid == 0


def test_a_target_that_cannot_be_written(open_path: Path) -> None:
    source = open_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"1")
    source.chmod(0o755)
    closed = open_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)

    def run() -> None:
        with packstone.init(open_path / "repository") as repository:
            repository.snapshot([source])
            for target in (closed / "target", open_path / "source" / "file"):
                with pytest.raises(packstone.PackstoneError) as raised:
                    repository.restore("latest", target)
                assert raised.value.exit_code == 1
            result = repository.restore("latest", closed, path=bytes(source))
            assert [os.path.basename(problem.path) for problem in result.errors] == [b"file"]
            assert result.files_restored == 0

    as_nobody(run)


def test_a_full_target(repository: packstone.Repository, source: Path) -> None:
    """What still fits is there and whole; the rest is named; nothing half-written stays."""
    if not ROOT:
        pytest.skip("only root can mount")
    for at in range(20):
        (source / f"{at:02}").write_bytes(random.Random(at).randbytes(100_000))
    (source / "long").write_bytes(random.Random(1).randbytes(3 << 20))
    repository.snapshot([source])
    small = source.parent / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        result = repository.restore("latest", small, path=os.fsencode(source))
        there = {path.name for path in small.iterdir()}
        missing = {path.name for path in source.iterdir()} - there
        assert {os.fsdecode(os.path.basename(row.path)) for row in result.errors} == missing
        assert "long" in missing and len(missing) >= 10
        for name in there:
            assert (small / name).read_bytes() == (source / name).read_bytes()
    finally:
        subprocess.run(["umount", small], check=True)


def test_attributes_that_are_there_already(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    if not has_xattrs(source):
        pytest.skip("no extended attributes here")
    (source / "directory").mkdir()
    (source / "directory" / "file").write_bytes(b"1")
    os.setxattr(source / "directory", "user.kept", b"1")
    os.setxattr(source / "directory" / "file", "user.kept", b"1")
    repository.snapshot([source])
    target = tmp_path / "target"
    shutil.copytree(source, target)
    for path in (target / "directory", target / "directory" / "file"):
        os.setxattr(path, "user.foreign", b"2")
    repository.restore("latest", target, path=os.fsencode(source), overwrite="always")
    assert_equal_trees(source, target, top=False)


def test_progress(repository: packstone.Repository, crm: Path, tmp_path: Path) -> None:
    repository.snapshot([crm])
    seen: list[packstone.Progress] = []
    repository.restore("latest", tmp_path / "target", progress=seen.append)
    assert seen
    assert all(row.files_total == 7 for row in seen)


def test_damage_is_named_by_its_place_in_the_snapshot(
    repository: packstone.Repository, crm: Path, tmp_path: Path
) -> None:
    """A pack is lost: the files in it are named as in the snapshot, nothing of them is there."""
    repository.snapshot([crm])
    packs = sorted(
        (Path(repository.location) / "packs").rglob("?" * 64), key=lambda p: p.stat().st_size
    )
    packs[-1].unlink()
    target = tmp_path / "target"
    result = repository.restore("latest", target, path=os.fsencode(crm))
    lost = {
        os.fsencode(path) for path in crm.rglob("*") if path.is_file() and not path.is_symlink()
    }
    assert {problem.path for problem in result.errors} == lost
    assert names(target) == {"dumps", "files", "files/a", "files/b", "files/bare", "link"}
    assert result.files_restored == 1
    assert result.bytes_written == 0


def test_half_a_file_is_no_file(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """Some of its chunks are lost: neither its name nor a temporary one is left."""
    first, second = (random.Random(at).randbytes(1 << 20) for at in (1, 2))
    (source / "long").write_bytes(first)
    repository.snapshot([source])
    packs = set((Path(repository.location) / "packs").rglob("?" * 64))
    (source / "long").write_bytes(first + second)
    (source / "other").write_bytes(first[:5000])
    repository.snapshot([source])
    new = set((Path(repository.location) / "packs").rglob("?" * 64)) - packs
    max(new, key=lambda path: path.stat().st_size).unlink()
    target = tmp_path / "target"
    result = repository.restore("latest", target, path=os.fsencode(source))
    assert os.fsencode(source / "long") in {problem.path for problem in result.errors}
    assert not (target / "long").exists()
    assert [path for path in target.iterdir() if path.name != "other"] == []
