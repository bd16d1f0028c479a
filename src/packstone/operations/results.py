"""What the verbs report: plain values, sizes in bytes, times in nanoseconds or seconds."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from packstone.model import Entry, Problem


class Progress(NamedTuple):
    """How far a verb is; totals are None while they are unknown."""

    files_done: int
    bytes_done: int
    files_total: int | None
    bytes_total: int | None
    current: bytes


ProgressFunction = Callable[[Progress], None]


def source_problem(path: bytes, error: OSError, what: str = "cannot be read: {}") -> Problem:
    """Return what to tell of a source that gave an error.

    Raises MemoryError where it was for want of memory: that says nothing of the source, and a
    snapshot must not lack it for that.
    """
    if error.errno == errno.ENOMEM:
        raise MemoryError from error
    return Problem(path, what.format(error.strerror or error))


class Ticker:
    """Pass progress on, ten times a second at most."""

    def __init__(self, progress: ProgressFunction | None) -> None:
        self._progress = progress
        self._next = 0.0

    def __call__(
        self,
        files_done: int,
        bytes_done: int,
        current: bytes = b"",
        *,
        files_total: int | None = None,
        bytes_total: int | None = None,
    ) -> None:
        """Report, unless the last report is less than a tenth of a second old."""
        if self._progress is not None and self.is_due():
            self._next = time.monotonic() + 0.1
            self._progress(Progress(files_done, bytes_done, files_total, bytes_total, current))

    def is_due(self) -> bool:
        """Return whether a report would be passed on now."""
        return self._progress is not None and time.monotonic() >= self._next


@dataclass(slots=True)
class SnapshotResult:
    """What a snapshot holds and what it cost; `snapshot_id` is None when none was taken."""

    snapshot_id: str | None = None
    parent_id: str | None = None
    time_ns: int = 0
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs: int = 0
    errors: list[Problem] = field(default_factory=list)
    bytes_total: int = 0  # of all files in the snapshot
    bytes_read: int = 0
    bytes_added: int = 0  # new objects before compression
    bytes_stored: int = 0  # what they take in packs
    chunks_total: int = 0  # of the files that were read
    chunks_new: int = 0
    chunks_delta: int = 0
    bytes_delta: int = 0  # of the chunks that are stored as deltas
    bytes_delta_stored: int = 0  # what these take
    seconds: float = 0.0


class Change(NamedTuple):
    """What a restore does to one path of the target; `size` in bytes, of a file's content.

    `action` is "create", "change", "attributes" (content is right already), "keep" or "delete".
    """

    action: str
    path: bytes
    size: int


ReportFunction = Callable[[Change], None]


@dataclass(slots=True)
class RestoreResult:
    """What a restore wrote, or with `dry_run` would write."""

    files_restored: int = 0  # created or changed
    files_changed: int = 0  # those of them that replaced what was there
    files_skipped: int = 0  # left as they were, but for attributes
    files_deleted: int = 0  # names, also of directories
    files_verified: int = 0
    bytes_written: int = 0  # content that came from the repository
    bytes_reused: int = 0  # content of changed files that was there already
    bytes_deleted: int = 0
    errors: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Finding(NamedTuple):
    """One thing `check` found wrong, and what it hits: all of the paths in each of the snapshots.

    One that is `transient` was there at one of two reads: nothing is lost, the way to it is bad.
    """

    kind: str
    message: str
    pack: str | None = None
    snapshots: tuple[str, ...] = ()
    paths: tuple[bytes, ...] = ()
    record: int | None = None
    transient: bool = False


class Verified(NamedTuple):
    """How much of a repository was ever read and found whole; `oldest_ns` is 0 without any."""

    packs: int
    bytes: int
    oldest_ns: int


@dataclass(slots=True)
class CheckResult:
    """What `check` looked at and found.

    `orphans` counts packs of which no snapshot needs anything, None where that was not asked or
    cannot be told. `notes` say what is no error. `verified` is None unless data was read.
    """

    errors: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    packs_checked: int = 0  # read from beginning to end
    packs_total: int = 0
    bytes_total: int = 0  # of all packs
    bytes_read: int = 0
    orphans: int | None = None
    verified: Verified | None = None
    snapshots_checked: int = 0
    objects_checked: int = 0
    seconds: float = 0.0


class ListedEntry(NamedTuple):
    """One path of a snapshot: absolute, with the names of its owners as they were then."""

    path: bytes
    entry: Entry
    user: str
    group: str
