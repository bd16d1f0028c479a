"""What a restore would cost: what is lost, how long it takes, what comes back when.

Reads snapshots and measured rates, writes nothing. Jobs come back one after the other, by
priority and then as the strategy lists them. A time that was never measured is not made up.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from packstone.errors import PackstoneError, UsageError
from packstone.operations.estimate import Estimate, estimate_seconds
from packstone.operations.facade import Repository
from packstone.operations.jobs.parts import is_good, newest_parts, of_job
from packstone.operations.jobs.sources import part_names
from packstone.operations.jobs.strategy import (
    CommandSource,
    Job,
    PathSource,
    RepositoryTarget,
    Strategy,
)
from packstone.operations.jobs.targets import open_target
from packstone.operations.measured import known_rates
from packstone.repository.rates import CHECK, LOAD, Sample, is_small
from packstone.repository.snapshots import SnapshotRow

OpenTarget = Callable[..., Repository]  # of a RepositoryTarget, and keywords of `open_target`
_JUDGED = 16  # estimates, the newest, that tell how good the next one is


@dataclass(slots=True)
class JobPlan:
    """What restoring one job would cost; times in seconds, None where they are not known.

    `snapshots` come back, one for each part. `loss` is the time since the last good snapshot of
    every part; `overdue` how long a run has been due. `estimate` is for this job alone, `back`
    when it is done after those before it, from `back_low` to `back_high`; where one of those is
    not known, `back` is the least that it takes. `off` is the median relative error of past
    estimates, of `judged` of them.
    """

    job: Job
    snapshots: list[SnapshotRow] = field(default_factory=list)
    newest_ns: int | None = None
    good_ns: int | None = None
    loss: float | None = None
    overdue: float | None = None
    bytes: int | None = None
    files: int | None = None
    estimate: Estimate | None = None
    back: float | None = None
    back_low: float | None = None
    back_high: float | None = None
    back_is_least: bool = False
    rpo_missed: bool | None = None
    rto_missed: bool | None = None
    off: float | None = None
    judged: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        """The targets that are missed: "rpo", "rto"."""
        missed = {"rpo": self.rpo_missed, "rto": self.rto_missed}
        return [name for name, is_missed in missed.items() if is_missed]

    @property
    def unknown(self) -> list[str]:
        """The targets of which it cannot be told."""
        targets = {
            "rpo": (self.job.rpo_ns, self.rpo_missed),
            "rto": (self.job.rto_ns, self.rto_missed),
        }
        return [name for name, (ns, missed) in targets.items() if ns and missed is None]


def plan_jobs(
    strategy: Strategy,
    names: Sequence[str] = (),
    *,
    open_target: OpenTarget = open_target,
    clock: Callable[[], int] = time.time_ns,
    **opening: Any,
) -> list[JobPlan]:
    """Return what restoring jobs, by default all, would cost, in the order they come back.

    All jobs are in the order, also those that are not named: they come back too. A repository
    that does not open, and snapshots that cannot be read, are told in the notes of its jobs.
    Further keywords as `open_target` takes them. Raises UsageError for an unknown name.
    """
    wanted = {job.name for job in chosen_jobs(strategy, names)}
    now_ns = clock()
    plans: dict[str, JobPlan] = {}
    for target, jobs in by_repository(strategy.jobs.values()):
        try:
            with contextlib.closing(open_target(target, **opening)) as repository:
                rows = repository.snapshots()
                known = known_rates(repository._objects, clock, repository.warnings.append)
                for job in jobs:
                    plans[job.name] = made = _plan(job, of_job(rows, job), known, now_ns)
                    # Of a snapshot that cannot be read nobody knows whose it is.
                    made.notes += dict.fromkeys(repository.warnings)
        except PackstoneError as error:
            for job in jobs:
                plans[job.name] = JobPlan(job, notes=[f"{target.name}: {error.message}"])
    ordered = sorted(strategy.jobs, key=lambda name: strategy.jobs[name].priority)
    _line_up([plans[name] for name in ordered])
    return [plans[name] for name in ordered if name in wanted]


def chosen_jobs(strategy: Strategy, names: Sequence[str]) -> list[Job]:
    """Return the jobs of these names, all without any; raises UsageError for an unknown one."""
    for name in names:
        if name not in strategy.jobs:
            raise UsageError(
                f"no job {name!r} in {strategy.path or 'the strategy'}",
                hint=f"Known: {', '.join(strategy.jobs) or 'none'}",
            )
    return [job for name, job in strategy.jobs.items() if not names or name in names]


def by_repository(jobs: Iterable[Job]) -> list[tuple[RepositoryTarget, list[Job]]]:
    """Return jobs with the repository they go to, each of these once."""
    found: dict[str, tuple[RepositoryTarget, list[Job]]] = {}
    for job in jobs:
        found.setdefault(job.repository.name, (job.repository, []))[1].append(job)
    return list(found.values())


def _plan(job: Job, rows: list[SnapshotRow], known: list[Sample], now_ns: int) -> JobPlan:
    plan = JobPlan(job)
    if not rows:
        plan.notes.append(f"no snapshot yet: packstone run {job.name}")
        plan.rpo_missed = True if job.rpo_ns else None
        return plan
    named = named_parts(job)
    plan.snapshots = newest_parts(rows, now_ns=now_ns, named=named)
    plan.newest_ns = max(row.snapshot.time_ns for row in plan.snapshots)
    _judge_loss(plan, rows, now_ns, named)
    _measure_size(plan)
    _judge_time(plan, known)
    return plan


def named_parts(job: Job) -> set[bytes]:
    """Return the names of what a job stores as streams; none for files and directories."""
    if isinstance(job.source, PathSource):
        return set()
    return {os.fsencode(name) for name in part_names(job.source)}


def _judge_loss(
    plan: JobPlan, rows: list[SnapshotRow], now_ns: int, named: Collection[bytes]
) -> None:
    """Say what is lost: of several parts the one that was stored longest ago counts."""
    job = plan.job
    good = newest_parts([row for row in rows if is_good(row)], now_ns=now_ns, named=named)
    bad = [row for row in plan.snapshots if not is_good(row)]
    if bad:
        count = sum(row.snapshot.summary.get("errors", 0) for row in bad)
        lost = any(row.snapshot.summary.get("lost", 0) for row in bad)
        what = "something that was lost" if lost and not count else f"{count} errors"
        plan.notes.append(f"the newest snapshot {bad[0].id[:8]} has {what}: it is not a good one")
    if len(good) < len(plan.snapshots):
        plan.notes.append("of some parts there is no good snapshot at all")
        plan.rpo_missed = True if job.rpo_ns else None
        return
    plan.good_ns = min(row.snapshot.time_ns for row in good)
    plan.loss = max(0, now_ns - plan.good_ns) / 1e9
    if plan.good_ns > now_ns:
        plan.notes.append("the newest snapshot is later than the clock of this machine")
    if job.every is not None:
        late = (now_ns - job.every.next_after(plan.good_ns)) / 1e9
        plan.overdue = late if late > 0 else None
    if job.rpo_ns is not None:
        plan.rpo_missed = plan.loss > job.rpo_ns / 1e9


def _measure_size(plan: JobPlan) -> None:
    sizes = [row.snapshot.summary.get("bytes_total") for row in plan.snapshots]
    files = [row.snapshot.summary.get("files") for row in plan.snapshots]
    if all(size is not None for size in sizes) and all(count is not None for count in files):
        plan.bytes = sum(size or 0 for size in sizes)
        plan.files = sum(count or 0 for count in files)
    else:
        plan.notes.append("its snapshots do not say how much is in them")


def is_loaded(job: Job) -> bool:
    """Return whether what a job stores is played back into a database or a command."""
    if isinstance(job.source, CommandSource):
        return bool(job.source.load)
    return not isinstance(job.source, PathSource)


def estimate_job(job: Job, known: Sequence[Sample], size: int, files: int) -> Estimate | None:
    """Estimate the restore of so much of a job, with the load into its database if measured."""
    host = socket.gethostname()
    found = None
    if is_loaded(job):
        found = estimate_seconds(known, size, files, job=job.name, host=host, load=True)
    stream = not isinstance(job.source, PathSource)
    return found or estimate_seconds(known, size, files, job=job.name, host=host, stream=stream)


def _judge_time(plan: JobPlan, known: list[Sample]) -> None:
    job = plan.job
    if plan.bytes is None or plan.files is None:
        return
    plan.estimate = estimate_job(job, known, plan.bytes, plan.files)
    if plan.estimate is None:
        plan.notes.append(
            f"no restore was measured in this repository: packstone rehearse {job.name}"
        )
    elif plan.estimate.kind == CHECK:
        plan.notes.append(f"only checks were measured, no restore: packstone rehearse {job.name}")
    if plan.estimate is not None and is_loaded(job) and plan.estimate.kind != LOAD:
        plan.notes.append(
            "without the load into the database, which was not measured: "
            f"packstone rehearse {job.name} --to-database NAME"
        )
    plan.off, plan.judged = estimates_off(known, job.name)


def estimates_off(known: Sequence[Sample], job: str) -> tuple[float | None, int]:
    """Return the median relative error of past estimates of a job, and their number.

    Of all jobs where this one has none: then the number is 0.
    """
    errors = [
        (each.job, abs(each.estimated_ns - each.elapsed_ns) / each.elapsed_ns)
        for each in known
        if each.estimated_ns and not is_small(each)
    ]
    own = [error for name, error in errors if name == job][-_JUDGED:]
    if own:
        return median(own), len(own)
    others = [error for _name, error in errors][-_JUDGED:]
    return (median(others) if others else None), 0


def _line_up(plans: list[JobPlan]) -> None:
    """Say when each is back, those before it first."""
    at = low = high = 0.0
    is_least = False
    for plan in plans:
        estimate = plan.estimate
        if estimate is None:
            is_least = True  # of all that come after it
            continue
        at += estimate.seconds
        low += estimate.low
        high += estimate.high
        plan.back, plan.back_low, plan.back_high = at, low, high
        plan.back_is_least = is_least
        if plan.job.rto_ns is not None:
            missed = at > plan.job.rto_ns / 1e9
            # what comes before it for an unknown time may keep it from its target
            plan.rto_missed = missed if missed or not is_least else None
