"""`--delete`: what the snapshot has not is gone, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from compare_trees import assert_equal_trees, describe, differences
from hostile import Forger, row
from operations.samples import ROOT, as_nobody, make_deep

import packstone
from packstone.model import Flag


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def over(
    repository: packstone.Repository, source: Path | str, target: Path, **options: Any
) -> packstone.RestoreResult:
    options = {"overwrite": "changed", "delete": True, **options}
    return repository.restore("latest", target, path=os.fsencode(source), **options)


def test_each_name_is_told(repository: packstone.Repository, source: Path, tmp_path: Path) -> None:
    put(source, "a", "d/b")
    repository.snapshot([source])
    target = tmp_path / "target"
    put(target, "a", "d/b", "d/extra", "more/below/x", "more/y")
    changes: list[packstone.Change] = []
    result = over(repository, source, target, report=changes.append)
    assert result.errors == []
    gone = ["d/extra", "more", "more/below", "more/below/x", "more/y"]
    told = [os.path.relpath(row.path, bytes(target)) for row in changes if row.action == "delete"]
    assert sorted(map(os.fsdecode, told)) == gone
    assert (result.files_deleted, result.bytes_deleted) == (5, 7 + 12 + 6)
    assert_equal_trees(source, target, top=False)


def test_links_are_deleted_not_followed(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    put(source, "a")
    repository.snapshot([source])
    target, outside = tmp_path / "target", tmp_path / "outside"
    put(outside, "precious", "below/precious")
    put(target, "extra/x")
    os.symlink(outside, target / "link")
    os.symlink(outside, target / "extra" / "link")
    os.link(outside / "precious", target / "extra" / "hard")
    before = describe(outside)
    assert over(repository, source, target).errors == []
    assert names(target) == {"a"}
    assert differences(before, describe(outside)) == []


def test_excluded_names_stay(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """As with rsync; a directory stays for what stays in it."""
    put(source, "a", "a.log", "keep/a")
    repository.snapshot([source])
    target = tmp_path / "target"
    put(target, "a.log", "b.log", "extra/c.log", "extra/d", "keep/b", "e")
    result = over(repository, source, target, exclude=["*.log", f"{source}/keep"])
    assert result.errors == []
    assert names(target) == {"a", "a.log", "b.log", "extra/c.log", "keep/b"}


def test_only_what_was_asked_for_is_deleted(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    put(source, "a.pdf", "b.txt", "d/c.pdf", "none/b.txt")
    repository.snapshot([source])
    target = tmp_path / "target"
    put(target, "x.pdf", "x.txt", "d/x.pdf", "d/x.txt", "none/x.pdf", "none/x.txt",
        "extra/x.pdf", "extra/x.txt")  # fmt: skip
    result = over(repository, source, target, include=["*.pdf"])
    assert result.errors == []
    assert names(target) == {"a.pdf", "d/c.pdf", "x.txt", "d/x.txt", "none/x.txt", "extra/x.txt"}


def test_what_the_snapshot_left_out_stays(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """It was not there to be stored: that it is not in the snapshot means nothing."""
    put(source, "a", "cache/big", "x.tmp")
    rules = packstone.Rules(patterns=("*.tmp", "cache"))
    repository.snapshot([source], rules=rules)
    put(source, "new")
    result = over(repository, source, source)
    assert result.errors == []
    assert names(source) == {"a", "cache/big", "x.tmp"}


def test_a_directory_gives_way_to_a_file_only_so(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    put(source, "a", "b")
    repository.snapshot([source])
    target = tmp_path / "target"
    put(target, "a/below", "b/x.log")
    for overwrite in ("changed", "always"):
        result = over(repository, source, target, overwrite=overwrite, delete=False)
        assert {os.path.basename(problem.path) for problem in result.errors} == {b"a", b"b"}
        assert names(target) == {"a/below", "b/x.log"}
    result = over(repository, source, target, exclude=["*.log"])
    assert {os.path.basename(problem.path) for problem in result.errors} == {b"b"}
    assert names(target) == {"a", "b/x.log"}
    assert over(repository, source, target).errors == []
    assert names(target) == {"a", "b"}


def test_an_empty_directory_is_no_reason(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """A disk that was not mounted when the snapshot was taken; a pattern with a typo."""
    target = tmp_path / "target"
    put(target, "precious")
    repository.snapshot([source])
    for path in (source, "", source.parent):
        if path != source:
            put(target, f".{source}/precious")
        with pytest.raises(packstone.UsageError, match="empty"):
            over(repository, path, target)
    with pytest.raises(packstone.UsageError, match="empty"):
        repository.restore("latest", None, overwrite="changed", delete=True)
    put(source, "a")
    repository.snapshot([source])
    with pytest.raises(packstone.UsageError, match="matches"):
        over(repository, source, target, include=["*.typo"])
    assert (target / "precious").exists()


@pytest.mark.parametrize("overwrite", [None, "never"])
def test_it_goes_with_overwriting(
    repository: packstone.Repository, source: Path, tmp_path: Path, overwrite: str | None
) -> None:
    put(source, "a")
    repository.snapshot([source])
    with pytest.raises(packstone.UsageError, match="delete"):
        over(repository, source, tmp_path / "target", overwrite=overwrite)


def test_nothing_goes_where_the_snapshot_cannot_be_read(tmp_path: Path) -> None:
    """Half of a directory's pages are lost; a directory could not be read back then."""
    with packstone.init(tmp_path / "repository"):
        pass
    forger = Forger(tmp_path / "repository")
    page = forger.page([forger.file(b"a", b"1")])
    half = forger.page([[b"a", page, 1], [b"m", b"\x07" * 32, 1]], level=1)
    unread = row(b"unread", 0o040755, None, extras={"flags": int(Flag.UNREADABLE)})
    forger.commit(
        [row(b"half", 0o040755, half), forger.below(b"sound", [forger.file(b"b", b"2")]), unread]
    )
    target = tmp_path / "target"
    put(target, "half/n", "half/0/x", "sound/extra", "unread/precious", "extra")
    with packstone.open(tmp_path / "repository") as repository:
        result = over(repository, "", target)
    assert {os.path.basename(problem.path) for problem in result.errors} == {b"half", b"unread"}
    assert names(target) == {"half/a", "half/n", "half/0/x", "sound/b", "unread/precious"}


