"""Strategies made by hand, for tests of what carries them out; nothing of the user's is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import packstone
from packstone.operations.jobs.report import JobReport, RunReport
from packstone.operations.jobs.run import run_jobs
from packstone.operations.jobs.strategy import (
    CommandSource,
    Job,
    PathSource,
    RepositoryTarget,
    Source,
    Strategy,
)

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


@dataclass(frozen=True)
class Interval:
    """Every so many nanoseconds, from the last time on."""

    step: int = HOUR

    def next_after(self, time_ns: int) -> int:
        return time_ns + self.step


class Scene:
    """A repository, a source, and a strategy that tests add jobs to."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.source = place / "source"
        self.source.mkdir()
        (self.source / "file").write_text("content\n")
        self.main = self.make("main")
        self.strategy = Strategy(
            path=str(place / "packstone.toml"),
            state_dir=str(place / "state"),
            metrics=str(place / "packstone.prom"),
        )

    def make(self, name: str, **words: Any) -> RepositoryTarget:
        """Make a repository and return what a strategy calls it."""
        packstone.init(self.place / name, chunk_size=4096).close()
        return RepositoryTarget(name=name, location=str(self.place / name), **words)

    def add(self, name: str, source: Source | None = None, **words: Any) -> Job:
        """Add a job, by default of the source directory to the main repository, every hour."""
        words = {"repository": self.main, "every": Interval()} | words
        job = Job(name=name, source=source or PathSource(paths=[str(self.source)]), **words)
        self.strategy.jobs[name] = job
        return job

    def command(self, name: str, script: str, **words: Any) -> Job:
        """Add a job that stores what a shell script prints."""
        return self.add(name, CommandSource(argv=["sh", "-c", script], name=f"{name}.sql"), **words)

    def run(self, *names: str, **words: Any) -> RunReport:
        return run_jobs(self.strategy, names, threads=1, **words)

    def one(self, *names: str, **words: Any) -> JobReport:
        """Run and return the report of the only job."""
        report = self.run(*names, **words)
        assert len(report.jobs) == 1, report
        return report.jobs[0]

    def snapshots(
        self, tags: Sequence[str] = (), target: RepositoryTarget | None = None
    ) -> list[packstone.SnapshotRow]:
        with packstone.open((target or self.main).location) as repository:
            return repository.snapshots(tags=tags)

    def write(self, path: str, text: str) -> Path:
        where = self.place / path
        where.write_text(text)
        return where
