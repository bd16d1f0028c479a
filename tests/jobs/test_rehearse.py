"""Rehearsals: what comes back, what is measured, what is left behind, what goes wrong."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from compare_trees import assert_equal_trees
from jobs.planning_scene import Scene

import packstone
from packstone.operations.jobs import rehearse
from packstone.operations.jobs.strategy import CommandSource, Job, PathSource
from packstone.operations.measured import known_rates


class Place(Scene):
    """A scene whose jobs store what is really there."""

    def files(self, name: str = "crm") -> Job:
        self.strategy.jobs[name] = made = Job(
            name=name, repository=self.main, source=PathSource(paths=[str(self.source)])
        )
        with packstone.open(self.main.location) as repository:
            repository.snapshot([self.source], tags=[made.tag])
        return made

    def stream(self, data: bytes, name: str = "dump") -> Job:
        source = CommandSource(argv=["true"], name="dump.sql", load=["sh", "-c", "cat > loaded"])
        self.strategy.jobs[name] = made = Job(name=name, repository=self.main, source=source)
        path = self.place / "dump"
        path.write_bytes(data)
        with packstone.open(self.main.location) as repository, path.open("rb") as stream:
            repository.snapshot_stream(stream, "dump.sql", tags=[made.tag])
        return made

    def rehearse(self, name: str = "crm", **words: object) -> packstone.Rehearsal:
        scratch = self.place / "scratch"
        scratch.mkdir(exist_ok=True)
        return packstone.rehearse_job(self.strategy, name, **({"target": str(scratch)} | words))

    def left(self) -> list[Path]:
        return list((self.place / "scratch").iterdir())

    def packs(self) -> list[Path]:
        return [path for path in (self.place / "main" / "packs").rglob("*") if path.is_file()]


@pytest.fixture
def place(tmp_path: Path, source: Path) -> Place:
    below = tmp_path / "scene"
    below.mkdir()
    made = Place(below)
    made.source.rmdir()
    made.source = source
    return made


def test_files_come_back_and_go_again(place: Place) -> None:
    place.files()
    kept = place.rehearse(keep=True)
    assert kept.errors == [] and kept.files > 0 and kept.verify_seconds > 0
    assert kept.files_verified >= 1
    assert_equal_trees(place.source, Path(f"{kept.place}/0{place.source}"))
    assert len(place.left()) == 1 and os.stat(kept.place).st_mode & 0o077 == 0, "nobody else's"
    gone = place.rehearse()
    assert gone.place == "" and [str(path) for path in place.left()] == [kept.place]


def test_a_damaged_pack_is_found_and_nothing_is_measured(place: Place) -> None:
    (place.source / "big").write_bytes(Random(1).randbytes(1 << 20))
    place.files()
    largest = max(place.packs(), key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    with largest.open("r+b") as file:
        file.seek(500_000)
        file.write(bytes(20_000))
    found = place.rehearse()
    assert found.errors
    assert not found.kept_rate and place.left() == []
    with packstone.open(place.main.location) as repository:
        assert known_rates(repository._objects) == []


def test_what_changes_on_the_scratch_disk_is_found(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives back something else than what was written."""
    (place.source / "big").write_bytes(Random(1).randbytes(1 << 20))
    place.files()
    original = packstone.Repository.restore

    def meddle(self: packstone.Repository, *words: object, **options: object) -> object:
        if options.get("verify"):
            (big,) = (place.place / "scratch").rglob("big")
            stat = big.stat()
            with big.open("r+b") as file:
                file.seek(70_000)
                file.write(b"?")
            os.utime(big, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return original(self, *words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(packstone.Repository, "restore", meddle)
    assert place.rehearse().errors


def test_no_room_no_job_no_snapshot(place: Place, tmp_path: Path) -> None:
    place.files()
    with pytest.raises(packstone.UsageError, match="cannot rehearse"):
        place.rehearse(target=str(tmp_path / "nowhere"))
    with pytest.raises(packstone.UsageError, match="no job"):
        place.rehearse("other")
    with pytest.raises(packstone.UsageError, match="no database"):
        place.rehearse(database="x")
    place.strategy.jobs["empty"] = Job(
        name="empty", repository=place.main, source=PathSource(paths=["/srv"])
    )
    with pytest.raises(packstone.UsageError, match="no snapshot"):
        place.rehearse("empty")


def test_room_is_looked_at_before_anything_is_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.files()
    place.snapshot(job, -(10**18), size=1 << 60)
    with packstone.Repository(place.main.location, clock=lambda: 1 << 62) as repository:
        scratch = place.place / "scratch"
        scratch.mkdir()
        with pytest.raises(packstone.UsageError, match="has room for"):
            rehearse.rehearse_in(repository, job, target=str(scratch), clock=lambda: 1 << 62)
    assert place.left() == []


def test_a_stream_is_read_to_its_end_and_its_time_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Random(1).randbytes(3_000_000)
    place.stream(data)
    # as if it were slow enough to tell a rate: that much would take too long here
    monkeypatch.setattr("packstone.repository.rates._SMALL_NS", 1)
    monkeypatch.setattr("packstone.repository.rates._SMALL_BYTES", 1)
    first = place.rehearse("dump")
    assert (first.files, first.bytes, first.errors) == (1, len(data), [])
    assert first.estimate is None and first.kept_rate
    second = place.rehearse("dump")
    assert second.estimate is not None and second.off is not None
    assert second.judged == 1 and second.off_median == pytest.approx(abs(second.off), rel=1e-3)
    (plan,) = packstone.plan_jobs(place.strategy, ["dump"])
    assert plan.judged == 1 and plan.estimate is not None and plan.estimate.samples == 2


def test_a_dump_is_loaded_where_that_is_asked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Random(1).randbytes(300_000)
    place.stream(data)
    monkeypatch.chdir(place.place)
    monkeypatch.setattr("packstone.repository.rates._SMALL_NS", 1)
    monkeypatch.setattr("packstone.repository.rates._SMALL_BYTES", 1)
    found = place.rehearse("dump", database="unused")
    assert found.loaded and found.bytes == len(data) and found.kept_rate
    assert (place.place / "loaded").read_bytes() == data
    (plan,) = packstone.plan_jobs(place.strategy, ["dump"])
    assert plan.estimate is not None and plan.estimate.kind == "load"


def test_a_newer_snapshot_that_cannot_be_read_is_said(place: Place) -> None:
    place.files()
    place.files()
    with packstone.open(place.main.location) as repository:
        newest = repository.snapshots()[-1]
    path = place.place / "main" / "snapshots" / newest.id
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))
    result = place.rehearse()
    assert result.snapshots and newest.id not in [row.id for row in result.snapshots]
    assert any(newest.id[:8] in text for text in result.warnings), result.warnings
