"""Carry out a strategy: what is due, in order of priority, one report at the end.

Each job works in a process of its own; here is what must be done whatever becomes of that:
the lock, what is remembered, who is told. A job that fails stops no other.
"""

from __future__ import annotations

import difflib
import os
import socket
import time
from collections.abc import Callable, Sequence

import msgspec

from packstone.errors import (
    PackstoneError,
    RepositoryLocked,
    RepositoryMissing,
    UsageError,
)
from packstone.operations.jobs.apart import GRACE_S, Wishes, run_apart
from packstone.operations.jobs.carry_out import RunOptions, carry_out
from packstone.operations.jobs.due import NEVER_RAN, due_at
from packstone.operations.jobs.hooks import environment, run_hook
from packstone.operations.jobs.memory import JobFiles, Memory
from packstone.operations.jobs.metrics import write_metrics
from packstone.operations.jobs.ping import TIMEOUT_S, ping
from packstone.operations.jobs.report import (
    DONE,
    FAILED,
    INTERRUPTED,
    SKIPPED,
    JobReport,
    Planned,
    RunReport,
)
from packstone.operations.jobs.sources import part_names
from packstone.operations.jobs.strategy import Job, Strategy
from packstone.operations.jobs.targets import absent, is_there

HOOK_LIMIT_S = 300.0  # for each command of on_error
LOOK_LIMIT_S = 300.0  # for a look into a repository whose last run is not remembered


def run_jobs(
    strategy: Strategy,
    names: Sequence[str] = (),
    *,
    due: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    lock_timeout: float = 0.0,
    waiting: Callable[[str], None] | None = None,
    began: Callable[[str], None] = lambda _job: None,
    clock: Callable[[], int] = time.time_ns,
) -> RunReport:
    """Run jobs of a strategy, by default all with an `every`, with `due` those whose time has come.

    Urgent ones first, then what is overdue longest. `began` is told each job as it begins. A dry
    run tells what would be run and changes nothing. To be called where no repository is open and
    no other thread works: every job is a child process. Raises UsageError for an unknown name;
    everything else is in the report.
    """
    options = RunOptions(threads=threads, lock_timeout=lock_timeout, waiting=waiting, clock=clock)
    started = time.monotonic()
    chosen = _chosen(strategy, names)
    with Wishes() as wishes:
        run = _Run(strategy, options, chosen, wishes, named=bool(names), due=due)
        run.report.insisted = bool(names) and not due
        queue = run.queue()
        if dry_run:
            run.plan(queue)
            queue = []
        while queue and not wishes.count:
            job = queue.pop(0)
            began(job.name)
            run.one(job)
    run.report.interrupted = bool(wishes.count)
    for job in queue:
        run.report.jobs.append(JobReport(job.name))
        run.report.jobs[-1].skip("the run was interrupted before it began")
    run.report.dry_run = dry_run
    run.report.seconds = time.monotonic() - started
    return run.report


def _chosen(strategy: Strategy, names: Sequence[str]) -> list[Job]:
    for name in names:
        if name not in strategy.jobs:
            close = difflib.get_close_matches(name, strategy.jobs, 1)
            raise UsageError(
                f"{strategy.path} has no job {name!r}",
                hint=f"Is {close[0]!r} meant?"
                if close
                else f"It has: {', '.join(strategy.jobs) or 'none'}",
            )
    return [job for job in strategy.jobs.values() if not names or job.name in names]


