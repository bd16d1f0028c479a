"""Histories made by hand: snapshots of any time, rates of any size, a strategy without a file."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from jobs_scene import HOUR, SECOND, Interval

import packstone
from packstone.operations.jobs.strategy import (
    Job,
    PathSource,
    RepositoryTarget,
    SqliteSource,
    Strategy,
)
from packstone.operations.measured import keep_sample
from packstone.repository.rates import Sample

DAY = 24 * HOUR
NOW = 1_760_000_000 * SECOND


@dataclass(frozen=True)
class Run:
    """What a simulated run says of itself; sizes in bytes."""

    days_ago: float
    size: float
    stored: float
    seconds: float = 60.0


class Scene:
    """A plain repository whose clock stands at `NOW`, and a strategy that tests add jobs to."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.source = place / "source"
        self.source.mkdir()
        packstone.init(place / "main", chunk_size=4096).close()
        self.main = RepositoryTarget(name="main", location=str(place / "main"))
        self.strategy = Strategy(path="packstone.toml")

    def job(self, name: str, *, streamed: bool = False, **words: Any) -> Job:
        source = SqliteSource(files=["/srv/x.db"]) if streamed else PathSource(paths=["/srv/crm"])
        words = {"repository": self.main, "every": Interval()} | words
        self.strategy.jobs[name] = made = Job(name=name, source=source, **words)
        return made

    @contextmanager
    def open(self) -> Iterator[packstone.Repository]:
        with packstone.Repository(self.main.location, clock=lambda: NOW) as repository:
            yield repository

    def snapshot(
        self, job: Job, ago: int, *, size: int | None = None, files: int = 1, **summary: int
    ) -> str:
        """Store a snapshot of a job, taken so long ago, that says to hold so much."""
        with self.open() as repository:
            return self.store(repository, job, ago, size=size, files=files, **summary)

    def store(
        self,
        repository: packstone.Repository,
        job: Job,
        ago: int,
        *,
        size: int | None = None,
        files: int = 1,
        part: str = "",
        **summary: int,
    ) -> str:
        if not any(self.source.iterdir()):
            (self.source / "file").write_bytes(os.urandom(5000))
        options: dict[str, Any] = {"tags": [job.tag], "time_ns": NOW - ago}
        if part:
            with (self.source / "file").open("rb") as stream:
                result = repository.snapshot_stream(stream, part, **options)
        else:
            result = repository.snapshot([self.source], **options)
        assert result.snapshot_id is not None
        if size is None and not summary:
            return result.snapshot_id
        return self._say(repository, result.snapshot_id, size, files, summary)

    def _say(
        self,
        repository: packstone.Repository,
        snapshot_id: str,
        size: int | None,
        files: int,
        said: dict[str, int],
    ) -> str:
        """Let a snapshot say of itself what a much larger one would."""
        objects = repository._objects
        old = repository.find_snapshot(snapshot_id).snapshot
        summary = old.summary | said
        if size is not None:
            summary |= {"bytes_total": size, "files": files}
        writer = objects.writer()
        writer.finish()
        made: str = writer.commit(msgspec.structs.replace(old, summary=summary))
        repository.forget([snapshot_id])
        return made

    def measured(self, what: str, size: int, seconds: float, **fields: Any) -> None:
        """Keep a rate that was measured on this host a while ago."""
        made = Sample(
            NOW - HOUR, what, size, 1, round(seconds * 1e9), socket.gethostname(), "directory"
        )
        with self.open() as repository:
            sample = msgspec.structs.replace(made, **fields)
            assert keep_sample(repository._objects, sample)

    def plan(self, *names: str, now: int = NOW) -> list[packstone.JobPlan]:
        return packstone.plan_jobs(self.strategy, names, clock=lambda: now)

    def history(self, job: Job, runs: Sequence[Run]) -> None:
        """Store snapshots of a job that say so of themselves; all hold one small tree."""
        first = self.snapshot(job, DAY * 1000)
        with self.open() as repository:
            objects = repository._objects
            old = repository.find_snapshot(first).snapshot
            for run in runs:
                summary = old.summary | {
                    "bytes_total": round(run.size),
                    "bytes_stored": round(run.stored),
                    "duration_ns": round(run.seconds * SECOND),
                }
                time_ns = NOW - round(run.days_ago * DAY)
                writer = objects.writer()
                writer.finish()
                writer.commit(msgspec.structs.replace(old, summary=summary, time_ns=time_ns))
            repository.forget([first])

    def advise(self, *names: str) -> list[packstone.RepositoryAdvice]:
        return packstone.advise_jobs(self.strategy, names)
