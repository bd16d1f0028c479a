"""What the runs of a job bring to the disk and hold: the series that growth is fitted to.

Where most runs were forgotten, what those left need beyond one another counts, not what each
stored when it was new: that went with the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median

from packstone.operations.jobs.growth import DAY_NS, FEWEST, WEEK_DAYS, Slope, fit_growth
from packstone.operations.jobs.parts import PartKey, part_of
from packstone.operations.stats import collect_growth
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow

_DENSE = 3.0  # usual gaps between runs; where they are wider, snapshots were forgotten
_NEARLY = 0.8  # of a day is a day: runs begin late now and then
_RECENT = 8  # runs that say what the usual gap is


class StoredBytes:
    """What snapshots brought to the packs, as far as they say it themselves."""

    def __init__(self, repository: ObjectRepository, rows: Sequence[SnapshotRow]) -> None:
        self._repository = repository
        said = {row.id: row.snapshot.summary.get("bytes_stored") for row in rows}
        if None in said.values():  # older versions said nothing: all trees are walked
            said = {each.row.id: each.new.bytes_stored for each in collect_growth(repository)}
        self._said = said

    def of(self, run: Sequence[SnapshotRow]) -> int:
        """Return the bytes that a run stored."""
        return sum(self._said[row.id] or 0 for row in run)

    def growth(self, runs: Sequence[list[SnapshotRow]]) -> Slope | None:
        """Fit what runs add to the repository; the first copy of everything is no growth.

        Where most runs were forgotten, what those that are left need beyond one another: that
        is what stays on the disk.
        """
        dense = dense_runs(runs)
        if len(dense) == len(runs) or days_of(dense) >= WEEK_DAYS:
            return _fit(dense, [self.of(run) for run in dense])
        for step in (DAY_NS, 7 * DAY_NS, 31 * DAY_NS):
            thin = dense_runs(_thinned(runs, step))
            if len(thin) >= FEWEST:
                rows = [row for run in thin for row in run]
                found = collect_growth(self._repository, rows)
                new = {each.row.id: each.new.bytes_stored for each in found}
                return _fit(thin, [sum(new[row.id] for row in run) for run in thin])
        return None


def _fit(runs: Sequence[list[SnapshotRow]], stored: Sequence[int]) -> Slope | None:
    if not runs:
        return None
    levels = itertools.accumulate(stored[1:], initial=0)
    return fit_growth([time_of(run) for run in runs], [float(level) for level in levels])


def dense_runs(runs: Sequence[list[SnapshotRow]]) -> Sequence[list[SnapshotRow]]:
    """Return the newest runs between which none was forgotten: the rest tells too little."""
    times = [time_of(run) for run in runs]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    if not gaps:
        return runs
    widest = _DENSE * max(median(gaps[-_RECENT:]), 1)
    first = next((at for at in range(len(gaps) - 1, -1, -1) if gaps[at] > widest), -1) + 1
    return runs[first:]


def _thinned(runs: Sequence[list[SnapshotRow]], step: int) -> list[list[SnapshotRow]]:
    """Return about one run for each step of time, the newest first of all; oldest first."""
    kept = [runs[-1]]
    for run in reversed(runs[:-1]):
        if time_of(kept[-1]) - time_of(run) >= _NEARLY * step:
            kept.append(run)
    return kept[::-1]


def time_of(run: Sequence[SnapshotRow]) -> int:
    """Return when a run began; Unix time in ns."""
    return run[0].snapshot.time_ns


def days_of(runs: Sequence[list[SnapshotRow]]) -> float:
    """Return the days between the first run and the last."""
    return (time_of(runs[-1]) - time_of(runs[0])) / DAY_NS


def sizes_after(runs: Sequence[Sequence[SnapshotRow]]) -> list[int | None]:
    """Return what is in a job after each run: of each part the newest."""
    newest: dict[PartKey, int | None] = {}
    sizes: list[int | None] = []
    for run in runs:
        for row in run:
            newest[part_of(row)] = row.snapshot.summary.get("bytes_total")
        known = [size for size in newest.values() if size is not None]
        sizes.append(sum(known) if len(known) == len(newest) else None)
    return sizes