def test_a_file_that_is_damaged_is_not_deleted(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """It cannot be restored, and what stands in its place is all there is."""
    (source / "a").write_bytes(os.urandom(50_000))
    put(source, "b")
    target = tmp_path / "target"
    put(target, "a", "c")
    repository.snapshot([source])
    packs = (Path(repository.location) / "packs").rglob("?" * 64)
    max(packs, key=lambda path: path.stat().st_size).unlink()
    result = over(repository, source, target)
    assert os.fsencode(source / "a") in {problem.path for problem in result.errors}
    assert "c" not in names(target)
    assert (target / "a").read_bytes() == b"a"


def test_deep_and_closed_directories(open_path: Path) -> None:
    """Thousands of levels, and directories their owner may not write to or read."""
    source, target = open_path / "source", open_path / "target"
    target.mkdir()
    os.chmod(target, 0o777)

    def run() -> None:
        put(source, "a")
        with packstone.init(open_path / "repository") as repository:
            repository.snapshot([source])
            make_deep(target / "deep", levels=1_500, name=b"d" * 20)
            put(target, "closed/below/x", "sealed/x")
            os.chmod(target / "closed" / "below", 0o500)
            os.chmod(target / "closed", 0o500)
            os.chmod(target / "sealed", 0)
            result = over(repository, source, target)
            assert result.errors == []
            assert names(target) == {"a"}
            assert os.listdir(target) == ["a"]

    as_nobody(run)


def test_what_cannot_be_deleted_is_named(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    put(source, "a", "fixed")
    repository.snapshot([source])
    target = tmp_path / "target"
    put(target, "fixed", "extra/immutable", "extra/x")
    (target / "fixed").write_bytes(b"old")
    immutable = [target / "fixed", target / "extra" / "immutable"]
    done = subprocess.run(["chattr", "+i", *immutable], check=False, capture_output=True)
    if not ROOT or done.returncode:
        pytest.skip("no immutable files here")
    try:
        result = over(repository, source, target)
    finally:
        subprocess.run(["chattr", "-i", *immutable], check=True)
    assert {problem.path for problem in result.errors} == {os.fsencode(each) for each in immutable}
    assert names(target) == {"a", "fixed", "extra/immutable"}
    assert (target / "fixed").read_bytes() == b"old"


def test_other_mounts_are_left_alone(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """A snapshot that did not go into a mount has an empty directory there; it is none."""
    put(source, "a")
    (source / "mounted").mkdir()
    repository.snapshot([source])
    outside = tmp_path / "outside"
    put(outside, "precious", "d/precious")
    put(source, "extra")
    mounted = source / "mounted"
    done = subprocess.run(["mount", "--bind", outside, mounted], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        for target in (None, source):
            put(source, "extra")
            path = os.fsencode(source)
            tried = repository.restore(
                "latest", target, path=path, overwrite="changed", delete=True, dry_run=True
            )
            result = repository.restore(
                "latest", target, path=path, overwrite="changed", delete=True
            )
            assert tried.files_deleted == result.files_deleted == 1
            assert result.errors == []
            assert any("mounted" in text for text in result.warnings)
            assert names(outside) == {"precious", "d/precious"}
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert names(source) == {"a"}


def test_a_source_that_is_a_mount(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    done = subprocess.run(["mount", "--bind", outside, source], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        put(source, "a", "d/b")
        repository.snapshot([source])
        put(source, "extra", "d/extra")
        result = repository.restore("latest", None, overwrite="changed", delete=True)
        assert result.errors == [] and result.warnings == []
        assert names(source) == {"a", "d/b"}
    finally:
        subprocess.run(["umount", source], check=True)


def test_the_root_of_the_machine_is_no_target_to_delete_in(
    repository: packstone.Repository, source: Path
) -> None:
    """The snapshot has one directory; everything else there is not extra."""
    put(source, "a")
    repository.snapshot([source])
    for dry_run in (True, False):  # the first shows whether the second may be tried
        with pytest.raises(packstone.UsageError, match="whole machine"):
            repository.restore("latest", "/", overwrite="changed", delete=True, dry_run=dry_run)


@pytest.mark.parametrize("where", [b"", b"/half"])
def test_nothing_goes_where_a_repair_left_entries_out(tmp_path: Path, where: bytes) -> None:
    """What is not in a repaired directory may have been in the first one."""
    with packstone.init(tmp_path / "repository"):
        pass
    forger = Forger(tmp_path / "repository")
    lossy = {"extras": {"flags": int(Flag.LOST)}}
    half = forger.below(b"half", [forger.file(b"a", b"1")], **lossy)
    forger.commit([half, forger.below(b"sound", [forger.file(b"b", b"2")])], original_id=bytes(32))
    target = tmp_path / "target"
    at = target / "half" if not where else target
    put(at, "lost")
    put(target, "sound/extra")
    with packstone.open(tmp_path / "repository") as repository:
        result = over(repository, os.fsdecode(where), target)
    assert result.errors
    assert (at / "lost").exists() and (at / "a").exists()
    assert (target / "sound/extra").exists() == bool(where)
