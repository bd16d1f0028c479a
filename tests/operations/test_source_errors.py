"""What cannot be read is named and the rest is stored; what must not be stored is left out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees
from operations.samples import ROOT, as_nobody

import packstone
from packstone.filesystem.ignore import CACHE_SIGNATURE
from packstone.model import Flag


def stored(repository: packstone.Repository, root: Path, snapshot: str = "latest") -> set[str]:
    """Return the stored paths below `root`."""
    top = os.fsencode(root)
    rows = repository.ls(snapshot, top, recursive=True)
    return {os.fsdecode(row.path[len(top) + 1 :]) for row in rows}


def test_a_missing_path(repository: packstone.Repository, source: Path) -> None:
    (source / "here").write_bytes(b"1")
    missing = [source / "missing", source / "not" / "there", source / "other" / "below a file"]
    (source / "other").write_bytes(b"1")
    result = repository.snapshot([source / "here", *missing])
    assert result.snapshot_id is not None
    assert sorted(problem.path for problem in result.errors) == sorted(map(os.fsencode, missing))
    assert all(problem.message for problem in result.errors)
    assert stored(repository, source) == {"here"}


def test_a_missing_path_below_another_source(
    repository: packstone.Repository, source: Path
) -> None:
    """Row 19: whoever names a path that is not there learns of it."""
    result = repository.snapshot([source, source / "missing"])
    assert [problem.path for problem in result.errors] == [os.fsencode(source / "missing")]


def test_no_path_at_all(repository: packstone.Repository, source: Path) -> None:
    for paths in ([], [source / "missing", source / "missing too"]):
        with pytest.raises(packstone.UsageError):
            repository.snapshot(paths)
    assert repository.snapshots() == []
    assert list((Path(repository.location) / "packs").rglob("?" * 64)) == []


def test_unreadable_for_a_normal_user(open_path: Path) -> None:
    source = open_path / "source"
    (source / "closed").mkdir(parents=True)
    (source / "closed" / "inside").write_bytes(b"1")
    (source / "listed only").mkdir()
    (source / "listed only" / "inside").write_bytes(b"1")
    (source / "secret").write_bytes(b"1")
    (source / "long secret").write_bytes(bytes(2 << 20))
    (source / "open").write_bytes(b"1")
    (source / "open").chmod(0o644)
    (source / "secret").chmod(0o600)
    (source / "long secret").chmod(0o600)
    os.chmod(source / "closed", 0o700)
    os.chmod(source / "listed only", 0o744)
    if not ROOT:
        for name in ("closed", "secret", "long secret"):
            os.chmod(source / name, 0)
        os.chmod(source / "listed only", 0o400)

    def run() -> None:
        with packstone.init(open_path / "repository") as repository:
            result = repository.snapshot([source])
            names = {
                os.path.relpath(os.fsdecode(problem.path), source): problem.message
                for problem in result.errors
            }
            assert names.keys() == {"closed", "listed only/inside", "secret", "long secret"}
            assert all("Permission denied" in message for message in names.values())
            assert stored(repository, source) >= {"closed", "listed only", "secret", "open"}
            rows = {row.entry.name: row.entry for row in repository.ls("latest", bytes(source))}
            for name in (b"secret", b"long secret", b"closed"):
                assert rows[name].content is None
                assert rows[name].extras is not None
                assert rows[name].extras.flags == Flag.UNREADABLE
            target = open_path / "target"
            restored = repository.restore("latest", target, path=bytes(source))
            left_out = {os.path.basename(problem.path) for problem in restored.errors}
            assert left_out == {b"secret", b"long secret", b"closed"}
            assert (target / "open").read_bytes() == b"1"
            assert not (target / "secret").exists()
            with pytest.raises(packstone.UsageError):
                repository.open_file("latest", bytes(source) + b"/secret")
            assert repository.check(read_data=True).errors == []
            again = repository.snapshot([source])
            assert len(again.errors) == 4, "a second snapshot must not take them for unchanged"

    try:
        as_nobody(run)
    finally:
        for name in ("closed", "listed only"):
            os.chmod(source / name, 0o700)


def test_the_repository_inside_the_source(source: Path) -> None:
    (source / "file").write_bytes(b"1")
    (source / "deep").mkdir()
    with packstone.init(source / "deep" / "repository") as repository:
        os.symlink(repository.location, source / "link to it")
        (source / "deep" / "beside").write_bytes(b"2")
        result = repository.snapshot([source])
        assert result.errors == []
        assert stored(repository, source) == {"file", "deep", "deep/beside", "link to it"}
        with packstone.init(source / "another") as other:
            other.close()
        repository.snapshot([source])
        assert "another/config" in stored(repository, source), "other repositories are data"


def test_the_repository_met_another_way(source: Path) -> None:
    """A bind mount has the same device and inode under another name."""
    if not ROOT:
        pytest.skip("only root can mount")
    (source / "file").write_bytes(b"1")
    (source / "mounted").mkdir()
    location = source.parent / "repository"
    with packstone.init(location) as repository:
        done = subprocess.run(["mount", "--bind", location, source / "mounted"], check=False)
        if done.returncode:
            pytest.skip("mounting is not allowed here")
        try:
            repository.snapshot([source])
        finally:
            subprocess.run(["umount", source / "mounted"], check=True)
        assert "mounted/config" not in stored(repository, source)


def test_proc_has_files_of_size_zero_with_content(repository: packstone.Repository) -> None:
    if not os.path.exists("/proc/version"):
        pytest.skip("no /proc here")
    result = repository.snapshot(["/proc/version"])
    assert result.errors == []
    with repository.open_file("latest", "/proc/version") as file:
        with open("/proc/version", "rb") as original:
            assert file.read() == original.read()


RULES: list[tuple[packstone.Rules, set[str]]] = [
    (packstone.Rules(patterns=("*.tmp",)), {"a.tmp", "below/b.tmp", "below/cache/c.tmp"}),
    (packstone.Rules(patterns=("below/",)), {"below", "below/b.tmp", "below/text", "below/cache",
                                             "below/cache/c.tmp", "below/cache/CACHEDIR.TAG"}),
    (packstone.Rules(patterns=("*.tmp", "!b.tmp")), {"a.tmp", "below/cache/c.tmp"}),
    (packstone.Rules(caches=True), {"below/cache/c.tmp"}),
    (packstone.Rules(if_present=(b".nobackup",)), {"marked/data"}),
    (packstone.Rules(larger_than=1000), {"large"}),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "left_out"), RULES, ids=lambda value: None)
def test_excludes(
    repository: packstone.Repository, source: Path, rules: packstone.Rules, left_out: set[str]
) -> None:
    (source / "below" / "cache").mkdir(parents=True)
    (source / "marked").mkdir()
    for name in ("a.tmp", "text", "below/b.tmp", "below/text", "below/cache/c.tmp",
                 "marked/.nobackup", "marked/data"):  # fmt: skip
        (source / name).write_bytes(b"1")
    (source / "below" / "cache" / "CACHEDIR.TAG").write_bytes(CACHE_SIGNATURE + b"\n")
    (source / "large").write_bytes(bytes(1001))
    everything = {str(path.relative_to(source)) for path in source.rglob("*")}
    assert left_out < everything
    result = repository.snapshot([source], rules=rules)
    assert result.errors == []
    assert stored(repository, source) == everything - left_out
    row = repository.find_snapshot("latest")
    assert tuple(row.snapshot.excludes) == rules.patterns


def test_one_file_system(repository: packstone.Repository, source: Path) -> None:
    if not ROOT:
        pytest.skip("only root can mount")
    (source / "other").mkdir()
    (source / "file").write_bytes(b"1")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", source / "other"], check=False
    )
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (source / "other" / "inside").write_bytes(b"1")
        repository.snapshot([source], rules=packstone.Rules(one_file_system=True))
        assert stored(repository, source) == {"file", "other"}
        repository.snapshot([source])
        assert stored(repository, source) == {"file", "other", "other/inside"}
    finally:
        subprocess.run(["umount", source / "other"], check=True)


def test_a_source_error_is_no_storage_error(
    settled: packstone.Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk of the repository must never look like an unreadable file (borg lost data so)."""
    from packstone.storage.local import LocalSpool

    for at in range(10):
        (source / f"{at}").write_bytes(os.urandom(300_000))

    def full(self: LocalSpool, data: bytes) -> None:
        raise packstone.StorageFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(LocalSpool, "write", full)
        with pytest.raises(packstone.StorageFull):
            settled.snapshot([source])
    assert settled.snapshots() == []
    assert settled.snapshot([source]).errors == []


