"""Snapshots through a real mount: everything is there, nothing can be changed, no lock is held."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from compare_trees import describe, differences
from conftest import Packstone

import packstone

pytest.importorskip("mfusepy")
pytestmark = pytest.mark.skipif(
    not os.path.exists("/dev/fuse") or shutil.which("fusermount3") is None,
    reason="no FUSE on this machine",
)


@pytest.fixture
def command(tmp_path: Path) -> Packstone:
    return Packstone(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    rng = random.Random(3)
    (source / "large").write_bytes(rng.randbytes(3_000_000))
    (source / "empty").write_bytes(b"")
    with open(source / "sparse", "wb") as file:
        file.truncate(5_000_000)
        file.seek(2_000_000)
        file.write(b"in the middle")
    for number in range(1_500):  # more than one page
        (source / "below" / f"{number:05}").write_bytes(b"%d" % number)
    (source / "below" / "link").symlink_to("../large")
    (source / os.fsdecode(b"not \xff utf-8\n")).write_text("a name")
    os.chmod(source / "large", 0o640)
    os.utime(source / "large", ns=(1, 1_234_567_890_123_456_789))
    return source


@contextmanager
def mounted(command: Packstone, repository: Path, mountpoint: Path) -> Iterator[None]:
    mountpoint.mkdir(exist_ok=True)
    process = subprocess.Popen(
        command.argv(["-r", str(repository), "mount", str(mountpoint)]),
        env=command.environment,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(mountpoint):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], check=False)
        try:
            _out, err = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0
    assert b"Traceback" not in err


def test_all_is_there_as_it_was(command: Packstone, source: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    with packstone.init(repository) as opened:
        opened.snapshot([source], tags=["weekly"])
        expected = describe(source)
        (source / "large").write_bytes(b"changed since")
        last = opened.snapshot([source]).snapshot_id
    assert last is not None
    mountpoint = tmp_path / "mnt"
    with mounted(command, repository, mountpoint):
        assert sorted(os.listdir(mountpoint)) == ["hosts", "ids", "tags", "times"]
        old = mountpoint / "tags" / "weekly" / "latest" / str(source).lstrip("/")
        found = describe(old)
        # Of what a mount cannot tell: groups of hard links and where holes are.
        unlike = differences(
            {name: row._replace(holes=(), group=b"") for name, row in expected.items()},
            {name: row._replace(holes=(), group=b"") for name, row in found.items()},
        )
        assert unlike == []
        new = mountpoint / "ids" / last[:12] / str(source).lstrip("/")
        assert (new / "large").read_bytes() == b"changed since"
        assert (mountpoint / "times" / "latest").resolve().is_dir()
        with pytest.raises(OSError, match="Read-only"):
            (new / "large").write_bytes(b"no")
        with pytest.raises(OSError, match="Read-only"):
            (new / "made").mkdir()
        with pytest.raises(FileNotFoundError):
            (new / "large2").read_bytes()


def test_reads_at_any_place(command: Packstone, source: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    with packstone.init(repository, chunk_size=16_384) as opened:
        opened.snapshot([source])
    data = (source / "large").read_bytes()
    rng = random.Random(4)
    with mounted(command, repository, tmp_path / "mnt"):
        path = tmp_path / "mnt" / "times" / "latest" / str(source).lstrip("/") / "large"
        with open(path, "rb", buffering=0) as file:
            for _ in range(200):
                offset = rng.randrange(len(data) + 10)
                size = rng.choice([1, 100, 5_000, 200_000])
                assert os.pread(file.fileno(), size, offset) == data[offset : offset + size]


def test_no_lock_and_new_snapshots(command: Packstone, source: Path, tmp_path: Path) -> None:
    """A prune needs the exclusive lock; what it leaves is shown on, what comes is shown soon."""
    repository = tmp_path / "repo"
    with packstone.init(repository, pack_size=1 << 20) as opened:
        first = opened.snapshot([source]).snapshot_id
        (source / "large").write_bytes(random.Random(5).randbytes(3_000_000))
        last = opened.snapshot([source]).snapshot_id
    assert first is not None and last is not None
    with mounted(command, repository, tmp_path / "mnt"):
        ids = tmp_path / "mnt" / "ids"
        assert sorted(os.listdir(ids)) == sorted([first[:12], last[:12]])
        (repository / "snapshots" / first).unlink()
        with packstone.open(repository) as opened:
            result = opened.prune()
            assert result.packs_deleted + result.packs_rewritten > 0
            (source / "more").write_text("more")
            third = opened.snapshot([source]).snapshot_id
        assert third is not None
        deadline = time.monotonic() + 20
        while sorted(os.listdir(ids)) != sorted([last[:12], third[:12]]):
            assert time.monotonic() < deadline, os.listdir(ids)
            time.sleep(0.3)
        below = ids / third[:12] / str(source).lstrip("/")
        assert describe(below).keys() == describe(source).keys()
        assert (below / "large").read_bytes() == (source / "large").read_bytes()


def test_damage_is_an_error_of_that_file(command: Packstone, source: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    with packstone.init(repository) as opened:
        opened.snapshot([source])
    with packstone.open(repository) as opened:
        entries = {row.path: row.entry for row in opened.ls("latest", recursive=True)}
    assert entries
    packs = sorted((repository / "packs").rglob("*"), key=lambda path: path.stat().st_size)
    largest = packs[-1]
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with mounted(command, repository, tmp_path / "mnt"):
        below = tmp_path / "mnt" / "times" / "latest" / str(source).lstrip("/")
        with pytest.raises(OSError, match="Input/output"):
            (below / "large").read_bytes()
        assert (below / "below" / "00007").read_bytes() == b"7"


def test_what_cannot_be_mounted(command: Packstone, source: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    packstone.init(repository).close()
    outcome = command("-r", repository, "mount", tmp_path / "nowhere", code=2)
    assert "not a directory" in outcome.messages
