"""`--in-place`: everything to where it was, and nothing above it touched."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees, describe, differences
from operations.samples import ROOT

import packstone


@pytest.fixture
def home(source: Path) -> Path:
    """A source that stands beside others' files, its attributes set."""
    (source / "home" / "ada" / "letters").mkdir(parents=True)
    (source / "home" / "ada" / "letters" / "one").write_bytes(b"dear")
    (source / "home" / "ada" / "long").write_bytes(random.Random(1).randbytes(100_000))
    (source / "home" / "bob").mkdir()
    (source / "home" / "bob" / "own").write_bytes(b"not Ada's")
    os.chmod(source / "home", 0o751)
    return source / "home" / "ada"


def test_changes_are_undone(repository: packstone.Repository, home: Path, tmp_path: Path) -> None:
    repository.snapshot([home])
    shutil.copytree(home, tmp_path / "was", symlinks=True)
    os.utime(tmp_path / "was", ns=(0, home.stat().st_mtime_ns))
    (home / "long").write_bytes(b"short")
    (home / "letters" / "one").unlink()
    (home / "extra").write_bytes(b"new")
    os.chmod(home, 0o700)
    others = describe(home.parent / "bob")
    above = home.parent.stat()
    result = repository.restore("latest", None, overwrite="changed", delete=True)
    assert result.errors == []
    assert_equal_trees(tmp_path / "was", home)
    assert differences(others, describe(home.parent / "bob")) == []
    assert (home.parent.stat().st_mtime_ns, home.parent.stat().st_mode) == (
        above.st_mtime_ns, above.st_mode,
    )  # fmt: skip


def test_what_is_there_stays_without_overwrite(
    repository: packstone.Repository, home: Path
) -> None:
    repository.snapshot([home])
    (home / "long").write_bytes(b"changed")
    (home / "letters" / "one").unlink()
    os.chmod(home, 0o700)
    result = repository.restore("latest", None)
    assert [problem.path for problem in result.errors] == [os.fsencode(home / "long")]
    assert "exists" in result.errors[0].message
    assert (home / "long").read_bytes() == b"changed"
    assert (home / "letters" / "one").read_bytes() == b"dear"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_missing_parents_come_with_their_attributes(
    repository: packstone.Repository, home: Path, tmp_path: Path
) -> None:
    if ROOT:
        os.chown(home.parent, 1234, 1234)
    repository.snapshot([home])
    wanted = describe(home)
    above = home.parent.stat()
    shutil.rmtree(home.parent)
    assert repository.restore("latest", None, dry_run=True).files_restored == 2
    assert not home.parent.exists()
    result = repository.restore("latest", None)
    assert result.errors == []
    assert differences(wanted, describe(home)) == []
    now = home.parent.stat()
    assert (now.st_mode, now.st_uid, now.st_mtime_ns) == (
        above.st_mode, above.st_uid, above.st_mtime_ns,
    )  # fmt: skip


def test_a_way_that_leads_through_a_link(
    repository: packstone.Repository, home: Path, tmp_path: Path
) -> None:
    """Who moved /home to a larger disk and left a link has it followed, not replaced."""
    repository.snapshot([home])
    wanted = describe(home)
    home.parent.rename(tmp_path / "larger disk")
    home.parent.symlink_to(tmp_path / "larger disk")
    (home / "long").write_bytes(b"changed")
    result = repository.restore("latest", None, overwrite="changed")
    assert result.errors == []
    assert home.parent.is_symlink()
    assert differences(wanted, describe(tmp_path / "larger disk" / "ada")) == []


def test_a_part_and_several_sources(repository: packstone.Repository, home: Path) -> None:
    bob = home.parent / "bob"
    repository.snapshot([home, bob])
    wanted = describe(home.parent, top=False)
    (home / "long").unlink()
    (bob / "own").unlink()
    result = repository.restore("latest", None, path=bytes(home / "long"), overwrite="changed")
    assert result.errors == [] and result.files_restored == 1
    assert not (bob / "own").exists()
    assert repository.restore("latest", None, overwrite="changed").errors == []
    found = describe(home.parent, top=False)
    assert differences(wanted, found) == []


def test_a_stream_was_nowhere(repository: packstone.Repository) -> None:
    repository.snapshot_stream(io.BytesIO(b"1"), "dump.sql")
    with pytest.raises(packstone.UsageError, match="pipe"):
        repository.restore("latest", None)


def test_a_disk_that_gets_full(repository: packstone.Repository, source: Path) -> None:
    """Each file is the old one or the new one; those that did not fit are named."""
    if not ROOT:
        pytest.skip("only root can mount")
    small = source.parent / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        new = {f"{at}": random.Random(at).randbytes(300_000) for at in range(10)}
        for at in range(10):
            (small / f"{at}").write_bytes(new[f"{at}"][:150_000])
        old = {name: data[:150_000] for name, data in new.items()}
        for name, data in new.items():
            (source / name).write_bytes(data)
        repository.snapshot([source])
        result = repository.restore("latest", small, path=os.fsencode(source), overwrite="changed")
        failed = {os.fsdecode(os.path.basename(problem.path)) for problem in result.errors}
        assert 0 < len(failed) < 10
        assert sorted(path.name for path in small.iterdir()) == sorted(new)
        for name in new:
            assert (small / name).read_bytes() == (old if name in failed else new)[name]
    finally:
        subprocess.run(["umount", small], check=True)
