"""What the history of jobs suggests: how they grow, when the disk is full, what to change.

Reads snapshots, trees and the view, writes nothing. What is said rests on what was measured in
this repository; where that is too little it is said instead of a number.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from packstone.errors import PackstoneError
from packstone.operations.facade import Repository
from packstone.operations.jobs.growth import (
    FEWEST,
    SHORTEST_DAYS,
    WEEK_DAYS,
    Slope,
    fit_growth,
)
from packstone.operations.jobs.parts import group_runs, of_job
from packstone.operations.jobs.plan import OpenTarget, by_repository, chosen_jobs
from packstone.operations.jobs.proposals import (
    EveryProposal,
    KeepProposal,
    propose_every,
    propose_keep,
    reach_days,
)
from packstone.operations.jobs.stored import (
    StoredBytes,
    days_of,
    dense_runs,
    sizes_after,
    time_of,
)
from packstone.operations.jobs.strategy import Job, RepositoryTarget, Strategy
from packstone.operations.jobs.targets import open_target
from packstone.repository.snapshots import SnapshotRow

_RUNS_JUDGED = 20
_WHOLE = 0.01  # of its bytes a first copy takes at least; what is less was there already


@dataclass(slots=True)
class JobAdvice:
    """What was found of one job; sizes in bytes, rates a day, durations in seconds.

    `size_growth` is of what is in its snapshots, `stored_growth` of what they take in the
    repository; None with too little history, which `notes` then say. `change_stored` is what the
    median run stores, `change_share` that as a part of all of the job's data. `stored_ratio` is
    what a byte takes in the repository when it is stored first, `run_seconds` the longest of the
    last runs.
    """

    job: Job
    runs: int = 0
    days: float = 0.0
    bytes: int | None = None
    size_growth: Slope | None = None
    stored_growth: Slope | None = None
    change_stored: float | None = None
    change_share: float | None = None
    stored_ratio: float = 1.0
    run_seconds: float | None = None
    every: EveryProposal | None = None
    keep: KeepProposal | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RepositoryAdvice:
    """When one repository is full; sizes in bytes, `full_days` from now, None if it is not known.

    `full_earliest` and `full_latest` bound it; infinity stands for never. `left` is what fits in
    it still, of the disk or of `max_size`. `others_stored` is the growth of what no job took.
    """

    target: RepositoryTarget
    bytes: int = 0
    left: int | None = None
    limit: str = ""
    stored_growth: Slope | None = None
    full_days: float | None = None
    full_earliest: float | None = None
    full_latest: float | None = None
    jobs: list[JobAdvice] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def advise_jobs(
    strategy: Strategy,
    names: Sequence[str] = (),
    *,
    open_target: OpenTarget = open_target,
    **opening: Any,
) -> list[RepositoryAdvice]:
    """Return what the history of jobs, by default all, suggests, by their repositories.

    Further keywords as `open_target` takes them. A repository that does not open, and snapshots
    that cannot be read, are told in its notes. Raises UsageError for an unknown name.
    """
    wanted = {job.name for job in chosen_jobs(strategy, names)}
    found = []
    for target, jobs in by_repository(strategy.jobs.values()):
        if not any(job.name in wanted for job in jobs):
            continue
        try:
            with contextlib.closing(open_target(target, **opening)) as repository:
                advice = _advise(repository, target, jobs)
                advice.notes += dict.fromkeys(repository.warnings)
        except PackstoneError as error:
            advice = RepositoryAdvice(target, notes=[error.message])
            advice.jobs = [JobAdvice(job) for job in jobs]
        advice.jobs = [each for each in advice.jobs if each.job.name in wanted]
        found.append(advice)
    return found


def _advise(
    repository: Repository,
    target: RepositoryTarget,
    jobs: Sequence[Job],
) -> RepositoryAdvice:
    objects = repository._objects
    advice = RepositoryAdvice(target)
    advice.bytes = sum(size for _name, size in objects.storage.list("packs"))
    advice.left, advice.limit = _room(target, objects.storage.free(), advice.bytes)
    rows = repository.snapshots()
    stored = StoredBytes(objects, rows)
    taken: set[str] = set()
    for job in jobs:
        mine = [row for row in of_job(rows, job) if row.id not in taken]
        taken.update(row.id for row in mine)
        advice.jobs.append(_look_at(job, mine, stored))
    others = [row for row in rows if row.id not in taken]
    slopes = {each.job.name: each.stored_growth for each in advice.jobs if each.runs}
    if others:
        what = "1 snapshot" if len(others) == 1 else f"{len(others)} snapshots"
        advice.notes.append(f"{what} in it of no job here")
        slopes[""] = stored.growth(group_runs(others))
    advice.stored_growth = sum_slopes([slope for slope in slopes.values() if slope is not None])
    missing = [name or "what is of no job" for name, slope in slopes.items() if slope is None]
    if missing and advice.stored_growth is not None:
        advice.notes.append(f"its growth leaves out {', '.join(missing)}: too little history")
    _predict(advice)
    for each in advice.jobs:
        _propose(each, advice)
    return advice


def _room(target: RepositoryTarget, free: int | None, size: int) -> tuple[int | None, str]:
    """Return what may still be stored, and what bounds it."""
    if target.max_size is not None:
        left = max(0, target.max_size - size)
        if free is None or left <= free:
            return left, "max_size"
    return free, "the disk"


def _look_at(job: Job, rows: Sequence[SnapshotRow], stored: StoredBytes) -> JobAdvice:
    """Return what was measured of a job, without any proposal."""
    advice = JobAdvice(job)
    runs = group_runs(rows)
    advice.runs = len(runs)
    if not runs:
        advice.notes.append(f"no snapshot yet: packstone run {job.name}")
        return advice
    times = [time_of(run) for run in runs]
    advice.days = days_of(runs)
    sizes = sizes_after(runs)
    advice.bytes = sizes[-1]
    if all(size is not None for size in sizes):
        advice.size_growth = fit_growth(times, [float(size or 0) for size in sizes])
    advice.stored_growth = stored.growth(runs)
    if advice.size_growth is None:
        advice.notes.append(
            f"too little history for a trend: {len(runs)} runs over {advice.days:.1f} days, at "
            f"least {FEWEST} over {SHORTEST_DAYS:.0f} are needed"
        )
    elif advice.days < WEEK_DAYS:
        advice.notes.append(
            f"{advice.days:.0f} days cannot tell a weekly rhythm from growth: ask again in "
            f"{math.ceil(WEEK_DAYS - advice.days)} days"
        )
    for step in advice.size_growth.steps if advice.size_growth else ():
        day = time.strftime("%Y-%m-%d", time.localtime(step.time_ns / 1e9))
        advice.notes.append(
            f"{'+' if step.size > 0 else '-'}{abs(step.size) / (1 << 20):,.0f} MiB in one go on "
            f"{day} count as no growth"
        )
    later = [stored.of(run) for run in dense_runs(runs)[1:]]
    if later:
        advice.change_stored = median(later)
        advice.change_share = advice.change_stored / advice.bytes if advice.bytes else None
    first = stored.of(runs[0])
    if sizes[0] and first > _WHOLE * sizes[0]:
        advice.stored_ratio = min(1.0, first / sizes[0])
    took = [
        sum(row.snapshot.summary.get("duration_ns", 0) for row in run) / 1e9
        for run in runs[-_RUNS_JUDGED:]
    ]
    advice.run_seconds = max(took) or None
    return advice


def sum_slopes(known: Sequence[Slope]) -> Slope | None:
    """Add slopes that know nothing of each other; None without any.

    Half-widths add up as the roots of sums of squares.
    """
    if not known:
        return None
    middle = sum(slope.per_day for slope in known)
    below = math.hypot(*(slope.per_day - slope.low for slope in known))
    above = math.hypot(*(slope.high - slope.per_day for slope in known))
    return Slope(
        middle,
        middle - below,
        middle + above,
        min(slope.points for slope in known),
        min(slope.days for slope in known),
    )


def days_until(left: float, per_day: float) -> float:
    """Return the days until so many bytes are used up, infinity for never."""
    return left / per_day if per_day > 0 else math.inf


def _predict(advice: RepositoryAdvice) -> None:
    """Say when nothing fits any more, if all goes on like this."""
    if advice.left is None:
        advice.notes.append("how much fits into this storage is not known: set max_size")
        return
    growth = advice.stored_growth
    if growth is None:
        advice.notes.append("too little history to say when it is full")
        return
    advice.full_days = days_until(advice.left, growth.per_day)
    advice.full_earliest = days_until(advice.left, growth.high)
    advice.full_latest = days_until(advice.left, growth.low)
    expiring = [each.job for each in advice.jobs if each.job.keep is not None and each.job.prune]
    reaches = [reach_days(job.keep) for job in expiring if job.keep is not None]
    known = [reach for reach in reaches if reach is not None]
    if known and max(known) < advice.full_days:
        advice.notes.append(
            f"this leaves out what expires: after {max(known):.0f} days old versions go as fast as "
            "new ones come, and only the growth of the data stays"
        )


def _propose(advice: JobAdvice, of: RepositoryAdvice) -> None:
    """Propose `every` and `keep`, where enough was measured."""
    job = advice.job
    every_seconds = None
    if job.rpo_ns is not None:
        advice.every = propose_every(job.rpo_ns / 1e9, advice.run_seconds)
        every_seconds = job.rpo_ns / 1e9 if advice.every.every else None
    elif advice.runs:
        advice.notes.append("no rpo is set: how often it must run cannot be said")
    stored, size = advice.stored_growth, advice.size_growth
    total = of.stored_growth
    if stored is None or size is None or total is None or of.left is None or not advice.bytes:
        return
    # of the room each job gets what it uses of it now
    share = stored.high / total.high if total.high > 0 else 1 / max(len(of.jobs), 1)
    old = stored.per_day * stored.days
    room = of.left * min(share, 1.0) + max(old, 0.0)
    lasting = min(max(size.high, 0.0) * advice.stored_ratio, max(stored.high, 0.0))
    advice.keep = propose_keep(room, stored.high, lasting, every_seconds)
