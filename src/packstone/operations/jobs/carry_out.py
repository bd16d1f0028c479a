"""One run of one job, from its `before` to its `after`; works in a process of its own.

Never raises: what goes wrong is in the report. A step that fails does not stop what can be done
without it, with one exception: nothing expires after a run that did not store everything.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from packstone.errors import (
    CommandFailed,
    Damaged,
    ObjectMissing,
    PackstoneError,
    RepositoryLocked,
    RepositoryMissing,
    StorageError,
)
from packstone.filesystem.ignore import Rules
from packstone.operations.copy import CopyResult
from packstone.operations.facade import Repository
from packstone.operations.jobs.apart import TimedOut, time_limit
from packstone.operations.jobs.hooks import environment, run_hook
from packstone.operations.jobs.report import Copied, JobReport, TakenSnapshot
from packstone.operations.jobs.sources import open_source
from packstone.operations.jobs.sources.store import is_stored, store_parts
from packstone.operations.jobs.strategy import (
    CommandSource,
    Job,
    PathSource,
    RepositoryTarget,
)
from packstone.operations.jobs.targets import absent, is_there, location_of, open_target
from packstone.operations.results import SnapshotResult
from packstone.repository.snapshots import SnapshotRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a run is told beside its strategy; as in `open`."""

    threads: int | None = None
    lock_timeout: float = 0.0
    waiting: Callable[[str], None] | None = None
    clock: Callable[[], int] = time.time_ns

    def open(self, target: RepositoryTarget) -> Repository:
        """Open a repository of the strategy; raises what opening raises."""
        return open_target(
            target,
            threads=self.threads,
            lock_timeout=self.lock_timeout,
            waiting=self.waiting,
        )


def carry_out(job: Job, options: RunOptions) -> JobReport:
    """Run a job once and return what came of it.

    SIGINT and SIGTERM, where they raise KeyboardInterrupt, and the job's timeout end the step
    under way; `after` is done in any case.
    """
    report = JobReport(job.name, began_ns=options.clock())
    started = time.monotonic()
    interrupted = False
    try:
        with time_limit(job.timeout_ns / 1e9 if job.timeout_ns else None):
            if _prepare(job, report):
                _Steps(job, options, report).run()
    except TimedOut:
        report.fail(PackstoneError(f"it took longer than {(job.timeout_ns or 0) / 1e9:g} seconds"))
    except KeyboardInterrupt:
        interrupted = True
    except (StorageError, Damaged) as error:
        place = location_of(job.repository)
        report.fail(error, f"repository {job.repository.name} ({place})")
    except Exception as error:
        report.fail(error)
    report.settle(interrupted=interrupted)
    for command in job.after:
        try:
            run_hook(command, environment(report))
        except KeyboardInterrupt:
            interrupted = True
        except PackstoneError as error:
            report.fail(error, "after")
    report.settle(interrupted=interrupted)
    report.seconds = time.monotonic() - started
    return report


def _prepare(job: Job, report: JobReport) -> bool:
    """Run what is to be done before; return whether all of it went well."""
    try:
        for command in job.before:
            run_hook(command, environment(report))
    except CommandFailed as error:
        report.fail(error, "before")
        return False
    return True