class _Run:
    def __init__(
        self,
        strategy: Strategy,
        options: RunOptions,
        jobs: Sequence[Job],
        wishes: Wishes,
        *,
        named: bool,
        due: bool,
    ) -> None:
        self._named = named
        self._wishes = wishes
        self._strategy = strategy
        self._options = options
        self._jobs = jobs
        self._due = due
        self._times: dict[str, int | None] = {}
        self._found: dict[str, int] = {}  # when snapshots were taken that nobody remembered
        self.report = RunReport()

    def queue(self) -> list[Job]:
        """Return the jobs to run in their order; notes when each is due."""
        now = self._options.clock()
        for job in self._jobs:
            files = JobFiles(self._strategy, job.name)
            self._times[job.name] = due_at(job.every, self._remember(job, files), now)
        return sorted((job for job in self._jobs if self._is_wanted(job, now)), key=self._order)

    def _order(self, job: Job) -> tuple[int, bool, int, str]:
        at = self._times[job.name]
        return job.priority, at is None, at or NEVER_RAN, job.name

    def _is_wanted(self, job: Job, now_ns: int) -> bool:
        at = self._times[job.name]
        if self._due:
            return at is not None and at <= now_ns
        return at is not None or self._named

    def _remember(self, job: Job, files: JobFiles) -> Memory:
        """Return what is known of a job; where that matters and is nothing, look for it.

        A run that was killed may have stored everything before.
        """
        memory = files.load()
        if memory is None or memory.running:
            unsure = memory or Memory(job=job.name)
            if self._due and job.every is not None and not files.going():
                look = run_apart(lambda: _newest(job, self._options), self._wishes, LOOK_LIMIT_S)
                self._found[job.name] = look.value or NEVER_RAN
                unsure.good_ns = max(unsure.good_ns, self._found[job.name])
            return unsure
        return memory

    def plan(self, queue: Sequence[Job]) -> None:
        """Say what would be done, first what would be run."""
        rest = sorted((job for job in self._jobs if job not in queue), key=self._order)
        for job in [*queue, *rest]:
            going = JobFiles(self._strategy, job.name).going()
            runs = job in queue and not going
            self.report.planned.append(Planned(job.name, runs, self._times[job.name], going))

    def one(self, job: Job) -> None:
        """Run one job, or say why not."""
        report = JobReport(job.name, began_ns=self._options.clock())
        self.report.jobs.append(report)
        files = JobFiles(self._strategy, job.name)
        try:
            lock = files.lock()
        except RepositoryLocked as error:
            report.skip(error.message, error.exit_code)
            return
        except PackstoneError as error:
            report.fail(error)
            report.settle()
            return
        try:
            self._locked(job, files, report)
        finally:
            lock.release()

    def _locked(self, job: Job, files: JobFiles, report: JobReport) -> None:
        memory = files.load() or Memory(job=job.name)
        now = self._options.clock()
        if self._due and memory.began_ns and not memory.running:
            at = due_at(job.every, memory, now)
            if at is None or at > now:
                report.skip("another run has done it meanwhile")
                return
        if not job.before and not is_there(job.repository):
            report.skip(absent(job.repository), RepositoryMissing.exit_code)
            return
        before = msgspec.structs.replace(memory)
        memory.good_ns = max(memory.good_ns, self._found.get(job.name, NEVER_RAN))
        memory.began_ns, memory.running = now, True
        memory.failures += 1
        self._save(files, memory, report)
        self._tell(job, report, "start")
        limit = None if job.timeout_ns is None else job.timeout_ns / 1e9 + GRACE_S
        outcome = run_apart(lambda: carry_out(job, self._options), self._wishes, limit)
        if outcome.value is None:
            report.seconds = (self._options.clock() - now) / 1e9
            report.fail(PackstoneError(outcome.died, hint="What it had committed is there"))
        else:
            outcome.value.warnings[:0] = report.warnings
            report = self.report.jobs[-1] = outcome.value
        report.settle(interrupted=outcome.interrupted)
        if report.status == SKIPPED:  # its disk is not there: it is due as it was
            memory = before
        else:
            # Of one that was killed it is not known what it stored: the next run looks.
            memory.running = outcome.value is None
            _learn(memory, report)
        failed = report.status in (FAILED, INTERRUPTED)
        for command in job.on_error if failed else ():
            self._on_error(command, report)
        self._save(files, memory, report)
        self._write_metrics()
        if report.status != SKIPPED:
            self._tell(job, report, "fail" if failed else "", report.message if failed else "")

    def _on_error(self, command: str, report: JobReport) -> None:
        told = environment(report)
        done = run_apart(lambda: _call(command, told), self._wishes, HOOK_LIMIT_S + GRACE_S)
        problem = done.died if done.value is None else done.value
        if problem:
            report.warn(f"on_error: {problem}")

    def _tell(self, job: Job, report: JobReport, event: str, text: str = "") -> None:
        """Ping, if the job has somebody to tell; a name server that is dead holds up nothing."""
        if not job.ping:
            return

        done = run_apart(lambda: _ping(job.ping, event, text), self._wishes, 2 * TIMEOUT_S)
        problem = done.died if done.value is None else done.value
        if problem:
            self._warn(report, f"ping: {problem}")

    def _save(self, files: JobFiles, memory: Memory, report: JobReport) -> None:
        try:
            files.save(memory)
        except OSError as error:
            self._warn(report, f"the state of this job cannot be kept: {error.strerror}")

    def _warn(self, report: JobReport, text: str) -> None:
        """Warn of what came after the job has ended, or before it began."""
        report.warn(text)
        if report.status == DONE:
            report.settle()

    def _write_metrics(self) -> None:
        if not self._strategy.metrics:
            return
        names = self._strategy.jobs
        memories = [JobFiles(self._strategy, name).load() or Memory(job=name) for name in names]
        try:
            write_metrics(self._strategy.metrics, memories)
        except OSError as error:
            text = f"metrics cannot be written to {self._strategy.metrics}: {error.strerror}"
            if text not in self.report.warnings:
                self.report.warnings.append(text)


def _call(command: str, told: dict[str, str]) -> str:
    """Run a command of on_error; return what went wrong."""
    try:
        run_hook(command, told, HOOK_LIMIT_S)
    except PackstoneError as error:
        return error.message
    return ""


def _ping(url: str, event: str, text: str) -> str:
    """Tell a monitor; return what went wrong."""
    try:
        ping(url, event, text)
    except PackstoneError as error:
        return error.message
    return ""


def _newest(job: Job, options: RunOptions) -> int:
    """Return when the job was last whole: of several parts the oldest newest snapshot counts.

    Unix time in ns, 0 where a part has none; what is from the future does not count.
    """
    now = options.clock()
    try:
        names = part_names(job.source)
        with options.open(job.repository) as repository:
            rows = repository.snapshots(host=socket.gethostname(), tags=[job.tag])
    except PackstoneError:
        return NEVER_RAN  # the run itself will say so
    newest = dict.fromkeys(map(os.fsencode, names), NEVER_RAN)
    for row in rows:
        name, time_ns = row.snapshot.name, row.snapshot.time_ns
        if name in newest and time_ns <= now:
            newest[name] = max(newest[name], time_ns)
    return min(newest.values(), default=NEVER_RAN)


def _learn(memory: Memory, report: JobReport) -> None:
    """Put what came of a run into what is remembered."""
    memory.status, memory.error = report.status, report.message
    memory.seconds = report.seconds
    results = [taken.result for taken in report.snapshots]
    memory.snapshots = [result.snapshot_id or "" for result in results]
    memory.bytes_total = sum(result.bytes_total for result in results)
    memory.bytes_read = sum(result.bytes_read for result in results)
    memory.bytes_stored = sum(result.bytes_stored for result in results)
    if report.complete:
        memory.good_ns, memory.failures = report.began_ns, 0
