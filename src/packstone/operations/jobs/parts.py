"""Which snapshots of a job belong together: the parts that a run stored, and what comes back."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from statistics import median

from packstone.operations.jobs.strategy import Job
from packstone.repository.snapshots import SnapshotRow

_HOUR_NS = 3600 * 10**9
_MISSED = 10  # runs after which a part that is not stored any more is not part of the job

PartKey = tuple[str, bytes, tuple[bytes, ...]]


def part_of(row: SnapshotRow) -> PartKey:
    """Return what is the same in all snapshots of one part of a job."""
    snapshot = row.snapshot
    return snapshot.host, snapshot.name, () if snapshot.name else tuple(sorted(snapshot.paths))


def of_job(rows: Sequence[SnapshotRow], job: Job) -> list[SnapshotRow]:
    """Return the snapshots of a job, in their order."""
    return [row for row in rows if job.tag in row.snapshot.tags]


def newest_parts(
    rows: Sequence[SnapshotRow], *, now_ns: int | None = None, named: Collection[bytes] = ()
) -> list[SnapshotRow]:
    """Return the newest snapshot of each part of a job, in the order in which they were taken.

    `rows` are those of the job, oldest first; those later than `now_ns` count only where there
    are no others. A part that was not stored for ten runs is left out, unless it is `named`: what
    the job is to store and fails to is what must not be forgotten.
    """
    counted = [row for row in rows if now_ns is None or row.snapshot.time_ns <= now_ns]
    newest: dict[PartKey, SnapshotRow] = {}
    for row in counted or rows:
        newest[part_of(row)] = row
    if not newest:
        return []
    last = max(newest.values(), key=lambda row: row.snapshot.time_ns)
    times = [row.snapshot.time_ns for row in rows if part_of(row) == part_of(last)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    usual = max(median(gaps), _HOUR_NS) if gaps else None
    oldest = 0 if usual is None else last.snapshot.time_ns - _MISSED * usual
    parts = [
        row
        for row in newest.values()
        if row.snapshot.time_ns >= oldest or row.snapshot.name in named
    ]
    return sorted(parts, key=lambda row: (row.snapshot.time_ns, row.id))


def is_good(row: SnapshotRow) -> bool:
    """Return whether a snapshot holds all of its source, and lost none of it since."""
    summary = row.snapshot.summary
    return not summary.get("errors", 0) and not summary.get("lost", 0)


def group_runs(rows: Sequence[SnapshotRow]) -> list[list[SnapshotRow]]:
    """Return a job's snapshots by the run that took them; a part twice begins another run."""
    runs: list[list[SnapshotRow]] = []
    seen: set[PartKey] = set()
    for row in rows:
        key = part_of(row)
        if not runs or key in seen:
            runs.append([])
            seen = set()
        runs[-1].append(row)
        seen.add(key)
    return runs