def test_interrupted_in_the_middle(
    settled: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """Whatever a callback raises ends the snapshot, leaves nothing behind, and the next works."""
    for at in range(30):
        (source / f"{at}").write_bytes(os.urandom(300_000))

    def interrupt(_: packstone.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        settled.snapshot([source], progress=interrupt)
    assert settled.snapshots() == []
    assert list((Path(settled.location) / "tmp").iterdir()) == []
    assert settled.snapshot([source]).errors == []
    assert settled.restore("latest", tmp_path / "target", path=os.fsencode(source)).errors == []
    assert_equal_trees(source, tmp_path / "target", top=False)


def test_progress_reaches_the_end(settled: packstone.Repository, source: Path) -> None:
    for at in range(2000):
        (source / f"{at}").write_bytes(b"x")
    seen: list[packstone.Progress] = []
    result = settled.snapshot([source], progress=seen.append)
    assert seen
    assert len(seen) <= 10 * result.seconds + 2
    assert [row.files_done for row in seen] == sorted(row.files_done for row in seen)


def test_a_source_that_is_a_link(repository: packstone.Repository, source: Path) -> None:
    (source / "real").mkdir()
    (source / "real" / "file").write_bytes(b"1")
    os.symlink("real", source / "link")
    repository.snapshot([source / "link"])
    assert stored(repository, source) == {"link"}
    repository.snapshot([source / "link" / "file"])
    assert stored(repository, source) == {"link", "link/file"}


def test_a_relative_path(
    repository: packstone.Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "file").write_bytes(b"1")
    monkeypatch.chdir(source)
    repository.snapshot(["file", b"../source/file"])
    assert stored(repository, source) == {"file"}


def test_the_working_directory_is_gone(
    repository: packstone.Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "file").write_bytes(b"1")
    (source / "gone").mkdir()
    monkeypatch.chdir(source / "gone")
    shutil.rmtree(source / "gone")
    result = repository.snapshot([source])
    assert result.errors == []
