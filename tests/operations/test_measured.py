"""Measurements of restores and checks: kept when they tell something, never in the way."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

import packstone
from packstone.errors import StorageFull, StorageUnavailable
from packstone.operations.measured import keep_sample, known_rates, made_sample
from packstone.repository.rates import CHECK, RESTORE, VERIFIED_RESTORE, Sample


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what takes milliseconds tell a rate: real ones take too long for a test."""
    monkeypatch.setattr("packstone.repository.rates._SMALL_NS", 1)
    monkeypatch.setattr("packstone.repository.rates._SMALL_BYTES", 1)


@pytest.fixture
def stored(repository: packstone.Repository, source: Path) -> packstone.Repository:
    (source / "file").write_bytes(Random(1).randbytes(300_000))
    repository.snapshot([source], tags=["job:crm"])
    return repository


def rates(repository: packstone.Repository) -> list[Sample]:
    return known_rates(repository._objects)


def state(repository: packstone.Repository) -> dict[str, str]:
    root = Path(repository.location)
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] != "index"
    }


@pytest.mark.usefixtures("quick")
def test_a_restore_and_a_check_are_measured(stored: packstone.Repository, tmp_path: Path) -> None:
    before = time.time_ns()
    stored.restore("latest", tmp_path / "a", estimated_seconds=7.0)
    stored.restore("latest", tmp_path / "b", verify=True)
    stored.check(read_data=True)
    restore, verified, check = rates(stored)
    assert (restore.what, restore.bytes, restore.files, restore.job) == (RESTORE, 300_000, 1, "crm")
    assert before <= restore.time_ns <= time.time_ns()
    assert 0 < restore.elapsed_ns < 60 * 10**9 and restore.estimated_ns == 7 * 10**9
    assert restore.storage == "directory" and restore.host
    assert verified.what == VERIFIED_RESTORE
    assert check.what == CHECK and check.bytes >= 300_000


@pytest.mark.usefixtures("quick")
def test_what_wrote_nothing_or_not_all_tells_no_rate(
    stored: packstone.Repository, tmp_path: Path
) -> None:
    stored.restore("latest", tmp_path / "a", dry_run=True)
    stored.check()
    assert rates(stored) == []
    stored.restore("latest", tmp_path / "b")
    for overwrite in ("changed", "never"):
        stored.restore("latest", tmp_path / "b", overwrite=overwrite)
    assert len(rates(stored)) == 1


@pytest.mark.usefixtures("quick")
def test_a_damaged_repository_is_not_written_to(
    stored: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """Not even of what could be restored: the disk is about to fail."""
    (source / "whole").write_text("whole\n")
    stored.snapshot([source])
    packs = [path for path in (Path(stored.location) / "packs").rglob("*") if path.is_file()]
    largest = max(packs, key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    with largest.open("r+b") as file:
        file.seek(100_000)
        file.write(bytes(10_000))
    before = state(stored)
    result = stored.restore("latest", tmp_path / "a")
    assert result.errors and result.files_restored == 1
    assert state(stored) == before
    assert stored.check(read_data=True).errors
    assert [each.what for each in rates(stored)] == []


def test_small_restores_leave_few_samples(stored: packstone.Repository, tmp_path: Path) -> None:
    for number in range(12):
        stored.restore("latest", tmp_path / str(number))
    assert len(rates(stored)) == 8
    assert stored.estimate_restore("latest") is None, "a beginning tells no rate"


@pytest.mark.parametrize("error", [StorageFull, StorageUnavailable], ids=["full", "read-only"])
def test_where_nothing_can_be_written_the_measurement_is_lost_and_nothing_else(
    stored: packstone.Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[packstone.StorageError],
) -> None:
    storage = stored._objects.storage

    def refuse(name: str, data: object) -> None:
        raise error(f"{name}: no")

    monkeypatch.setattr(storage, "put", refuse)
    result = stored.restore("latest", tmp_path / "a")
    assert result.errors == [] and result.warnings == [] and stored.warnings == []
    assert (tmp_path / "a").is_dir() and rates(stored) == []


def test_a_broken_history_is_no_obstacle(stored: packstone.Repository, tmp_path: Path) -> None:
    history = Path(stored.location) / "history"
    history.rmdir()
    history.write_text("no folder")
    assert stored.estimate_restore("latest") is None
    result = stored.restore("latest", tmp_path / "a")
    assert result.errors == [] and result.warnings == []
    history.unlink()
    stored.restore("latest", tmp_path / "b")
    assert len(rates(stored)) == 1, "the folder is made again"


def test_a_restore_takes_no_lock_that_excludes_others(
    stored: packstone.Repository, tmp_path: Path
) -> None:
    """Another process holds the shared lock all the time."""
    program = (
        "import packstone, sys\n"
        f"repository = packstone.open({stored.location!r})\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        stored.restore("latest", tmp_path / "a")
        assert len(rates(stored)) == 1
        assert other.stdin is not None
        other.stdin.close()


def test_the_size_of_a_part_is_counted(stored: packstone.Repository, source: Path) -> None:
    (source / "below").mkdir()
    for number in range(5):
        (source / "below" / f"{number}.log").write_bytes(bytes(1000))
    stored.snapshot([source])
    sample = made_sample(stored._objects, RESTORE, size=1 << 30, files=1, seconds=10)
    assert keep_sample(stored._objects, sample)
    per_byte = 10 / (1 << 30)
    for path, options, size in (
        (b"", {}, 305_000),
        (b"", {"include": ["*.log"]}, 5000),
        (b"", {"exclude": ["*.log"]}, 300_000),
        (bytes(source / "below"), {}, 5000),
        (bytes(source / "file"), {}, 300_000),
        (b"", {"content": (1 << 40, 1)}, 1 << 40),
    ):
        found = stored.estimate_restore("latest", path=path, **options)
        assert found is not None and found.seconds == pytest.approx(size * per_byte)
    assert stored.estimate_restore("latest", path=b"/nowhere") is None
