"""What can be asked of the verbs; sizes in bytes, times in nanoseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packstone.filesystem.ignore import Rules
    from packstone.operations.results import ProgressFunction, ReportFunction

MAX_UNUSED = 0.05  # of a pack, before prune writes it anew


def _no_rules() -> Rules:
    from packstone.filesystem.ignore import Rules  # patterns cost an import that few verbs need

    return Rules()


@dataclass(slots=True, kw_only=True)
class SnapshotOptions:
    """What a snapshot is to be called and how sources are looked at."""

    tags: Sequence[str] = ()
    host: str | None = None
    time_ns: int | None = None
    rules: Rules = field(default_factory=_no_rules)
    read_all: bool = False
    ignore_inode: bool = False
    parent: str | None = None
    level: int | None = None
    dry_run: bool = False
    skip_if_unchanged: bool = False
    delta: bool | None = None  # None: where bases need not be fetched from far away
    threads: int = 1
    progress: ProgressFunction | None = None
    clock: Callable[[], int] = time.time_ns


@dataclass(slots=True, kw_only=True)
class RestoreOptions:
    """What of a snapshot is restored, and what happens to files that are there already.

    `include` and `exclude` are gitignore-style patterns on stored paths. `overwrite` is None
    (the target must be empty), "changed", "never" or "always". With "changed" a file of the
    same size and time is taken for unchanged unless `read_data`; any other is compared. `delete`
    removes what the snapshot has not. `verify` reads every file back from the disk. `report` is
    told each change as it is decided. `estimated_seconds` is what was said of its time before,
    kept beside the time that it takes.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    overwrite: str | None = None
    read_data: bool = False
    delete: bool = False
    verify: bool = False
    dry_run: bool = False
    sparse: bool = False
    owner: bool = True
    threads: int = 1
    progress: ProgressFunction | None = None
    report: ReportFunction | None = None
    estimated_seconds: float = 0.0