class _Steps:
    """What is done with the repository."""

    def __init__(self, job: Job, options: RunOptions, report: JobReport) -> None:
        self._job = job
        self._options = options
        self._report = report
        self._host = socket.gethostname()

    def run(self) -> None:
        """Store, expire, give back, copy, check; raises what keeps all of it from being done."""
        job, report, target = self._job, self._report, self._job.repository
        if not is_there(target):
            report.skip(absent(target), RepositoryMissing.exit_code)
            return
        with self._options.open(target) as repository:
            try:
                report.complete = self._store(repository)
                if report.complete and job.keep is not None:
                    self._step("keep", lambda: self._expire(repository))
                if report.complete and job.prune:
                    self._step("prune", lambda: self._prune(repository))
                for other in job.copy_to if report.snapshots else ():
                    self._step(f"copy to {other.name}", lambda to=other: self._copy(repository, to))  # type: ignore[misc]
                if report.snapshots and job.check is not None:
                    self._step("check", lambda: self._check(repository))
            finally:
                for warning in repository.warnings:
                    report.warn(warning)

    def _step(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._report.fail(error, name)

    def _store(self, repository: Repository) -> bool:
        """Take the snapshots of the job; return whether there is one of each part."""
        source = self._job.source
        tags = [self._job.tag, *self._job.tags]
        if isinstance(source, PathSource):
            result = repository.snapshot(
                source.paths,
                tags=tags,
                rules=Rules(
                    patterns=tuple(source.exclude),
                    caches=source.exclude_caches,
                    if_present=tuple(os.fsencode(name) for name in source.exclude_if_present),
                    one_file_system=source.one_file_system,
                    larger_than=source.exclude_larger_than,
                ),
            )
            self._report.snapshots.append(TakenSnapshot("", result))
            return self._has_all(repository, source.paths, result)
        complete = True
        for part in store_parts(repository, open_source(source), tags=tags):
            for warning in part.warnings:
                self._report.warn(f"{part.name}: {warning}")
            if part.error is not None:
                complete = False
                self._report.fail(part.error, part.name)
            if isinstance(source, CommandSource) and part.result and not part.result.bytes_total:
                # `dump | filter` exits with 0 although the dump has failed
                complete = False
                self._report.warn(f"nothing expires, for {part.name} is empty")
            if part.result is not None:
                self._report.snapshots.append(TakenSnapshot(part.name, part.result))
        return complete

    def _has_all(
        self, repository: Repository, paths: Sequence[str], result: SnapshotResult
    ) -> bool:
        """Return whether everything that is named was stored, whatever is missing below it.

        A disk that is not mounted must not let the last snapshots expire that have its files.
        """
        whole = True
        problems = {problem.path for problem in result.errors}
        for path in paths:
            where = os.path.abspath(os.fsencode(path))
            if where in problems and not is_stored(repository, result.snapshot_id or "", where):
                whole = False
                self._report.warn(f"nothing expires, for {path!r} was not stored")
        return whole

    def _expire(self, repository: Repository) -> None:
        """Forget by the job's rules: paths and names with a date in them are one history."""
        alone = isinstance(self._job.source, PathSource | CommandSource)
        result = repository.forget(
            keep=self._job.keep,
            group_by=("host",) if alone else ("host", "name"),
            host=self._host,
            tags=[self._job.tag],
        )
        self._report.forgotten = len(result.forgotten)
        for warning in result.warnings:
            self._report.warn(warning)

    def _prune(self, repository: Repository) -> None:
        try:
            result = repository.prune()
        except RepositoryLocked as error:
            # Another job stores something: whoever prunes next gives this space back too.
            self._report.warn(f"prune: {error.message}")
            return
        self._report.freed = result.bytes_freed
        for warning in result.warnings:
            self._report.warn(warning)
        if result.damaged:
            raise Damaged(
                f"{len(result.damaged)} packs with damage stay: "
                f"{next(iter(sorted(result.damaged.values())))}",
                hint="Run: packstone repair packs",
            )

    def _copy(self, repository: Repository, target: RepositoryTarget) -> None:
        """Copy every snapshot of the job that is not there yet."""
        if not is_there(target):
            self._report.notes.append(f"{absent(target)}: what it lacks is copied when it is")
            return
        rows = repository.snapshots(host=self._host, tags=[self._job.tag])
        lost: dict[str, PackstoneError] = {}
        with self._options.open(target) as other:
            try:
                results = [repository.copy_to(other, [row.id for row in rows])]
            except (Damaged, ObjectMissing):
                results = list(_copy_each(repository, other, rows, lost))
            for warning in other.warnings:  # those of the other one are told at the end
                self._report.warn(f"copy to {target.name}: {warning}")
        count = sum(len(result.copied) for result in results)
        stored = sum(result.bytes_stored for result in results)
        self._report.copies.append(Copied(target.name, count, stored))
        if lost:
            snapshot_id, error = next(iter(lost.items()))
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise Damaged(
                f"snapshot {snapshot_id[:8]}{more} cannot be copied, all others are there: "
                f"{error.message}",
                hint=f"Run: packstone check --read-data -r {self._job.repository.location}",
            )

    def _check(self, repository: Repository) -> None:
        budget = self._job.check
        assert budget is not None
        result = repository.check(
            read_data=not budget.subset and budget.max_seconds is None,
            subset=budget.subset or None,
            max_seconds=budget.max_seconds,
        )
        self._report.check = result
        for warning in result.warnings:
            self._report.warn(warning)
        for finding in result.errors:
            if finding.transient:
                self._report.warn(f"check: {finding.message}")
        lasting = [finding for finding in result.errors if not finding.transient]
        if lasting:
            more = f" and {len(lasting) - 1} more" if len(lasting) > 1 else ""
            raise Damaged(
                lasting[0].message + more,
                hint=f"Run: packstone check -r {self._job.repository.location}",
            )


def _copy_each(
    repository: Repository,
    other: Repository,
    rows: Sequence[SnapshotRow],
    lost: dict[str, PackstoneError],
) -> Iterator[CopyResult]:
    """Copy one after the other; what is damaged goes into `lost`, by id.

    One old snapshot that rots must not keep every later one from a second place.
    """
    for row in rows:
        try:
            yield repository.copy_to(other, [row.id])
        except (Damaged, ObjectMissing) as error:
            lost[row.id] = error
