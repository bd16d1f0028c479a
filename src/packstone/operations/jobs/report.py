"""What runs of jobs came to: for people, for programs, and as an exit code. Pure.

Sizes in bytes, times in nanoseconds of Unix time, `seconds` of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from packstone.errors import PackstoneError, UsageError
from packstone.operations.results import CheckResult, SnapshotResult

RUNNING = "running"  # what hooks are told; no report ends so
DONE, WARNINGS, FAILED, SKIPPED = "done", "warnings", "failed", "skipped"
INTERRUPTED = "interrupted"
WARNINGS_CODE = 3
INTERRUPTED_CODE = 130


class Failure(NamedTuple):
    """Why something that was to be done was not; as errors.py has it."""

    kind: str
    message: str
    hint: str
    exit_code: int

    @classmethod
    def of(cls, error: BaseException, where: str = "") -> Failure:
        """Return what an exception says, after what was being done."""
        prefix = f"{where}: " if where else ""
        if isinstance(error, PackstoneError):
            return cls(error.kind, prefix + error.message, error.hint, error.exit_code)
        kind, code = PackstoneError.kind, PackstoneError.exit_code
        if isinstance(error, OSError):
            name = f": {error.filename!r}" if error.filename else ""
            return cls(kind, f"{prefix}{error.strerror or error}{name}", "", code)
        if isinstance(error, MemoryError):
            return cls(kind, prefix + "out of memory", "try again with --threads 1", code)
        text = f"{prefix}unexpected {type(error).__name__}: {error}"
        return cls(kind, text, "this is a defect of Packstone", code)


class TakenSnapshot(NamedTuple):
    """A snapshot of one run; `name` is that of a streamed part, empty for paths."""

    name: str
    result: SnapshotResult


class Copied(NamedTuple):
    """What went to another repository."""

    repository: str
    snapshots: int
    bytes_stored: int


@dataclass(slots=True)
class JobReport:
    """What one run of a job came to.

    `notes` say what is neither wrong nor to be done; `freed` is what pruning gave back. A job
    that is `skipped` has the reason in `notes`, and in `exit_code` what that means to whoever
    asked for it by name.
    """

    job: str
    status: str = RUNNING
    began_ns: int = 0
    seconds: float = 0.0
    errors: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    snapshots: list[TakenSnapshot] = field(default_factory=list)
    complete: bool = False  # everything that the job names was stored
    forgotten: int = 0
    freed: int | None = None
    copies: list[Copied] = field(default_factory=list)
    check: CheckResult | None = None
    exit_code: int = 0

    def fail(self, error: BaseException, where: str = "") -> None:
        """Note an error; the job has failed, whatever else of it is done."""
        self.errors.append(Failure.of(error, where))

    def warn(self, text: str) -> None:
        """Note what should be known, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def skip(self, reason: str, exit_code: int = 0) -> None:
        """Say that nothing was done, and why."""
        self.status, self.exit_code = SKIPPED, exit_code
        self.notes.append(reason)

    def settle(self, *, interrupted: bool = False) -> None:
        """Decide on the status by what was noted."""
        if self.status == SKIPPED and not self.errors:
            return
        unread = any(taken.result.errors for taken in self.snapshots)
        if interrupted:
            self.status, self.exit_code = INTERRUPTED, INTERRUPTED_CODE
        elif self.errors:
            code = self.errors[0].exit_code
            # The command line was right: what a job finds wrong in its file is no usage error,
            # and one that failed is not one with warnings.
            told_otherwise = (UsageError.exit_code, WARNINGS_CODE)
            self.exit_code = PackstoneError.exit_code if code in told_otherwise else code
            self.status = FAILED
        elif self.warnings or unread:
            self.status, self.exit_code = WARNINGS, WARNINGS_CODE
        else:
            self.status, self.exit_code = DONE, 0

    @property
    def message(self) -> str:
        """Why it failed, in one text."""
        return "; ".join(each.message for each in self.errors)


class Planned(NamedTuple):
    """What a dry run says of a job: whether it would run, and since or from when it is due.

    `due_ns` is 0 for one that never stored anything, None for one without `every`. `going` says
    who is at it already.
    """

    job: str
    runs: bool
    due_ns: int | None
    going: str = ""


@dataclass(slots=True)
class RunReport:
    """What a whole run came to; `planned` alone is there after a dry run.

    `insisted` says that jobs were named and to be run whatever is due.
    """

    jobs: list[JobReport] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dry_run: bool = False
    insisted: bool = False
    interrupted: bool = False
    seconds: float = 0.0

    def count(self, status: str) -> int:
        """Return how many jobs ended so."""
        return sum(each.status == status for each in self.jobs)

    @property
    def exit_code(self) -> int:
        """The code of the one job that failed, 1 for several; 3 for warnings; 0."""
        if self.interrupted:
            return INTERRUPTED_CODE
        failed = _codes(self.jobs, FAILED)
        if failed:
            return failed[0] if len(failed) == 1 else PackstoneError.exit_code
        skipped = [code for code in _codes(self.jobs, SKIPPED) if code]
        if self.insisted and skipped:
            return skipped[0]
        return WARNINGS_CODE if self.warnings or self.count(WARNINGS) else 0


def _codes(jobs: Sequence[JobReport], status: str) -> list[int]:
    return [each.exit_code for each in jobs if each.status == status]
